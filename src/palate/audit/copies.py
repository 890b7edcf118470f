"""Users who are copies of one another: the same items in the same order."""

from collections.abc import Sequence

import numpy as np

from palate.data.contexts import Ids, Interactions
from palate.randomness import random_bits

LEAST_EVENTS = 5
"""Events from which an equal sequence is no coincidence worth sparing."""


def alike_users(log: Interactions) -> Ids:
    """(users,) the least user with the same items in the same order; itself where there is none.

    Users with fewer than `LEAST_EVENTS` events are alike to nobody.
    """
    lengths = np.diff(log.first_row)
    places = np.arange(len(log.items)) - log.first_row[log.users]
    items = random_bits("item of a sequence", np.arange(int(log.items.max(initial=0)) + 1))
    by_place = random_bits("place in a sequence", np.arange(int(lengths.max(initial=0))))
    with np.errstate(over="ignore"):  # sums are taken modulo 2⁶⁴
        terms = items[log.items] * (by_place[places] | np.uint64(1))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        names = sums[log.first_row[1:]] - sums[log.first_row[:-1]]
    alone = lengths < LEAST_EVENTS
    names[alone] = random_bits("alone", np.flatnonzero(alone))
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    return first[group]


def alike_persons(persons: Sequence[int], users: Ids, alike: Ids) -> dict[int, int]:
    """Person → the first person who is a copy; themselves where there is none.

    Args:
        persons: (contexts,) who is behind each context, several users for windows that slide on.
        users: (contexts,) user of each.
        alike: what `alike_users` gave.
    """
    parts: dict[int, dict[int, None]] = {}
    for person, user in zip(persons, alike[users].tolist(), strict=True):
        parts.setdefault(person, {})[user] = None
    first: dict[tuple[int, ...], int] = {}
    return {person: first.setdefault(tuple(own), person) for person, own in parts.items()}
