"""Prepared Parquet → contexts: what a policy is asked, and what the person did next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate.data.tables import SPLITS
from palate.errors import CheckpointError, DataError
from palate.randomness import permutation

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


class Prepared:
    """A prepared folder, read once.

    Args:
        folder: what `prepare` wrote.
        window: a context's positives are the items liked within this many interactions; not read
            where the log has turns.
        min_history: interactions that must come before a context; dialogues need none.
    """

    def __init__(self, folder: Path, window: int, min_history: int = 1) -> None:
        self.folder = Path(folder)
        self._window = window
        self.has_texts = (self.folder / "texts.parquet").is_file()
        self._min_history = 0 if self.has_texts else min_history
        if not (self.folder / "interactions.parquet").is_file():
            raise CheckpointError(
                f"{folder} holds no prepared data (no interactions.parquet). Prepare it first."
            )

    @cached_property
    def items(self) -> pa.Table:
        """The catalogue; row i is item i."""
        return pq.read_table(self.folder / "items.parquet")

    @cached_property
    def users(self) -> pa.Table:
        """User ids and the ids they had in the source."""
        return pq.read_table(self.folder / "users.parquet")

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.items.num_rows

    @cached_property
    def interactions(self) -> Interactions:
        """All interactions, sorted by user and position, with their lists and texts."""
        table = pq.read_table(self.folder / "interactions.parquet")
        log = Interactions.from_table(table, self.users.num_rows)
        if self.has_texts and log.turn_starts is not None:
            said = pq.read_table(self.folder / "texts.parquet").to_pydict()
            turns = zip(said["user_id"], said["turn"], strict=True)
            texts = dict(zip(turns, said["text"], strict=True))
            keys = zip(log.users.tolist(), table["turn"].to_pylist(), strict=True)
            starts = log.turn_starts.tolist()
            by_row = {row: texts.get(key, "") for row, key in zip(starts, keys, strict=True)}
            log = replace(log, texts=by_row)
        return replace(log, lists=self.lists)

    @cached_property
    def lists(self) -> list[Ids] | None:
        """For each user the candidates that the source shows in their context, or None."""
        path = self.folder / "lists.parquet"
        if not path.is_file():
            return None
        table = pq.read_table(path)
        users, items = table["user_id"].to_numpy(), table["item_id"].to_numpy()
        order = np.argsort(users, kind="stable")
        first = np.searchsorted(users[order], np.arange(1, self.users.num_rows))
        return np.split(items[order], first)

    @cached_property
    def popularity(self) -> Ids:
        """(items,) how often each item was consumed in training."""
        log = self.interactions
        rows = np.arange(len(log.items))
        since, until = log.split_starts["train"], log.split_starts["validation"]
        in_training = (since[log.users] <= rows) & (rows < until[log.users])
        return np.bincount(log.items[in_training], minlength=self.n_items)

    def contexts(self, split: str) -> ContextSet:
        """Contexts of "train", "validation" or "test" that have a history and a positive.

        Held-out splits give at most one context per user, beginning at the first liked item.
        Training gives one per liked item (window 1), or one per window that holds a liked item.
        A log with turns gives one per turn with a liked item in every split.
        """
        log, window = self.interactions, self._window
        following = {"train": "validation", "validation": "test", "test": "end"}[split]
        starts, ends = log.split_starts[split], log.split_starts[following]
        earliest = np.maximum(starts, log.first_row[:-1] + self._min_history)
        liked = np.concatenate([[0], np.cumsum(log.levels > 0)])
        rows = np.arange(len(log.items))
        begins, until = earliest[log.users], ends[log.users]
        in_split = (rows >= begins) & (rows < until)
        if log.turn_starts is not None:
            targets = rows[in_split & (log.turn_starts == rows)]
            turns = np.append(np.unique(log.turn_starts), len(rows))
            until = turns[np.searchsorted(turns, targets, side="right")]
        elif split == "train":
            targets = rows[in_split & ((rows - begins) % window == 0)]
            until = np.minimum(until[targets], targets + window)
        else:
            liked_rows = np.append(np.flatnonzero(log.levels > 0), len(rows))
            first_liked = liked_rows[np.searchsorted(liked_rows, earliest)]
            targets = first_liked[first_liked < ends]
            until = np.minimum(until[targets], targets + window)
        has_liked = liked[until] > liked[targets]
        if not has_liked.any():
            raise DataError(
                f"the {split} split has no context with a history and a liked item. Give more "
                "interactions, a lower data.k_core or a lower threshold in data.levels; a source "
                "with a split of its own must give all three splits, or set data.split=by_user."
            )
        return ContextSet(log, targets[has_liked], until[has_liked])

    def imitation_contexts(self) -> tuple[ContextSet, Ids]:
        """A context for every training interaction that has a history, liked or not; its item."""
        log = self.interactions
        earliest = np.maximum(log.split_starts["train"], log.first_row[:-1] + self._min_history)
        rows = np.arange(len(log.items))
        ends = log.split_starts["validation"]
        targets = rows[(rows >= earliest[log.users]) & (rows < ends[log.users])]
        begins = targets if log.turn_starts is None else log.turn_starts[targets]
        return ContextSet(log, begins, targets + 1), log.items[targets]

    @cached_property
    def training_histories(self) -> list[History]:
        """Each user's items up to the end of training; users with none to learn are left out."""
        log = self.interactions
        bounds = zip(
            log.first_row, log.split_starts["train"], log.split_starts["validation"], strict=False
        )
        return [
            History(
                log.items[start:end],
                int(first - start),
                None if log.times is None else log.times[start:end],
            )
            for start, first, end in bounds
            if end > first
        ]

    @cached_property
    def observed_negatives(self) -> list[Ids]:
        """For each user, the items disliked, or shown and never consumed, before validation."""
        log = self.interactions
        starts, ends = log.split_starts["train"], log.split_starts["validation"]
        found = [
            log.items[start:end][log.disliked[start:end]]
            for start, end in zip(starts, ends, strict=True)
        ]
        shown = self.folder / "shown.parquet"
        if shown.is_file() and log.timestamps is not None:
            table = pq.read_table(shown)
            users, items = table["user_id"].to_numpy(), table["item_id"].to_numpy()
            last = np.where(ends > starts, log.timestamps[np.maximum(ends - 1, 0)], -1)
            known = table["timestamp"].to_numpy() <= last[users]
            bounds = np.searchsorted(users[known], np.arange(len(found) + 1))
            skipped = items[known]
            found = [
                np.union1d(
                    disliked,
                    np.setdiff1d(
                        skipped[bounds[user] : bounds[user + 1]],
                        log.items[starts[user] : ends[user]],
                    ),
                )
                for user, disliked in enumerate(found)
            ]
        return found

    def titles(self) -> list[str]:
        """Title of each item, in item order."""
        return [str(title) for title in self.items["title"].to_pylist()]

    def truth_ids(self) -> tuple[Ids, Ids]:
        """(users,), (items,): the ids in the source of each dense id, where those are integers."""
        return self.users["source_id"].to_numpy(), self.items["source_id"].to_numpy()


def sample_contexts(contexts: ContextSet, size: int | None, *keys: Any) -> ContextSet:
    """A seeded sample of contexts in their order, or all of them if `size` is None or larger."""
    if size is None or size >= len(contexts):
        return contexts
    return contexts.subset(np.sort(permutation(len(contexts), *keys)[:size]))
