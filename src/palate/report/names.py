"""What metrics are called, and what they mean."""

from collections.abc import Iterable
from typing import Any

NAMES = {
    "ndcg": "NDCG",
    "ndcg_graded": "graded NDCG",
    "hr": "HR",
    "mrr": "MRR",
    "map": "MAP",
    "recall": "Recall",
}
MEANING = {
    "ndcg": "NDCG@{k} is 1 for a list that begins with what the person went on to like, less the "
    "further down that stands, and 0 where it is not among the first {k}.",
    "hr": "HR@{k} is the share of lists whose first {k} items hold something that the person went "
    "on to like.",
}

SAME = {"recall": "hr", "ndcg_graded": "ndcg", "map": "mrr"}
"""What a metric is of lists with one right answer each; @1 all are the hit rate."""
SAME_TEXT = (
    "With one right answer in a list, Recall@K is HR@K, MAP@K is MRR@K and graded NDCG@K is "
    "NDCG@K; at K = 1 all are HR@1. Each is shown once."
)


def metric_name(metric: str, protocol: str = "catalogue", length: int | str = 20) -> str:
    """A metric as papers write it: NDCG@10, and HR@1|20 among twenty candidates.

    Args:
        metric: as in `metrics.json`.
        protocol: "catalogue" or "candidates".
        length: of the candidate lists; see `list_length`.
    """
    kind, at, k = metric.partition("@")
    shown = f"{NAMES.get(kind, kind.replace('_', ' '))}{at}{k}"
    return f"{shown}|{length}" if protocol == "candidates" else shown


def list_length(metrics: dict[str, Any], configured: int) -> str:
    """How many items the candidate lists of a run hold: "20", or "2–20" where they differ.

    Args:
        metrics: what `metrics.json` holds.
        configured: `evaluation.candidates`, for runs evaluated before their lists were measured.
    """
    found = metrics.get("candidate_lists")
    if found is None:
        return str(configured)
    shortest, longest = found["shortest"], found["longest"]
    return str(longest) if shortest == longest else f"{shortest}–{longest}"


def one_answer(metrics: dict[str, Any], protocol: str) -> bool:
    """Whether each list of a protocol has one right answer: candidate lists always; the catalogue
    where the run has counted as many answers as contexts."""
    counts = metrics.get("test_contexts", {})
    return protocol == "candidates" or counts.get("answers") == counts.get("used", 0)


def shown_once(names: Iterable[str], metrics: dict[str, Any], protocol: str) -> list[str]:
    """Metrics of a protocol without those that, by their definitions, repeat an earlier one.

    Args:
        names: such as "ndcg@10", "recall@10" and "coverage@10".
        metrics: what `metrics.json` holds.
        protocol: whose metrics.
    """
    if not one_answer(metrics, protocol):
        return list(names)
    found: dict[str, str] = {}
    for name in names:
        kind, _, k = name.partition("@")
        same = "hr@1" if k == "1" and kind in NAMES else f"{SAME.get(kind, kind)}@{k}"
        found.setdefault(same, name)
    return list(found.values())
