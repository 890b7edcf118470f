"""What lists, splits and logs hold that a score should not rest on: a flag or share per row."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palate.audit.lists import Lists, among
from palate.audit.titles import plain
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
    """Titles in words and figures of lower case, as they are where they have none."""
    return [plain(title) or title for title in titles]


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


def history_negatives(lists: Lists) -> Flags:
    """(R,) whether a negative stands in the history of its row."""
    is_answer = lists.item_ids == lists.answers[:, None]
    return (among(lists.item_ids, lists.histories) & ~is_answer).any(axis=1)


def answers_in_history(lists: Lists) -> Flags:
    """(R,) whether the answer stands in the history of its row."""
    return among(lists.answers[:, None], lists.histories)[:, 0]


def shared_prompts(
    contexts: ContextSet, earlier_rows: Ids, titles: Sequence[str]
) -> tuple[Flags, NDArray[np.float64]] | None:
    """Whether what was said before a context and its answer stand in earlier rows, too.

    Texts and titles are compared by their words. Where one prompt serves for many, an answer that
    many give stands there by chance: so the second result is the share of all answers asked here
    that the earlier rows give after the same prompt.

    Args:
        contexts: those to judge; of several positives the first counts.
        earlier_rows: rows of the log that were answers in a split before.
        titles: title of each item.

    Returns:
        (contexts,) flags and (contexts,) shares by chance, or None where nothing is said.
    """
    log = contexts.interactions
    if not log.texts or log.turn_starts is None:
        return None
    names: dict[str, int] = {}
    said = {row: names.setdefault(plain(text), len(names)) for row, text in log.texts.items()}
    _, item_name = np.unique(plain_titles(titles), return_inverse=True)
    liked = earlier_rows[log.levels[earlier_rows] > 0]
    prompts = np.array([said[row] for row in log.turn_starts[liked].tolist()], np.int64)
    wide = int(item_name.max()) + 1
    earlier = np.unique(prompts * wide + item_name[log.items[liked]])
    asked = np.array([said[row] for row in contexts.begins.tolist()], np.int64)
    context, rows = contexts.positive_rows()
    answers = item_name[log.items[rows[np.searchsorted(context, np.arange(len(contexts)))]]]
    flags = np.isin(asked * wide + answers, earlier) & (asked != names.get("", -1))
    shares = np.bincount(answers, minlength=wide) / len(contexts)
    by_prompt = np.bincount(earlier // wide, shares[earlier % wide], minlength=len(names))
    return flags, by_prompt[asked] * (asked != names.get("", -1))


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
