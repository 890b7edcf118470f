"""Ranks of the held-out positives under the two protocols.

*catalogue*: among all items, those of the history left out. *candidates*: one positive among
sampled others, one row per positive.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from palate.data.contexts import Context, ContextSet, Ids
from palate.errors import CheckpointError
from palate.evaluation.beyond_accuracy import beyond_accuracy
from palate.evaluation.candidates import Candidates
from palate.evaluation.metrics import context_metrics, ranks_of
from palate.evaluation.significance import bootstrap_intervals
from palate.policies.policy import PADDING_ITEM, Policy, highest
from palate.progress import progress_bar

CatalogueScorer = Callable[[Sequence[Context]], NDArray]
"""Contexts → (B, items) scores, higher is better."""

Interval = dict[str, float | None]
LIST_LENGTH = 10
"""Length of the lists behind coverage, Gini index, popularity and diversity."""


@dataclass(frozen=True)
class Ranks:
    """Ranks in long form: one row per held-out positive.

    Attributes:
        group: (R,) the list a rank comes from; in `catalogue` a context, in `candidates` a row.
        context_id, user_id, item_id, level: (R,) whose positive it is.
        rank: (R,) float ranks.
        lists: (contexts, LIST_LENGTH) recommended items in `catalogue`, else None.
    """

    group: Ids
    context_id: Ids
    user_id: Ids
    item_id: Ids
    level: Ids
    rank: NDArray[np.float64]
    lists: Ids | None = None

    def per_group(
        self,
        cutoffs: Sequence[int],
        rows: NDArray[np.bool_] | None = None,
        graded: bool = False,
    ) -> tuple[dict[str, NDArray[np.float64]], Ids]:
        """Metrics of each list, and its user; of some rows alone, as though no more were held out.

        Args:
            cutoffs: of the metrics.
            rows: (R,) which rows; None for all.
            graded: whether NDCG by levels is among them.
        """
        chosen = slice(None) if rows is None else rows
        lists, first, group = np.unique(self.group[chosen], return_index=True, return_inverse=True)
        ranks, levels = self.rank[chosen], self.level[chosen]
        metrics = context_metrics(group, ranks, levels, len(lists), cutoffs, graded)
        return metrics, self.user_id[chosen][first]

    def values(
        self, metrics: Sequence[str], rows: NDArray[np.bool_] | None = None
    ) -> tuple[dict[str, NDArray[np.float64]], Ids]:
        """`per_group` by the names of metrics, such as "ndcg@10"."""
        cutoffs = sorted({int(metric.split("@")[1]) for metric in metrics})
        graded = any(metric.startswith("ndcg_graded@") for metric in metrics)
        found, users = self.per_group(cutoffs, rows, graded)
        return {metric: found[metric] for metric in metrics}, users

    def same_answers(self, other: "Ranks") -> bool:
        """Whether both have ranked the same answers of the same contexts."""
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("context_id", "user_id", "item_id", "level")
        )

    def table(self, stage: str, protocol: str) -> pa.Table:
        """Rows for `ranks.parquet`."""
        n = len(self.rank)
        return pa.table(
            {
                "stage": pa.array([stage] * n).dictionary_encode(),
                "protocol": pa.array([protocol] * n).dictionary_encode(),
                "context_id": self.context_id,
                "user_id": self.user_id,
                "item_id": self.item_id,
                "level": self.level,
                "rank": self.rank,
            }
        )


def rank_catalogue(
    scorer: CatalogueScorer,
    contexts: ContextSet,
    exclude_history: bool = True,
    candidates: Candidates | None = None,
    batch_size: int = 8,
    label: str | None = None,
) -> dict[str, Ranks]:
    """Ranks under `catalogue` and, given candidate lists, under `candidates` from the same scores.

    Args:
        scorer: contexts → (B, items) scores; a score may depend on context and item only.
        contexts: what to rank.
        exclude_history: leave items of the history out.
        candidates: lists from `draw_candidates`, or None.
        batch_size: contexts scored at once.
        label: what the progress bar says; None for no bar.
    """
    log = contexts.interactions
    context_of, positive = contexts.positive_rows()
    firsts = np.searchsorted(context_of, np.arange(len(contexts) + 1))
    ranks, lists = np.zeros(firsts[-1]), [np.empty(0, np.int64)] * len(contexts)
    listed = np.zeros(0 if candidates is None else len(candidates.row))
    by_length = np.argsort(contexts.history_lengths, kind="stable")  # like lengths pad little
    for start in steps(len(contexts), batch_size, label):
        chosen = by_length[start : start + batch_size]
        batch = [contexts[int(index)] for index in chosen]
        scores = scorer(batch)
        if candidates is not None:
            rows, lines = _of_contexts(chosen, candidates.first_lines(len(contexts)))
            shown = candidates.item_ids[lines]
            of_shown = scores[rows[:, None], shown]
            of_shown[shown == PADDING_ITEM] = -np.inf
            listed[lines] = ranks_of(of_shown, np.arange(len(shown)), candidates.place[lines])
        if exclude_history:
            scores = scores.copy()
            for offset, context in enumerate(batch):
                own = scores[offset, context.positives]
                scores[offset, context.history] = -np.inf
                scores[offset, context.positives] = own
        rows, places = _of_contexts(chosen, firsts)
        ranks[places] = ranks_of(scores, rows, log.items[positive[places]])
        _, top = highest(torch.from_numpy(scores), LIST_LENGTH)
        for index, best in zip(chosen, top.numpy(), strict=True):
            lists[index] = best
    result = {
        "catalogue": Ranks(
            group=context_of,
            context_id=contexts.begins[context_of],
            user_id=log.users[positive],
            item_id=log.items[positive],
            level=log.levels[positive],
            rank=ranks,
            lists=np.stack(lists),
        )
    }
    if candidates is not None:
        result["candidates"] = candidate_ranks(contexts, candidates, listed)
    return result


def rank_candidates(
    policy: Policy,
    contexts: ContextSet,
    candidates: Candidates,
    batch_size: int = 16,
    label: str | None = None,
) -> dict[str, Ranks]:
    """Ranks under `candidates` for a policy whose prompts list the candidates."""
    found = []
    for start in steps(len(candidates.row), batch_size, label):
        lines = slice(start, start + batch_size)
        shown = candidates.item_ids[lines]
        asked = [
            replace(contexts[int(row)], candidates=ids[ids != PADDING_ITEM])
            for row, ids in zip(candidates.row[lines], shown, strict=True)
        ]
        scores = rankable(policy.score(asked, shown).log_probs.float().cpu().numpy(), asked)
        scores = np.where(shown == PADDING_ITEM, -np.inf, scores)
        found.append(ranks_of(scores, np.arange(len(shown)), candidates.place[lines]))
    return {"candidates": candidate_ranks(contexts, candidates, np.concatenate(found))}


def rankable(scores: NDArray, contexts: Sequence[Context]) -> NDArray:
    """(B, K) scores as they are, if they can be ranked: −inf can, NaN and +inf cannot.

    Raises:
        CheckpointError: one cannot.
    """
    bad = np.isnan(scores).any(axis=1) | np.isposinf(scores).any(axis=1)
    for row in np.flatnonzero(bad).tolist():
        raise CheckpointError(
            f"the policy's scores in context {contexts[row].context_id} are not finite numbers, so "
            "there is nothing to rank by. Its weights are damaged, or too large for its precision; "
            "train it again."
        )
    return scores


def candidate_ranks(
    contexts: ContextSet, candidates: Candidates, rank: NDArray[np.float64]
) -> Ranks:
    """Long form of one rank per candidate list."""
    lines = np.arange(len(rank))
    return Ranks(
        group=lines,
        context_id=contexts.begins[candidates.row],
        user_id=contexts.users[candidates.row],
        item_id=candidates.item_ids[lines, candidates.place],
        level=candidates.level,
        rank=rank,
    )


def _of_contexts(chosen: Ids, firsts: Ids) -> tuple[Ids, Ids]:
    """Which of some contexts each of their lines belongs to, and the lines; context i has the lines
    firsts[i] … firsts[i + 1] − 1."""
    begins, ends = firsts[chosen].tolist(), firsts[chosen + 1].tolist()
    lines = [np.arange(begin, end) for begin, end in zip(begins, ends, strict=True)]
    return np.repeat(np.arange(len(chosen)), list(map(len, lines))), np.concatenate(lines)


def summarise(
    ranks: Ranks,
    cutoffs: Sequence[int],
    seed: int,
    draws: int,
    popularity: Ids | None = None,
    categories: Sequence[Ids] | None = None,
    graded: bool = False,
) -> dict[str, Interval]:
    """Metrics with 95 % intervals by user; those of the lists come without interval."""
    per_group, users = ranks.per_group(cutoffs, graded=graded)
    intervals = bootstrap_intervals(per_group, users, seed, draws)
    summary: dict[str, Interval] = {
        name: {"value": value, "low": low, "high": high}
        for name, (value, low, high) in intervals.items()
    }
    if ranks.lists is not None and popularity is not None:
        for name, value in beyond_accuracy(ranks.lists, popularity, categories).items():
            summary[name] = {"value": value, "low": None, "high": None}
    return summary


def steps(total: int, size: int, label: str | None) -> Iterator[int]:
    """Starts of blocks of `size`, with a progress bar if there is a label."""
    if label is None:
        yield from range(0, total, size)
        return
    with progress_bar() as bar:
        task = bar.add_task(label, total=total, note="contexts")
        for start in range(0, total, size):
            yield start
            bar.update(task, completed=min(start + size, total))
