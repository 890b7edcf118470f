"""Candidate lists for the `candidates` protocol, drawn once and kept in a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.contexts import ContextSet, Ids
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

    def lines_of(self, first: int, last: int) -> slice:
        """The lists of the contexts first … last − 1."""
        start, stop = np.searchsorted(self.row, [first, last])
        return slice(int(start), int(stop))


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
