"""What metrics are called, and what they mean."""

from typing import Any

NAMES = {"ndcg": "NDCG", "hr": "HR", "mrr": "MRR", "map": "MAP", "recall": "Recall"}
MEANING = {
    "ndcg": "NDCG@{k} is 1 for a list that begins with what the person went on to like, less the "
    "further down that stands, and 0 where it is not among the first {k}.",
    "hr": "HR@{k} is the share of lists whose first {k} items hold something that the person went "
    "on to like.",
}


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
