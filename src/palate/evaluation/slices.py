"""For whom it got better: held-out answers, split by what is known of them without a policy."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Ids
from palate.data.prepared import Prepared

HISTORY_EDGES = (5, 20, 50)
"""Longest histories of the first parts."""
POSITIVES_EDGES = (1, 3)
"""Most positives of the first parts."""


@dataclass(frozen=True)
class Slice:
    """Some of the held-out answers.

    Attributes:
        name: what they are split by: "popularity", "answer", "history" or "positives".
        part: which part, such as "tail".
        rows: (R,) whether each answer belongs to it.
    """

    name: str
    part: str
    rows: NDArray[np.bool_]


def slices_of(context_ids: Ids, item_ids: Ids, data: Prepared) -> list[Slice]:
    """Held-out answers split four ways; a split of which all fall into one part is left out.

    *popularity* of the answer in training: items by their counts, the most popular ones that make
    up a third of all training interactions are "head", those that make up the next third "middle",
    the rest "tail"; items with the same count stay together.
    *answer*: "cold" where it never occurs in training, "warm" elsewhere.
    *history*: items before the moment, "0–5", "6–20", "21–50" or "51+".
    *positives* of the context, "1", "2–3" or "4+".

    Popularity and answer split the answers of a context, so that a context may lie in several
    parts; its metrics within a part are those of the answers there.

    Args:
        context_ids: (R,) context of each answer, as in `ranks.parquet`.
        item_ids: (R,) the answers.
        data: what the run was prepared from.

    Returns:
        The parts that are not empty, in the order above.
    """
    log = data.interactions
    counts = data.popularity
    _, context, sizes = np.unique(context_ids, return_inverse=True, return_counts=True)
    lengths = context_ids - log.first_row[log.users[context_ids]]
    splits = {
        "popularity": (_thirds_of_mass(counts)[item_ids], ["head", "middle", "tail"]),
        "answer": ((counts[item_ids] > 0).astype(int), ["cold", "warm"]),
        "history": _between(lengths, 0, HISTORY_EDGES),
        "positives": _between(sizes[context], 1, POSITIVES_EDGES),
    }
    return [
        Slice(name, part, codes == code)
        for name, (codes, parts) in splits.items()
        if len(np.unique(codes)) > 1
        for code, part in enumerate(parts)
        if (codes == code).any()
    ]


def _thirds_of_mass(counts: Ids) -> NDArray[np.int64]:
    """(items,) 0, 1 or 2: in which third of all interactions, the popular items first, an item's
    count begins."""
    values, code, items = np.unique(counts, return_inverse=True, return_counts=True)
    mass = values * items
    above = mass.sum() - np.cumsum(mass)
    return np.minimum(3 * above // max(mass.sum(), 1), 2)[code]


def _between(values: NDArray, first: int, edges: tuple[int, ...]) -> tuple[NDArray, list[str]]:
    """The part of each value, and the parts' names."""
    bounds = [first, *(edge + 1 for edge in edges)]
    inner = [str(low) if low == high - 1 else f"{low}–{high - 1}" for low, high in pairwise(bounds)]
    return np.searchsorted(edges, values, side="left"), [*inner, f"{bounds[-1]}+"]
