"""Prepared Parquet → contexts: what a policy is asked, and what the person did next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

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
    """

    history: Ids
    positives: Ids
    levels: Ids
    context_id: int = 0
    user_id: int = -1
    timestamp: int | None = None
    candidates: Ids | None = None


@dataclass(frozen=True)
class Interactions:
    """Sorted interactions as arrays: rows of user u are `first_row[u]:first_row[u + 1]`."""

    items: Ids
    levels: Ids
    disliked: NDArray[np.bool_]
    timestamps: Ids | None
    users: Ids
    first_row: Ids
    split_starts: dict[str, Ids]

    @classmethod
    def from_table(cls, table: pa.Table, n_users: int) -> "Interactions":
        """Arrays from `interactions.parquet`."""
        users = table["user_id"].to_numpy()
        split = np.asarray(table["split"].to_pylist(), dtype=object)
        first_row = np.searchsorted(users, np.arange(n_users + 1))
        before_validation = np.bincount(users, split == "train", n_users).astype(np.int64)
        before_test = np.bincount(users, split != "test", n_users).astype(np.int64)
        starts = {
            "train": first_row[:-1],
            "validation": first_row[:-1] + before_validation,
            "test": first_row[:-1] + before_test,
            "end": first_row[1:],
        }
        clock = table["timestamp"].to_numpy() if "timestamp" in table.column_names else None
        return cls(
            items=table["item_id"].to_numpy(),
            levels=table["level"].to_numpy(),
            disliked=table["disliked"].to_numpy(zero_copy_only=False).astype(bool),
            timestamps=clock,
            users=users,
            first_row=first_row,
            split_starts=starts,
        )


class ContextSet(Sequence[Context]):
    """Contexts of one split, built on demand from the sorted interactions.

    A context begins at a target row; its history is all of the user's earlier rows, its positives
    are the liked rows from there on, up to `window` rows and within its split.
    """

    def __init__(
        self, interactions: Interactions, target_rows: Ids, ends: Ids, window: int
    ) -> None:
        self.interactions = interactions
        self.target_rows = target_rows
        self._ends = np.minimum(ends, target_rows + window)
        self._window = window

    def __len__(self) -> int:
        return len(self.target_rows)

    @overload
    def __getitem__(self, index: int) -> Context: ...
    @overload
    def __getitem__(self, index: slice) -> list[Context]: ...
    def __getitem__(self, index: int | slice) -> Context | list[Context]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, end = int(self.target_rows[index]), int(self._ends[index])
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
        )

    def __iter__(self) -> Iterator[Context]:
        return (self[i] for i in range(len(self)))

    def subset(self, indices: Ids) -> "ContextSet":
        """The contexts at some indices, in that order."""
        rows = self.target_rows[indices]
        return ContextSet(self.interactions, rows, self._ends[indices], self._window)


class Prepared:
    """A prepared folder, read once."""

    def __init__(self, folder: Path, window: int, min_history: int = 1) -> None:
        self.folder = Path(folder)
        self._window = window
        self._min_history = min_history
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
        """All interactions, sorted by user and position."""
        table = pq.read_table(self.folder / "interactions.parquet")
        return Interactions.from_table(table, self.users.num_rows)

    @cached_property
    def popularity(self) -> Ids:
        """(items,) how often each item was consumed in training."""
        log = self.interactions
        in_training = log.split_starts["validation"][log.users] > np.arange(len(log.items))
        return np.bincount(log.items[in_training], minlength=self.n_items)

    def contexts(self, split: str) -> ContextSet:
        """Contexts of "train", "validation" or "test" that have a history and a positive.

        Held-out splits give at most one context per user, beginning at the first liked item.
        Training gives one per liked item (window 1), or one per window that holds a liked item.
        """
        log, window = self.interactions, self._window
        following = {"train": "validation", "validation": "test", "test": "end"}[split]
        starts, ends = log.split_starts[split], log.split_starts[following]
        earliest = np.maximum(starts, log.first_row[:-1] + self._min_history)
        liked = np.concatenate([[0], np.cumsum(log.levels > 0)])
        if split == "train":
            rows = np.arange(len(log.items))
            begins, until = earliest[log.users], ends[log.users]
            on_grid = (rows >= begins) & (rows < until) & ((rows - begins) % window == 0)
            targets = rows[on_grid]
            until = np.minimum(until[on_grid], targets + window)
            targets = targets[liked[until] > liked[targets]]
        else:
            liked_rows = np.append(np.flatnonzero(log.levels > 0), len(log.items))
            first_liked = liked_rows[np.searchsorted(liked_rows, earliest)]
            targets = first_liked[(first_liked < ends)]
        if len(targets) == 0:
            raise DataError(
                f"the {split} split has no context with a history and a liked item. Give more "
                "interactions, a lower data.k_core or a lower threshold in data.levels."
            )
        return ContextSet(log, targets, ends[log.users[targets]], window)

    def imitation_contexts(self) -> ContextSet:
        """A context for every training interaction that has a history, liked or not."""
        log = self.interactions
        earliest = log.split_starts["train"] + self._min_history
        ends = log.split_starts["validation"]
        rows = np.arange(len(log.items))
        targets = rows[(rows >= earliest[log.users]) & (rows < ends[log.users])]
        return ContextSet(log, targets, ends[log.users[targets]], 1)

    @cached_property
    def training_histories(self) -> list[Ids]:
        """Each user's training items, oldest first; users with none are left out."""
        log = self.interactions
        bounds = zip(log.split_starts["train"], log.split_starts["validation"], strict=True)
        return [log.items[start:end] for start, end in bounds if end > start]

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
