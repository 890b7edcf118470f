"""Candidate lists as the probes see them, and the same lists drawn anew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from palate.audit.copies import alike_persons, alike_users
from palate.audit.titles import plain
from palate.data.contexts import Context, ContextSet, Ids
from palate.evaluation.candidates import Candidates
from palate.policies.policy import PADDING_ITEM
from palate.randomness import integers, permutation, random_bits


@dataclass(frozen=True)
class Lists:
    """One candidate list per row, one answer in each.

    Attributes:
        item_ids: (R, K) the lists in their order; −1 where one is shorter.
        place: (R,) where the answer stands.
        persons: (R,) who is behind each row; rows of one person are resampled together.
        histories: for each row the items consumed before, oldest first.
        positives: for each row the right answers of its context.
        known: for each row what its person is known to like at any time.
        times: (R,) Unix seconds of each row, or None without a clock.
        copies: (R,) the persons, those who did the same in the same order as one; None: persons.
        texts: the plain words before each answer, a space around; None where nothing was said.
    """

    item_ids: Ids
    place: Ids
    persons: Ids
    histories: Sequence[Ids]
    positives: Sequence[Ids]
    known: Sequence[Ids]
    times: Ids | None
    copies: Ids | None = None
    texts: list[str] | None = None

    def __len__(self) -> int:
        return len(self.place)

    @property
    def answers(self) -> Ids:
        """(R,) the item that is right."""
        return self.item_ids[np.arange(len(self)), self.place]

    @property
    def clusters(self) -> Ids:
        """(R,) who is behind each row, copies as one."""
        return self.persons if self.copies is None else self.copies

    @property
    def filled(self) -> NDArray[np.bool_]:
        """(R, K) which places hold an item."""
        return self.item_ids != PADDING_ITEM

    def subset(self, rows: Ids | NDArray[np.bool_]) -> "Lists":
        """Some rows, in their order."""
        kept = np.arange(len(self))[rows].tolist()
        return Lists(
            item_ids=self.item_ids[kept],
            place=self.place[kept],
            persons=self.persons[kept],
            histories=[self.histories[row] for row in kept],
            positives=[self.positives[row] for row in kept],
            known=[self.known[row] for row in kept],
            times=None if self.times is None else self.times[kept],
            copies=None if self.copies is None else self.copies[kept],
            texts=None if self.texts is None else [self.texts[row] for row in kept],
        )

    def sample(self, size: int, *keys: int | str) -> "Lists":
        """A seeded sample of rows in their order, or all of them."""
        if len(self) <= size:
            return self
        return self.subset(np.sort(permutation(len(self), *keys)[:size]))


def lists_of(contexts: ContextSet, candidates: Candidates) -> Lists:
    """Candidate lists with what is known of their contexts.

    Args:
        contexts: the contexts that `candidates.row` counts.
        candidates: one list per positive.
    """
    every = list(contexts)
    persons = persons_of(every)
    log = contexts.interactions
    liked: dict[int, list[Ids]] = {}
    for person, context in zip(persons, every, strict=True):
        own = slice(log.first_row[context.user_id], log.first_row[context.user_id + 1])
        liked.setdefault(person, []).append(log.items[own][log.levels[own] > 0])
    known = {person: np.unique(np.concatenate(items)) for person, items in liked.items()}
    alike = alike_persons(persons, contexts.users, alike_users(log))
    rows = candidates.row.tolist()
    texts = [f" {plain(every[row].text or '')} " for row in rows] if log.texts else None
    times = None if log.timestamps is None else log.timestamps[contexts.begins][candidates.row]
    return Lists(
        item_ids=candidates.item_ids,
        place=candidates.place,
        persons=np.array([persons[row] for row in rows], np.int64),
        histories=[every[row].history for row in rows],
        positives=[every[row].positives for row in rows],
        known=[known[persons[row]] for row in rows],
        times=times,
        copies=np.array([alike[persons[row]] for row in rows], np.int64),
        texts=texts,
    )


def persons_of(contexts: Sequence[Context]) -> list[int]:
    """Who is behind each context: its user, or the one before where a window slides on.

    Published windows do not say whose they are. A window whose history is the one before it, less
    its beginning, plus its answer is of the same person.
    """
    persons: list[int] = []
    before: Context | None = None
    for context in contexts:
        goes_on = before is not None and _slides(before, context)
        persons.append(persons[-1] if goes_on else context.user_id)
        before = context
    return persons


def _slides(before: Context, after: Context) -> bool:
    length = len(after.history) - 1
    return (
        before.user_id != after.user_id
        and 1 <= length <= len(before.history)
        and after.history[-1] in before.positives
        and np.array_equal(after.history[:-1], before.history[len(before.history) - length :])
    )


def redrawn(lists: Lists, n_items: int, *keys: int | str, bars_known: bool = False) -> Lists:
    """The same contexts and answers, with other negatives, in a random order; see `redraws`."""
    return redraws(lists, n_items, [keys], bars_known)[0]


def redraws(
    lists: Lists, n_items: int, names: Sequence[Sequence[int | str]], bars_known: bool = False
) -> list[Lists]:
    """The same contexts and answers several times, with other negatives, in a random order.

    Negatives are uniform over the catalogue outside the history and the context's positives,
    without repetition; they and the order are functions of (keys, row), never of the answer.

    Args:
        lists: what to draw anew; lengths stay as they are where the catalogue is large enough.
        n_items: items in the catalogue.
        names: the keys of each draw.
        bars_known: whether to keep out what the person is known to like at another time, too.
    """
    kept_out = [lists.histories, lists.positives, lists.answers[:, None]]
    kept_out += [lists.known] if bars_known else []
    barred = np.unique(np.concatenate([_keys(sets, n_items) for sets in kept_out]))
    return [_drawn(lists, n_items, keys, barred) for keys in names]


def _drawn(lists: Lists, n_items: int, keys: Sequence[int | str], barred: Ids) -> Lists:
    """One draw; `barred` holds row · n_items + item in ascending order."""
    size = lists.item_ids.shape[1]
    rows = np.arange(len(lists))[:, None]
    drawn = integers(n_items, *keys, rows, np.arange(2 * size + 8))
    free = ~np.isin(rows * n_items + drawn, barred) & _first_places(drawn)
    wanted = lists.filled.sum(axis=1) - 1
    first = np.argsort(~free, axis=1, kind="stable")[:, : size - 1]
    negatives = np.take_along_axis(drawn, first, axis=1)
    for row in np.flatnonzero(free.sum(axis=1) < wanted):  # little is left: draw without rejection
        begin, end = np.searchsorted(barred, [row * n_items, (row + 1) * n_items])
        left = np.setdiff1d(np.arange(n_items), barred[begin:end] - row * n_items)
        left = left[permutation(len(left), *keys, "few left", int(row))][: size - 1]
        negatives[row] = PADDING_ITEM
        negatives[row, : len(left)] = left
    negatives[np.arange(size - 1) >= wanted[:, None]] = PADDING_ITEM
    listed = np.concatenate([lists.answers[:, None], negatives], axis=1)
    draws = random_bits(*keys, "order", rows, np.arange(size)) >> np.uint64(1)
    order = np.argsort(np.where(listed == PADDING_ITEM, ~np.uint64(0), draws), axis=1)
    return replace(
        lists,
        item_ids=np.take_along_axis(listed, order, axis=1),
        place=(order == 0).argmax(axis=1),
    )


def among(item_ids: Ids, sets: Sequence[Ids]) -> NDArray[np.bool_]:
    """(R, K) whether each item of a row is in that row's set; padding never is."""
    most = max(item_ids.max(initial=0), max((one.max(initial=0) for one in sets), default=0))
    n_items = int(most) + 2  # so that padding, −1, is the key of no item
    asked = np.arange(len(item_ids))[:, None] * n_items + item_ids
    return np.isin(asked, _keys(sets, n_items))


def _keys(sets: Sequence[Ids], n_items: int) -> Ids:
    """row · n_items + item of every item of each row's set."""
    rows = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    return rows * n_items + np.concatenate([np.zeros(0, np.int64), *sets])


def _first_places(drawn: Ids) -> NDArray[np.bool_]:
    """(R, N) whether a number has not stood in its row before."""
    order = np.argsort(drawn, axis=1, kind="stable")
    ordered = np.take_along_axis(drawn, order, axis=1)
    is_new = np.ones(drawn.shape, bool)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(is_new)
    np.put_along_axis(first, order, is_new, axis=1)
    return first
