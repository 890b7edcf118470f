"""Which drawn negatives are none: items that the user likes, by the truth or by the later log."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Context, Ids
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation

Known = NDArray[np.bool_]


class WouldLike:
    """The simulator's truth: whether the user would rate an item as liked, were it consumed now.

    Args:
        data: data prepared from a simulated log.
        world: the simulation.
        liked: least rating that counts as liked, 1 to 5.
    """

    def __init__(self, data: Prepared, world: Simulation, liked: float = 4) -> None:
        self._users, self._items = data.truth_ids()
        self._world = world
        self._liked = liked

    def __call__(self, contexts: Sequence[Context], item_ids: Ids) -> Known:
        """(B, K) for B contexts and (B, K) item ids; False for item id −1."""
        users = np.array([self._users[context.user_id] for context in contexts])
        when = np.array([context.timestamp for context in contexts])
        ratings = self._world.ratings(users[:, None], self._items[item_ids], when[:, None])
        return (ratings >= self._liked) & (item_ids >= 0)


class LikedLater:
    """What a log itself can tell: whether the user goes on to like an item, in any split.

    A lower bound of false negatives: most of what a user would like is never met.

    Args:
        data: prepared data; its contexts are asked for.
    """

    def __init__(self, data: Prepared) -> None:
        log = data.interactions
        rows = np.flatnonzero(log.levels > 0)
        pairs = log.users[rows] * data.n_items + log.items[rows]
        order = np.lexsort([rows, pairs])
        self._pairs, self._rows = pairs[order], rows[order]
        self._n_items = data.n_items

    def __call__(self, contexts: Sequence[Context], item_ids: Ids) -> Known:
        """(B, K) for B contexts and (B, K) item ids; False for item id −1."""
        users = np.array([context.user_id for context in contexts])[:, None]
        begins = np.array([context.context_id for context in contexts])[:, None]
        pairs = users * self._n_items + item_ids
        last = np.searchsorted(self._pairs, pairs, side="right") - 1
        found = (last >= 0) & (self._pairs[last] == pairs) & (item_ids >= 0)
        return found & (self._rows[last] >= begins)
