"""Samplers that need neither a policy nor statistics: they run where batches are made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Context, Ids
from palate.data.prepared import Prepared
from palate.negatives.stream import Stream


@dataclass(frozen=True)
class Uniform:
    """Every item of the catalogue outside `exclude` is equally likely.

    Attributes:
        n_items: size of the catalogue.
    """

    n_items: int

    @property
    def log_probabilities(self) -> NDArray[np.float64]:
        """(items,) log-probability of each item in a single draw with nothing excluded."""
        return np.full(self.n_items, -np.log(self.n_items))

    def draw(self, context: Context, count: int, exclude: Ids, key: tuple[int, ...]) -> Ids:
        """See `NegativeSampler.draw`."""
        stream = Stream(key)
        if 2 * count >= self.n_items - len(exclude):
            left = np.delete(np.arange(self.n_items), exclude)
            if 2 * count >= len(left):
                return left[stream.permutation(len(left))[:count]]
        return stream.distinct(count, exclude, lambda u: (u * self.n_items).astype(np.int64))


@dataclass(frozen=True)
class Observed:
    """The user's own dislikes, and items shown to them and skipped, in random order.

    Attributes:
        by_user: for each user id, the item ids.
    """

    by_user: Sequence[Ids]

    def draw(self, context: Context, count: int, exclude: Ids, key: tuple[int, ...]) -> Ids:
        """See `NegativeSampler.draw`; a user with fewer gives fewer."""
        own = set(self.by_user[context.user_id].tolist()).difference(exclude.tolist())
        return np.array(sorted(own), np.int64)[Stream(key).permutation(len(own))[:count]]


def uniform(data: Prepared) -> Uniform:
    """Items of the whole catalogue, all equally likely. No options."""
    return Uniform(data.n_items)


def observed(data: Prepared) -> Observed:
    """What the user disliked, or was shown and skipped, in training. No options."""
    return Observed(data.observed_negatives)
