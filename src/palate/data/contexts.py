"""Prepared Parquet → contexts: what a policy is asked, and what the person did next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.tables import SPLITS

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Context:
    """One moment of one user.

    Attributes:
        history: item ids consumed before the moment, oldest first.
        positives: item ids liked in the window that begins at the moment; may be empty when the
            context is only to be ranked.
        levels: preference level (≥ 1) of each positive.
        context_id: names the moment in random draws and in `ranks.parquet`.
        user_id: whose moment it is.
        timestamp: Unix seconds of the first thing held out, or None without a clock.
        candidates: item ids that a prompt with a candidate list shows, in their order.
        text: what was said before the moment, where the log is one of dialogues.
        times: Unix seconds of each item of the history, or seconds since the user's first where
            no date is known; None without a clock.
        first_read: place in the history from which on a policy reads it, where one pass reads
            several moments of a history; None for the policy's own choice.
    """

    history: Ids
    positives: Ids
    levels: Ids
    context_id: int = 0
    user_id: int = -1
    timestamp: int | None = None
    candidates: Ids | None = None
    text: str | None = None
    first_read: int | None = None
    times: Ids | None = None


class History(NamedTuple):
    """What one user did, oldest first, of which the items from `first_target` on are learnt.

    Attributes:
        items: item ids.
        first_target: place of the first one to learn.
        times: seconds of each item, as in a `Context`; None without a clock.
    """

    items: Ids
    first_target: int
    times: Ids | None = None


@dataclass(frozen=True)
class Interactions:
    """Sorted interactions as arrays: rows of user u are `first_row[u]:first_row[u + 1]`.

    Attributes:
        items, levels, disliked, timestamps, users: (rows,) columns of `interactions.parquet`.
        times: (rows,) seconds from which intervals are read: the timestamps, or where no date is
            known what had elapsed since the user's first interaction; None without a clock.
        turn_starts: (rows,) first row of each row's turn; None for a log without turns.
        first_row: (users + 1,).
        split_starts: split → (users,) first row of it; "end" is the row after the last.
        lists: candidates shown in each user's context, none of them for some, or None.
        texts: first row of a turn → what was said before it.
    """

    items: Ids
    levels: Ids
    disliked: NDArray[np.bool_]
    timestamps: Ids | None
    users: Ids
    first_row: Ids
    split_starts: dict[str, Ids]
    turn_starts: Ids | None = None
    lists: list[Ids] | None = None
    texts: Mapping[int, str] = field(default_factory=dict)
    times: Ids | None = None

    @classmethod
    def from_table(cls, table: pa.Table, n_users: int) -> "Interactions":
        """Arrays from `interactions.parquet`."""
        users = table["user_id"].to_numpy()
        split = np.asarray(table["split"].to_pylist(), dtype=object)
        first_row = np.searchsorted(users, np.arange(n_users + 1))
        earlier, starts = first_row[:-1], {}
        for name, following in pairwise([*SPLITS, "end"]):
            starts[name] = earlier
            earlier = earlier + np.bincount(users, split == name, n_users).astype(np.int64)
            starts[following] = earlier
        clock = table["timestamp"].to_numpy() if "timestamp" in table.column_names else None
        turn_starts = None
        if "turn" in table.column_names:
            turns = table["turn"].to_numpy()
            is_first = np.append(True, (users[1:] != users[:-1]) | (turns[1:] != turns[:-1]))
            turn_starts = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
        return cls(
            items=table["item_id"].to_numpy(),
            levels=table["level"].to_numpy(),
            disliked=table["disliked"].to_numpy(zero_copy_only=False).astype(bool),
            timestamps=clock,
            users=users,
            first_row=first_row,
            split_starts=starts,
            turn_starts=turn_starts,
            times=table["elapsed"].to_numpy() if "elapsed" in table.column_names else clock,
        )


class ContextSet(Sequence[Context]):
    """Contexts of one split, built on demand from the sorted interactions.

    A context begins at a row; its history is all of the user's earlier rows, its positives are the
    liked rows from there on, up to its end.

    Args:
        interactions: the log.
        begins, ends: (contexts,) rows.
    """

    def __init__(self, interactions: Interactions, begins: Ids, ends: Ids) -> None:
        self.interactions = interactions
        self.begins = begins
        self.ends = ends

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def users(self) -> Ids:
        """(contexts,) whose each is."""
        return self.interactions.users[self.begins]

    @property
    def history_lengths(self) -> Ids:
        """(contexts,) items before each."""
        return self.begins - self.interactions.first_row[self.users]

    def positive_rows(self) -> tuple[Ids, Ids]:
        """(P,) the context of each positive, in order, and the row of the log where it stands."""
        lengths = self.ends - self.begins
        context = np.repeat(np.arange(len(self)), lengths)
        first = np.cumsum(lengths) - lengths
        rows = np.arange(len(context)) + (self.begins - first)[context]
        liked = self.interactions.levels[rows] > 0
        return context[liked], rows[liked]

    @overload
    def __getitem__(self, index: int) -> Context: ...
    @overload
    def __getitem__(self, index: slice) -> list[Context]: ...
    def __getitem__(self, index: int | slice) -> Context | list[Context]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, end = int(self.begins[index]), int(self.ends[index])
        log = self.interactions
        user = int(log.users[row])
        levels = log.levels[row:end]
        liked = levels > 0
        return Context(
            history=log.items[log.first_row[user] : row],
            positives=log.items[row:end][liked],
            levels=levels[liked],
            context_id=row,
            user_id=user,
            timestamp=None if log.timestamps is None else int(log.timestamps[row]),
            candidates=log.lists[user] if log.lists and len(log.lists[user]) else None,
            text=log.texts.get(row),
            times=None if log.times is None else log.times[log.first_row[user] : row],
        )

    def __iter__(self) -> Iterator[Context]:
        return (self[i] for i in range(len(self)))

    def subset(self, indices: Ids) -> "ContextSet":
        """The contexts at some indices, in that order."""
        return ContextSet(self.interactions, self.begins[indices], self.ends[indices])
