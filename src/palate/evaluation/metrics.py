"""Ranks with a rule for ties, and the ranking metrics of a context.

A rank is a float: 1 + #(candidates scored higher) + #(other candidates scored equal) / 2, the
mean over all orders of the tied candidates. So a policy that scores everything alike gets the
middle of the list, not its top. Ranks meet a cutoff as they are: 10.5 is not in the top 10.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.errors import ConfigError, DataError

CUTOFFS = (1, 5, 10, 20)
_BLOCK = 1 << 18  # scores compared at a time: 1 to 2 MB, which stays in the processor's cache


def chief_cutoff(cutoffs: Iterable[int]) -> int:
    """The cutoff of the metric that a run is judged by: 10 where it is among them, else the
    largest."""
    every = set(cutoffs)
    return 10 if 10 in every else max(every)


def ranks_of(scores: NDArray, rows: ArrayLike, items: ArrayLike) -> NDArray[np.float64]:
    """The rank of each positive among the candidates of its row.

    rank = 1 + #{j : s_j > s_i} + #{j ≠ i : s_j = s_i} / 2

    Args:
        scores: (B, n_items), higher is better; −inf masks an item out.
        rows: (R,) the row of each positive; a row may have several positives, or none.
        items: (R,) the column of each positive.

    Returns:
        (R,) ranks ≥ 1. A positive that is itself masked is not in the list: its rank is inf, and
        no metric counts it as found.

    Raises:
        DataError: a score is NaN, or rows and items do not point into the scores.
    """
    scores, rows, items = np.asarray(scores), np.asarray(rows, int), np.asarray(items, int)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise DataError(f"scores have shape {scores.shape}; expected (rows, items), items > 0.")
    _check_lengths(rows=rows, items=items)
    for name, index, size in (("row", rows, scores.shape[0]), ("item", items, scores.shape[1])):
        if len(index) and not 0 <= index.min() <= index.max() < size:
            found = f"{index.min()}–{index.max()}"
            raise DataError(f"positives: {name}s are {found}, but the scores have {size} {name}s.")
    missing = np.isnan(scores.min(axis=1))  # a minimum hands a NaN on without a mask of its own
    if missing.any():
        row = int(missing.argmax())
        raise DataError(
            f"scores row {row}: item {int(np.isnan(scores[row]).argmax())} has the score NaN "
            f"({int(missing.sum())} of {len(scores)} rows have one). Expected a number, or −inf "
            "for an item masked out; look for a diverged policy or an empty prompt."
        )
    own = scores[rows, items]
    ranks = np.empty(len(rows))
    step = max(1, _BLOCK // scores.shape[1])
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        candidates = scores[rows[block]]
        higher = _count(candidates > own[block, None])
        equal = _count(candidates == own[block, None])
        ranks[block] = higher + (equal + 1) / 2
    ranks[np.isneginf(own)] = np.inf
    return ranks


def _count(true: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Like count_nonzero of each row, in a third of the time."""
    return np.bitwise_count(np.packbits(true, axis=1)).sum(axis=1, dtype=np.int64)


