"""Candidate lists for the `candidates` protocol, drawn or given, and kept in a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.contexts import ContextSet, Ids
from palate.errors import DataError
from palate.files import write_table
from palate.negatives import Uniform
from palate.policies.policy import PADDING_ITEM
from palate.randomness import permutation


@dataclass(frozen=True)
class Candidates:
    """One list per held-out positive.

    Attributes:
        row: (R,) index of the context a list belongs to, ascending.
        level: (R,) level of the list's positive.
        place: (R,) where the positive stands in its list.
        item_ids: (R, size) the lists; −1 where a small catalogue gives fewer.
    """

    row: Ids
    level: Ids
    place: Ids
    item_ids: Ids

    @property
    def lengths(self) -> Ids:
        """(R,) items of each list."""
        return (self.item_ids != PADDING_ITEM).sum(axis=1)

    def first_lines(self, n_contexts: int) -> Ids:
        """(contexts + 1,) the first list of each context, and the number of lists."""
        return np.searchsorted(self.row, np.arange(n_contexts + 1))


def draw_candidates(contexts: ContextSet, n_items: int, size: int, seed: int) -> Candidates:
    """For each positive itself and `size` − 1 uniform others, in random order.

    The others are outside the history and the context's other positives. They and the order are
    drawn from (seed, context, number of the positive), never from the answer: a list tells nothing
    about which of its items is right.
    """
    uniform = Uniform(n_items)
    rows, levels, places, lists = [], [], [], []
    for row, context in enumerate(contexts):
        barred = np.concatenate([context.positives, context.history])
        for number, item in enumerate(context.positives):
            name = (seed, context.context_id, number)
            listed = np.append(uniform.draw(context, size - 1, barred, (*name, 1)), item)
            listed = listed[permutation(len(listed), *name, 2)]
            rows.append(row)
            levels.append(int(context.levels[number]))
            places.append(int(np.flatnonzero(listed == item)[0]))
            lists.append(np.pad(listed, (0, size - len(listed)), constant_values=PADDING_ITEM))
    return Candidates(np.array(rows), np.array(levels), np.array(places), np.stack(lists))


def given_candidates(contexts: ContextSet) -> Candidates:
    """The lists that came with the contexts, in their order; one row per positive.

    A list loses the context's other positives, and repeated items after their first place.

    Raises:
        DataError: a context has no list, or its positive is not in it.
    """
    rows, levels, places, lists = [], [], [], []
    for row, context in enumerate(contexts):
        shown = context.candidates
        for level, item in zip(context.levels, context.positives, strict=True):
            if shown is None or item not in shown:
                raise DataError(
                    f"lists: the candidates of context {context.context_id} (user "
                    f"{context.user_id}) lack its right answer, item {item}."
                )
            others = context.positives[context.positives != item]
            _, first = np.unique(shown, return_index=True)
            listed = shown[np.sort(first)]
            listed = listed[~np.isin(listed, others)]
            rows.append(row)
            levels.append(int(level))
            places.append(int(np.flatnonzero(listed == item)[0]))
            lists.append(listed)
    size = max(map(len, lists))
    padded = [np.pad(x, (0, size - len(x)), constant_values=PADDING_ITEM) for x in lists]
    return Candidates(np.array(rows), np.array(levels), np.array(places), np.stack(padded))


def save_candidates(candidates: Candidates, path: Path) -> str:
    """Write the lists to Parquet; returns the file's SHA-256."""
    columns = {**vars(candidates), "item_ids": list(candidates.item_ids)}
    return write_table(pa.table(columns), path)


def load_candidates(path: Path) -> Candidates:
    """Lists that `save_candidates` wrote."""
    table = pq.read_table(path)
    return Candidates(
        row=table["row"].to_numpy(),
        level=table["level"].to_numpy(),
        place=table["place"].to_numpy(),
        item_ids=np.stack(table["item_ids"].to_pylist()),
    )
