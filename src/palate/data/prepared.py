"""A folder of prepared data, read once: its catalogue, its log, the contexts of its splits."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.contexts import ContextSet, History, Ids, Interactions
from palate.data.splits import HELD_OUT
from palate.errors import CheckpointError, DataError
from palate.randomness import permutation


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
        self._held_out_together = HELD_OUT.items() <= (table.schema.metadata or {}).items()
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

        Held-out splits give at most one context per user, beginning at the first liked item; where
        liked items were held out at random, all of them are its positives.
        Training gives one per liked item (window 1), or one per window that holds a liked item.
        A log with turns gives one per turn with a liked item in every split.
        """
        log, window = self.interactions, self._window
        following = {"train": "validation", "validation": "test", "test": "end"}[split]
        starts, ends = log.split_starts[split], log.split_starts[following]
        earliest = np.minimum(np.maximum(starts, log.first_row[:-1] + self._min_history), ends)
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
            until = until[targets]
            if not self._held_out_together:
                until = np.minimum(until, targets + window)
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
