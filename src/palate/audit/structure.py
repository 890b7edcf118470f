"""What lists, splits and logs hold that a score should not rest on: a flag or share per row."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palate.audit.lists import Lists, among
from palate.data.contexts import ContextSet, Ids, Interactions
from palate.policies.policy import PADDING_ITEM
from palate.randomness import random_bits

Flags = NDArray[np.bool_]
Names = NDArray[np.uint64]
WINDOW = 10
"""Items of a history that are compared; all of a shorter one."""
LEAST_WINDOW = 3
"""Items below which an equal history says nothing."""


def plain_titles(titles: Sequence[str]) -> list[str]:
    """Titles as a careless reader sees them: words and figures in lower case."""
    return [" ".join(re.findall(r"\w+", title.casefold())) or title for title in titles]


def duplicate_titles(titles: Sequence[str]) -> Flags:
    """(items,) whether another item has the same plain title."""
    _, group, counts = np.unique(plain_titles(titles), return_inverse=True, return_counts=True)
    return counts[group] > 1


def nested_titles(lists: Lists, titles: Sequence[str]) -> Flags:
    """(R,) whether the answer's title contains a negative's, or stands in one."""
    padded = [f" {title} " for title in plain_titles(titles)]
    flags = np.zeros(len(lists), bool)
    for row, (items, answer) in enumerate(zip(lists.item_ids, lists.answers, strict=True)):
        own = padded[answer]
        others = [padded[item] for item in items if item not in (answer, PADDING_ITEM)]
        flags[row] = any(own in other or other in own for other in others)
    return flags


def liked_negatives(lists: Lists) -> Flags:
    """(R,) whether a negative is something the same person likes at another time."""
    is_answer = lists.item_ids == lists.answers[:, None]
    liked = among(lists.item_ids, lists.known) & ~among(lists.item_ids, lists.histories)
    return (liked & ~is_answer).any(axis=1)


def shared_windows(contexts: ContextSet, earlier_rows: Ids) -> Flags:
    """(contexts,) whether another user's earlier row has the same history and the same answer.

    Compared are the last `WINDOW` items of the history, all of a shorter one, and the answer.

    Args:
        contexts: those to judge.
        earlier_rows: rows of the log that were answers in a split before.
    """
    return _shared(contexts, earlier_rows, contexts.begins)


def shared_histories(contexts: ContextSet, earlier_rows: Ids) -> Flags:
    """(contexts,) whether the history of one stands, as it is, in another user's earlier rows.

    Only for users without earlier rows of their own.
    """
    owners = np.unique(contexts.interactions.users[earlier_rows])
    flags = _shared(contexts, earlier_rows, contexts.begins - 1)
    return flags & ~np.isin(contexts.users, owners)


def _shared(contexts: ContextSet, earlier_rows: Ids, rows: Ids) -> Flags:
    """Whether what ends at each row ends at another user's earlier row, too."""
    log = contexts.interactions
    code = random_bits("window", np.arange(int(log.items.max()) + 1))[log.items]
    before = np.arange(len(log.items)) - log.first_row[log.users]
    in_history = contexts.begins - log.first_row[contexts.users]
    lengths = np.minimum(in_history, WINDOW) + (rows - contexts.begins)
    flags = np.zeros(len(rows), bool)
    name = code.copy()
    for length in range(1, WINDOW + 1):  # the row itself and as many before it
        shifted = np.zeros_like(code)
        shifted[length:] = code[:-length]
        with np.errstate(over="ignore"):
            name = name * np.uint64(0x9E3779B97F4A7C15) + shifted
        asked = np.flatnonzero((lengths == length) & (in_history >= LEAST_WINDOW))
        whole = earlier_rows[before[earlier_rows] >= length]
        flags[asked] = _of_another(
            name[rows[asked]], contexts.users[asked], name[whole], whole, log
        )
    return flags


def _of_another(names: Names, users: Ids, known: Names, rows: Ids, log: Interactions) -> Flags:
    """(names,) whether a name is among the known ones in a row of another user than its own."""
    if not len(known):
        return np.zeros(len(names), bool)
    distinct, which = np.unique(known, return_inverse=True)
    owners = log.users[rows]
    first, last = np.full(len(distinct), log.users.max()), np.zeros(len(distinct), np.int64)
    np.minimum.at(first, which, owners)
    np.maximum.at(last, which, owners)
    place = np.minimum(np.searchsorted(distinct, names), len(distinct) - 1)
    others = (first[place] != users) | (last[place] != users)
    return (distinct[place] == names) & others


def later_training(contexts: ContextSet, training_rows: Ids) -> NDArray[np.float64] | None:
    """(contexts,) share of the training interactions that came after each; None without a clock."""
    times = contexts.interactions.timestamps
    if times is None or not len(training_rows):
        return None
    ordered = np.sort(times[training_rows])
    before = np.searchsorted(ordered, times[contexts.begins], side="right")
    return 1.0 - before / len(ordered)


def tied(log: Interactions) -> Flags | None:
    """(interactions,) whether the same user has another at the same second."""
    if log.timestamps is None:
        return None
    same = (log.users[1:] == log.users[:-1]) & (log.timestamps[1:] == log.timestamps[:-1])
    return np.append(same, False) | np.append(False, same)


def degenerate_users(log: Interactions) -> Flags:
    """(users,) whether all a user did, twice or more, is one item, or happened in one second."""
    counts = np.diff(log.first_row)
    first = log.first_row[:-1][log.users]

    def never_changes(values: Ids) -> Flags:
        changed = np.bincount(log.users, values != values[first], minlength=len(counts))
        return (changed == 0) & (counts > 1)

    flags = never_changes(log.items)
    return flags if log.timestamps is None else flags | never_changes(log.timestamps)