def context_metrics(
    context_index: ArrayLike,
    ranks: ArrayLike,
    levels: ArrayLike,
    n_contexts: int,
    cutoffs: Sequence[int] = CUTOFFS,
    graded: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """Hit rate, recall, NDCG, MRR and MAP of each context, at each cutoff K.

    With r_1 ≤ … ≤ r_k the ranks of a context's k positives and ℓ_i their levels:

        hr@K           1 if r_1 ≤ K, else 0
        recall@K       #{i : r_i ≤ K} / k, divided by k also where k > K
        ndcg@K         Σ_{r_i ≤ K} 1 / log2(r_i + 1), divided by Σ_{j ≤ min(k, K)} 1 / log2(j + 1)
        ndcg_graded@K  Σ_{r_i ≤ K} g_i / log2(r_i + 1) with the gain g_i = 2^ℓ_i − 1, divided by
                       Σ_{j ≤ min(k, K)} g_(j) / log2(j + 1), where g_(1) ≥ g_(2) ≥ …
        mrr@K          1 / r_1 if r_1 ≤ K, else 0
        map@K          Σ_{r_i ≤ K} (i / r_i) / min(k, K), where i / r_i is the precision at
                       positive i

    Both NDCG: Järvelin and Kekäläinen, TOIS 2002; the exponential gain: Burges et al., ICML 2005.
    With one positive in a context, or one level, they are the same. Tied positives are numbered on,
    i, i + 1, …: counting all of them at each would give precisions above 1. NDCG and MAP end at 1:
    five positives tied at rank 3 are all within K = 3.

    Args:
        context_index: (R,) context of each positive, in [0, n_contexts), in any order.
        ranks: (R,) from `ranks_of`. All ranks of a context come from one list.
        levels: (R,) preference level of each positive, ≥ 1; read if `graded`.
        n_contexts: number of contexts C; each has at least one positive.
        cutoffs: values of K.
        graded: give ndcg_graded@K too. Default False.

    Returns:
        name → (C,) values in [0, 1]; names are "hr@K", "recall@K", "ndcg@K",
        "ndcg_graded@K" if `graded`, "mrr@K", "map@K".

    Raises:
        ConfigError: a cutoff is not a positive integer.
        DataError: the columns do not fit together, a rank is below 1 or NaN, a level is below 1,
            or a context has no positive.
    """
    for cutoff in cutoffs:
        if not isinstance(cutoff, int | np.integer) or cutoff < 1:
            raise ConfigError(f"cutoff {cutoff} is not a positive integer. Example: 1, 5, 10, 20.")
    context, rank = np.asarray(context_index, int), np.asarray(ranks, float)
    level = np.asarray(levels, float)
    _check_positives(context, rank, level, n_contexts)
    order = np.lexsort((rank, context))
    context, rank, level = context[order], rank[order], level[order]
    positives = np.bincount(context, minlength=n_contexts)
    first = np.cumsum(positives) - positives
    place = np.arange(len(context)) - first[context]
    gains = {"ndcg": np.ones(len(rank))}
    if graded:
        gains["ndcg_graded"] = np.exp2(level) - 1
    ideals = {
        name: gain[np.lexsort((-gain, context))] / np.log2(place + 2)
        for name, gain in gains.items()
    }
    discount = np.log2(rank + 1)
    precision = (place + 1) / rank
    best = rank[first]

    def total(values: NDArray, where: NDArray) -> NDArray:
        return np.bincount(context[where], weights=values[where], minlength=n_contexts)

    metrics = {}
    for cutoff in cutoffs:
        hit, reachable = rank <= cutoff, np.minimum(positives, cutoff)
        metrics[f"hr@{cutoff}"] = (best <= cutoff).astype(float)
        metrics[f"recall@{cutoff}"] = total(np.ones(len(rank)), hit) / positives
        for name, gain in gains.items():
            most = total(ideals[name], place < cutoff)
            metrics[f"{name}@{cutoff}"] = np.minimum(total(gain / discount, hit) / most, 1.0)
        metrics[f"mrr@{cutoff}"] = np.where(best <= cutoff, 1 / best, 0.0)
        metrics[f"map@{cutoff}"] = np.minimum(total(precision, hit) / reachable, 1.0)
    return metrics


def _check_positives(context: NDArray, rank: NDArray, level: NDArray, n_contexts: int) -> None:
    _check_lengths(context_index=context, ranks=rank, levels=level)
    if n_contexts < 1:
        raise DataError(f"there are {n_contexts} contexts; expected at least one to evaluate.")
    outside = (context < 0) | (context >= n_contexts)
    for wrong, name, values, expected in (
        (outside, "context", context, f"0 to {n_contexts - 1}"),
        (~(rank >= 1), "rank", rank, "1 or more"),
        (~(level >= 1), "level", level, "1 or more for a positive"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"positive {row}: {name} is {values[row]}; expected {expected}.")
    empty = np.bincount(context, minlength=n_contexts) == 0
    if empty.any():
        raise DataError(
            f"context {int(empty.argmax())} has no positive ({int(empty.sum())} of {n_contexts} "
            "contexts have none), so it has no ranking metric. Leave such contexts out."
        )


def _check_lengths(**columns: NDArray) -> None:
    if len({column.shape for column in columns.values()}) > 1 or any(
        column.ndim != 1 for column in columns.values()
    ):
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise DataError(f"columns differ in shape: {shapes}. Expected one value per positive.")
