"""What lists of recommendations look like, whoever is right: reach, evenness, popularity, variety.

Definitions as in Castells, Hurley and Vargas, "Novelty and Diversity in Recommender Systems",
Recommender Systems Handbook, 2022.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.errors import DataError

Categories = NDArray[np.integer] | Sequence[ArrayLike]


def beyond_accuracy(
    lists: ArrayLike, popularity: ArrayLike, categories: Categories | None = None
) -> dict[str, float]:
    """Coverage, Gini index, popularity and, with categories, diversity of recommended lists.

    Args:
        lists: (C, K) item ids recommended to each of C contexts.
        popularity: (n_items,) how often each item of the catalogue occurs in training.
        categories: one category per item (n_items,), or n_items arrays of categories.

    Returns:
        "coverage@K", "gini@K", "popularity@K" and, where categories are given, "diversity@K".

    Raises:
        DataError: a list or the catalogue is empty, an item is not in the catalogue, or the
            categories are not those of n_items items.
    """
    chosen, counts = np.asarray(lists), np.asarray(popularity)
    if counts.ndim != 1 or len(counts) == 0:
        raise DataError(f"popularity has shape {counts.shape}; expected one count per item.")
    _check_lists(chosen, len(counts))
    length = chosen.shape[1]
    values = {
        f"coverage@{length}": coverage(chosen, len(counts)),
        f"gini@{length}": gini(chosen, len(counts)),
        f"popularity@{length}": average_popularity(chosen, counts),
    }
    if categories is not None:
        if len(categories) != len(counts):
            raise DataError(
                f"categories are given for {len(categories)} items, but the catalogue has "
                f"{len(counts)}. Give one entry per item, an empty one where none is known."
            )
        values[f"diversity@{length}"] = category_diversity(chosen, categories)
    return values


def coverage(lists: ArrayLike, n_items: int) -> float:
    """Share of the catalogue that is recommended to anyone: #(distinct items in lists) / n_items.

    Args:
        lists: (C, K) item ids.
        n_items: size of the catalogue.

    Returns:
        A number in (0, 1].
    """
    return len(np.unique(np.asarray(lists))) / n_items


def gini(lists: ArrayLike, n_items: int) -> float:
    """Gini index of how often each item of the catalogue is recommended.

    G = Σ_i (2i − n − 1) x_i / (n Σ_i x_i), over the counts x_1 ≤ … ≤ x_n of all n items.

    Args:
        lists: (C, K) item ids.
        n_items: size of the catalogue; items never recommended count as 0.

    Returns:
        0 where all items are recommended equally often, 1 − 1/n where it is always the same one.
    """
    counts = np.sort(np.bincount(np.asarray(lists).ravel(), minlength=n_items))
    weights = 2.0 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ counts / (n_items * counts.sum()))


def average_popularity(lists: ArrayLike, popularity: ArrayLike) -> float:
    """Mean training count of the recommended items, in interactions.

    Args:
        lists: (C, K) item ids.
        popularity: (n_items,) training counts.

    Returns:
        The mean over all places of all lists.
    """
    return float(np.asarray(popularity, float)[np.asarray(lists)].mean())


def category_diversity(lists: ArrayLike, categories: Categories) -> float:
    """Number of distinct categories in a list, divided by the list's length; mean over lists.

    Args:
        lists: (C, K) item ids.
        categories: (n_items,) one category per item, or n_items arrays of categories; an item with
            an empty array adds none.

    Returns:
        1/K where each list keeps to one category, 1 where no two items share theirs; above 1 only
        where items have several categories.
    """
    chosen = np.asarray(lists)
    labels, sizes = _flat(categories)
    codes, known = np.unique(labels, return_inverse=True)[1], len(np.unique(labels))
    offsets = np.cumsum(sizes) - sizes
    # Spell out every (list, category) pair: item by item, the run of its labels.
    runs = sizes[chosen.ravel()]
    within = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
    category = codes[np.repeat(offsets[chosen.ravel()], runs) + within]
    row = np.repeat(np.repeat(np.arange(len(chosen)), chosen.shape[1]), runs)
    return len(np.unique(row * known + category)) / chosen.size


def _flat(categories: Categories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All categories in one row, item after item, and how many each item has."""
    if isinstance(categories, np.ndarray) and categories.ndim == 1 and categories.dtype != object:
        return categories.astype(np.int64), np.ones(len(categories), np.int64)
    parts = [np.atleast_1d(np.asarray(part, np.int64)) for part in categories]
    return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)


def _check_lists(lists: NDArray, n_items: int) -> None:
    if lists.ndim != 2 or lists.size == 0:
        raise DataError(f"lists have shape {lists.shape}; expected (contexts, K), neither empty.")
    if lists.dtype.kind not in "iu" or lists.min() < 0 or lists.max() >= n_items:
        raise DataError(
            f"lists hold {lists.dtype} values {lists.min()}–{lists.max()}; expected integer item "
            f"ids from 0 to {n_items - 1}."
        )
