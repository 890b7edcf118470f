"""Samplers that need no policy: they run where batches are made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.data.contexts import Context, Ids
from palate.randomness import integers, permutation


@dataclass(frozen=True)
class Uniform:
    """Every item of the catalogue outside `exclude` is equally likely.

    Attributes:
        n_items: size of the catalogue.
    """

    n_items: int

    def draw(self, context: Context, count: int, exclude: Ids, key: tuple[int, ...]) -> Ids:
        """See `NegativeSampler.draw`."""
        barred = np.zeros(self.n_items, bool)
        barred[exclude] = True
        left = self.n_items - int(barred.sum())
        if count * 2 >= left:
            remaining = np.flatnonzero(~barred)
            return remaining[permutation(left, *key)[:count]]
        drawn = np.empty(0, np.int64)
        attempts = 0
        while len(drawn) < count:
            block = integers(self.n_items, *key, attempts + np.arange(2 * count))
            attempts += 2 * count
            fresh = block[~barred[block]]
            _, first = np.unique(fresh, return_index=True)
            fresh = fresh[np.sort(first)]
            barred[fresh] = True
            drawn = np.concatenate([drawn, fresh])
        return drawn[:count]


@dataclass(frozen=True)
class Observed:
    """The user's own dislikes, and items shown to them and skipped, in random order.

    Attributes:
        by_user: for each user id, the item ids.
    """

    by_user: Sequence[Ids]

    def draw(self, context: Context, count: int, exclude: Ids, key: tuple[int, ...]) -> Ids:
        """See `NegativeSampler.draw`; a user with fewer gives fewer."""
        own = np.setdiff1d(self.by_user[context.user_id], exclude)
        return own[permutation(len(own), *key)[:count]]
