"""Log-probabilities of (context, item) pairs on disk, safe under several processes."""

import json
import sqlite3
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Ids
from palate.errors import CheckpointError
from palate.files import write_json

MADE_OF, SCORES = "reference.json", "scores.sqlite"
ASKED_AT_ONCE = 500
"""Contexts in one query; SQLite allows at least 999 parameters."""
ATTEMPTS = 600
"""Times to ask for write-ahead mode, 0.05 s apart."""

Floats = NDArray[np.float32]
Row = tuple[NDArray[np.int32], Floats]
"""Items of a context, sorted, and their log-probabilities."""
NO_ROW: Row = np.empty(0, np.int32), np.empty(0, np.float32)


class ScoreStore:
    """A folder that keeps log-probabilities of one frozen policy, in float32.

    A SQLite table has a row per context: its item ids, sorted, as int32, and their numbers. Each
    `add` is one transaction, so a killed process loses at most the pairs it was about to write,
    and two processes that write the same pairs leave them once.

    Args:
        folder: made where there is none; must be on a disk of this machine, as SQLite's locks do
            not hold over a network.
        made_of: names what the numbers depend on → its hash or value; a folder of others is
            refused.
        max_pairs: pairs kept, at most; what comes later is not taken.
        differing: name of `made_of` → how a refusal calls another one, such as "other weights".

    Raises:
        CheckpointError: the folder holds numbers of something else, or cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        made_of: Mapping[str, str],
        max_pairs: int,
        differing: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.max_pairs = max_pairs
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"{folder} is a file; give a folder for the cached reference.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._explaining():
            self._database = sqlite3.connect(
                self.folder / SCORES, timeout=60, isolation_level=None, check_same_thread=False
            )
            weakref.finalize(self, self._database.close)
            self._share()
            self._database.execute("PRAGMA synchronous = NORMAL")
        with self._writing():
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS scores "
                "(context INTEGER PRIMARY KEY, items BLOB NOT NULL, log_probs BLOB NOT NULL)"
            )
            self._database.execute("CREATE TABLE IF NOT EXISTS size (pairs INTEGER NOT NULL)")
            self._database.execute(
                "INSERT INTO size SELECT 0 WHERE NOT EXISTS (SELECT * FROM size)"
            )
            self._claim(dict(made_of), differing or {})

    def __len__(self) -> int:
        """Pairs kept."""
        with self._explaining():
            return self._database.execute("SELECT pairs FROM size").fetchone()[0]

    def find(self, contexts: Ids, item_ids: Ids) -> tuple[Floats, NDArray[np.bool_]]:
        """The log-probabilities of some pairs, and which of them are known.

        Args:
            contexts: (B,) names of contexts, 64 bits.
            item_ids: (B, K) candidates; negative for none, which is never known.

        Returns:
            (B, K) numbers, 0 where not known; (B, K) whether they are.
        """
        numbers = np.zeros(item_ids.shape, np.float32)
        known = np.zeros(item_ids.shape, bool)
        rows = self._rows(contexts.tolist())
        for row, (context, wanted) in enumerate(zip(contexts.tolist(), item_ids, strict=True)):
            if context in rows:
                items, log_probs = rows[context]
                places = np.searchsorted(items, wanted).clip(max=len(items) - 1)
                known[row] = items[places] == wanted
                numbers[row] = np.where(known[row], log_probs[places], 0.0)
        return numbers, known

    def add(
        self, contexts: Ids, item_ids: Ids, log_probs: Floats, which: NDArray[np.bool_]
    ) -> bool:
        """Keep the log-probabilities of some pairs; those known already stay as they are.

        Args:
            contexts: (B,) names of contexts.
            item_ids, log_probs: (B, K).
            which: (B, K) the pairs to keep.

        Returns:
            Whether there was room for all of them.
        """
        took_all = True
        with self._writing():
            pairs = len(self)
            rows = self._rows(contexts.tolist())
            changed: set[int] = set()
            for row, context in enumerate(contexts.tolist()):
                items, numbers = rows.get(context, NO_ROW)
                ids, first = np.unique(item_ids[row][which[row]], return_index=True)
                is_new = ~np.isin(ids, items)
                room = max(0, self.max_pairs - pairs)
                took_all &= bool(is_new.sum() <= room)
                ids, first = ids[is_new][:room], first[is_new][:room]
                if len(ids) == 0:
                    continue
                pairs += len(ids)
                items = np.append(items, ids).astype(np.int32)
                numbers = np.append(numbers, log_probs[row][which[row]][first]).astype(np.float32)
                order = np.argsort(items)
                rows[context] = items[order], numbers[order]
                changed.add(context)
            self._database.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?)",
                [(key, *(column.tobytes() for column in rows[key])) for key in sorted(changed)],
            )
            self._database.execute("UPDATE size SET pairs = ?", (pairs,))
        return took_all

    def _share(self) -> None:
        """Write-ahead mode, in which readers and a writer do not wait for each other.

        Of processes that switch a new file to it at once, SQLite turns all but one away without
        waiting.
        """
        for attempt in count():
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if attempt >= ATTEMPTS:
                    raise
                time.sleep(0.05)
            else:
                return

    def _rows(self, contexts: Sequence[int]) -> dict[int, Row]:
        found: dict[int, Row] = {}
        names = sorted(set(contexts))
        for start in range(0, len(names), ASKED_AT_ONCE):
            some = names[start : start + ASKED_AT_ONCE]
            query = f"SELECT * FROM scores WHERE context IN ({','.join('?' * len(some))})"
            with self._explaining():
                rows = self._database.execute(query, some).fetchall()
            for context, items, numbers in rows:
                found[context] = np.frombuffer(items, np.int32), np.frombuffer(numbers, np.float32)
        return found

    def _claim(self, made_of: dict[str, str], differing: Mapping[str, str]) -> None:
        """Write what the numbers are made of, or compare it; under the database's lock."""
        path = self.folder / MADE_OF
        if not path.is_file() and len(self) == 0:
            write_json(made_of, path)
        try:
            before = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.folder} does not say what its log-probabilities were computed with "
                f"({MADE_OF}: {error}). Remove it with: rm -r {self.folder}; it fills itself again."
            ) from error
        names = sorted(n for n in {*before, *made_of} if before.get(n) != made_of.get(n))
        if names:
            what = " and ".join(differing.get(name, f"another {name}") for name in names)
            raise CheckpointError(
                f"{self.folder} holds reference log-probabilities computed with {what}; give a "
                "folder of this run's own with --set align.reference_cache=PATH, or remove this "
                f"one with: rm -r {self.folder}."
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; other writers wait for its end, readers do not."""
        with self._explaining():
            self._database.execute("BEGIN IMMEDIATE")
        try:
            with self._explaining():
                yield
        except BaseException:  # an interrupt too: take back what was begun, then let it rise
            self._database.rollback()
            raise
        with self._explaining():
            self._database.execute("COMMIT")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CheckpointError(
                f"{self.folder / SCORES} cannot be used ({error}). Where it is damaged, remove it "
                f"with: rm -r {self.folder}; it fills itself again. It must be on a disk of this "
                "machine with room left."
            ) from error
