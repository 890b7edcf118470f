"""Rules that choose a candidate without a model: what a list gives away by itself.

Each rule reads lists whose answers it may know (`fit`) and scores the candidates of others:
(fit, scored, known) → (R, K). The candidate with the highest score is chosen; among several, each
with the same chance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.audit.lists import Lists, among
from palate.audit.titles import Titles
from palate.data.contexts import Ids, Interactions

Scores = NDArray[np.float64]
LAST_LISTS = 10
"""Lists of an item as the answer, newest first, that the overlap rule compares."""
PAIRS = 1 << 14
"""Pairs of lists that are compared at a time."""
MOST_FLAGS = 1 << 26
"""Flags (list, item) that are held at a time: 64 MB."""


@dataclass(frozen=True)
class Known:
    """What a rule may know beyond the lists.

    Attributes:
        n_items: items in the catalogue.
        popularity: (items,) how often each was consumed in training; None without training data.
        first_seen: (items,) Unix seconds when each was first consumed; None without a clock.
        titles: the titles of the catalogue; None where they are not known.
        log: who consumed what; None where only lists are known.
    """

    n_items: int
    popularity: Ids | None = None
    first_seen: Ids | None = None
    titles: Titles | None = None
    log: Interactions | None = None


Rule = Callable[[Lists, Lists, Known], Scores]


def hits(scores: Scores, lists: Lists) -> Scores:
    """(R,) chance that the answer is chosen: HR@1 of a rule, ties shared."""
    masked = np.where(lists.filled, scores, -np.inf)
    best = masked == masked.max(axis=1, keepdims=True)
    return best[np.arange(len(lists)), lists.place] / best.sum(axis=1)


def pairs_won(scores: Scores, lists: Lists) -> float:
    """Share of the negatives that score below their answer, ties half; each list counts alike."""
    rows = np.arange(len(lists))
    own = scores[rows, lists.place][:, None]
    lost = np.where(lists.filled, (own > scores) + 0.5 * (own == scores), 0.0)
    lost[rows, lists.place] = 0.0
    return float(np.mean(lost.sum(axis=1) / np.maximum(lists.filled.sum(axis=1) - 1, 1)))


def position(fit: Lists, scored: Lists, known: Known) -> Scores:
    """The index at which answers stand most often."""
    counts = np.bincount(fit.place, minlength=scored.item_ids.shape[1])
    return np.broadcast_to(counts[: scored.item_ids.shape[1]], scored.item_ids.shape).astype(float)


def position_of_answer(fit: Lists, scored: Lists, known: Known) -> Scores:
    """A candidate at the index where it last stood as an answer."""
    last = np.full(known.n_items, -1)
    last[fit.answers] = fit.place
    return (last[scored.item_ids] == np.arange(scored.item_ids.shape[1])).astype(float)


def popularity(fit: Lists, scored: Lists, known: Known) -> Scores:
    """The place in popularity that answers hold most often within their lists.

    Popularity is that of training, or without training data of the other persons in `fit`.
    """
    if known.popularity is not None:
        in_fit, in_scored = known.popularity[fit.item_ids], known.popularity[scored.item_ids]
    else:
        consumed = [*fit.answers[:, None], *fit.histories]
        counts = np.bincount(np.concatenate(consumed), minlength=known.n_items)
        in_fit = counts[fit.item_ids] - _own_counts(fit, known.n_items)
        in_scored = counts[scored.item_ids]
    rate = answer_rates(_descending_ranks(in_fit, fit), fit, fit.item_ids.shape[1])
    ranks = _descending_ranks(in_scored, scored)
    return rate[np.minimum(ranks, len(rate) - 1)]


def seen_as_answer(fit: Lists, scored: Lists, known: Known) -> Scores:
    """The candidate that was right in the largest part of the lists it stood in."""
    return answer_rates(fit.item_ids, fit, known.n_items)[scored.item_ids]


def list_overlap(fit: Lists, scored: Lists, known: Known) -> Scores:
    """The candidate under which a list looks most like one in which that candidate was right."""
    order = np.argsort(fit.answers, kind="stable")
    answers = fit.answers[order]
    first = np.searchsorted(answers, scored.item_ids)
    last = np.searchsorted(answers, scored.item_ids, side="right")
    newest = np.minimum(last - first, LAST_LISTS)
    is_pair = newest[:, :, None] > np.arange(LAST_LISTS)
    rows, columns, back = np.nonzero(is_pair & scored.filled[:, :, None])
    lists = order[last[rows, columns] - 1 - back]
    scores = np.zeros(scored.item_ids.shape)
    np.maximum.at(scores, (rows, columns), _shared_items(scored.item_ids, rows, fit, lists, known))
    return scores


def history(fit: Lists, scored: Lists, known: Known) -> Scores:
    """A candidate from the history, or one from outside it, whichever answers are more often."""
    rate = answer_rates(_in_history(fit, known), fit, 2)
    return rate[_in_history(scored, known)]


def consumed_before(fit: Lists, scored: Lists, known: Known) -> Scores:
    """A candidate that someone had consumed before the second of the row.

    What happened in that second is left out: the answer itself did.
    """
    if known.first_seen is None or scored.times is None:
        return np.zeros(scored.item_ids.shape)
    return (known.first_seen[scored.item_ids] < scored.times[:, None]).astype(float)


def _shared_items(item_ids: Ids, rows: Ids, fit: Lists, lists: Ids, known: Known) -> Ids:
    """(pairs,) how many items a row of `item_ids` shares with a list of `fit`."""
    common = np.intersect1d(item_ids, fit.item_ids[fit.filled])
    column = np.full(known.n_items + 1, len(common))  # what is not common, and padding, is last
    column[common] = np.arange(len(common))
    here, there = column[item_ids], column[fit.item_ids]
    shared = np.zeros(len(rows), np.int64)
    block = max(1, MOST_FLAGS // (len(common) + 1))
    by_list = np.argsort(lists, kind="stable")
    for start in range(0, len(fit), block):
        holds = np.zeros((min(block, len(fit) - start), len(common) + 1), bool)
        holds[np.arange(len(holds))[:, None], there[start : start + block]] = True
        holds[:, -1] = False
        begin, end = np.searchsorted(lists[by_list], [start, start + block])
        for part in np.split(by_list[begin:end], range(PAIRS, end - begin, PAIRS)):
            shared[part] = holds[lists[part, None] - start, here[rows[part]]].sum(axis=1)
    return shared


def answer_rates(groups: Ids, fit: Lists, n_groups: int) -> Scores:
    """(groups,) share of the candidates of each group that were right; near chance where unseen."""
    size = fit.item_ids.shape[1]
    listed = np.bincount(groups[fit.filled], minlength=n_groups)
    right = np.bincount(groups[np.arange(len(fit)), fit.place], minlength=n_groups)
    return (right + 1) / (listed + size)


def _own_counts(lists: Lists, n_items: int) -> Ids:
    """(R, K) how often the person of a row consumed each candidate, in any of their rows.

    What a person did is left out where a rule learns from their lists, for it is not known where
    the rule is tried: an answer would count itself.
    """
    _, person = np.unique(lists.persons, return_inverse=True)
    lengths = [len(history) for history in lists.histories]
    consumed = np.concatenate([lists.answers, *lists.histories])
    owners = np.concatenate([person, np.repeat(person, lengths)])
    keys, counts = np.unique(owners * (n_items + 1) + consumed, return_counts=True)
    asked = person[:, None] * (n_items + 1) + np.where(lists.filled, lists.item_ids, n_items)
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, counts[place], 0)


def _descending_ranks(values: Ids, lists: Lists) -> Ids:
    """(R, K) number of candidates in the list with a larger value; padding comes last."""
    own = -np.where(lists.filled, values, -1)
    order = np.argsort(own, axis=1, kind="stable")
    ordered = np.take_along_axis(own, order, axis=1)
    is_new = np.ones(own.shape, bool)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(is_new, np.arange(own.shape[1]), 0), axis=1)
    ranks = np.empty_like(first)
    np.put_along_axis(ranks, order, first, axis=1)
    return ranks


def _in_history(lists: Lists, known: Known) -> Ids:
    """(R, K) 1 where a candidate stands in the history, or its title in the text, of its row."""
    found = among(lists.item_ids, lists.histories)
    if lists.texts is not None and known.titles is not None:
        titles = known.titles.padded
        for row, text in enumerate(lists.texts):
            named = [titles[item] in text for item in lists.item_ids[row]]
            found[row] |= np.array(named) & lists.filled[row]
    return found.astype(np.int64)
