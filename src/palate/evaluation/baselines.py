"""Scorers to hold a policy against: chance, popularity, last item → next item, and the truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Context
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation
from palate.randomness import uniform

Scores = NDArray[np.float64]


class Random:
    """Every item's score is a draw named by (seed, context, item)."""

    def __init__(self, data: Prepared, seed: int) -> None:
        self._items = np.arange(data.n_items)
        self._seed = seed

    def __call__(self, contexts: Sequence[Context]) -> Scores:
        """(B, items) scores."""
        ids = np.array([context.context_id for context in contexts])
        return uniform(self._seed, "random", ids[:, None], self._items)


class Popularity:
    """How often an item was consumed in training."""

    def __init__(self, data: Prepared) -> None:
        self._counts = data.popularity.astype(float)

    def __call__(self, contexts: Sequence[Context]) -> Scores:
        """(B, items) scores."""
        return np.tile(self._counts, (len(contexts), 1))


class Markov:
    """How often an item followed the last one in training; popularity where it never did."""

    def __init__(self, data: Prepared) -> None:
        before = [history.items[:-1] for history in data.training_histories]
        after = [history.items[1:] for history in data.training_histories]
        pairs, counts = np.unique(
            np.stack([np.concatenate(before), np.concatenate(after)]), axis=1, return_counts=True
        )
        self._first = np.searchsorted(pairs[0], np.arange(data.n_items + 1))
        self._next, self._counts = pairs[1], counts
        self._popularity = data.popularity / (data.popularity.sum() + 1.0)

    def __call__(self, contexts: Sequence[Context]) -> Scores:
        """(B, items) scores: transition counts, ties among them broken by popularity."""
        scores = np.tile(self._popularity, (len(contexts), 1))
        for row, context in enumerate(contexts):
            if len(context.history):
                last = context.history[-1]
                known = slice(self._first[last], self._first[last + 1])
                scores[row, self._next[known]] += self._counts[known]
        return scores


class Oracle:
    """The simulator's truth: how probable an item is as the held-out event.

    Args:
        data: data prepared from a simulated log.
        world: the simulation.
        liked: rating from which an event counts as liked; None if all events do.
    """

    def __init__(self, data: Prepared, world: Simulation, liked: float | None) -> None:
        self._users, self._items = data.truth_ids()
        self._world = world
        self._liked = None if liked is None else int(np.ceil(liked))

    def __call__(self, contexts: Sequence[Context]) -> Scores:
        """(B, items) exposure × choice × liking, in log form."""
        rows = []
        for context in contexts:
            user, when = int(self._users[context.user_id]), _moment(context)
            event = self._world.event_probability(user, when, liked=self._liked)
            rows.append(np.log(np.maximum(event[self._items], 1e-300)))
        return np.stack(rows)


class TasteOracle:
    """The simulator's utility: what the user would like best, seen or not.

    Args:
        data: data prepared from a simulated log.
        world: the simulation.
    """

    def __init__(self, data: Prepared, world: Simulation) -> None:
        self._users, self._items = data.truth_ids()
        self._world = world

    def __call__(self, contexts: Sequence[Context]) -> Scores:
        """(B, items) utilities."""
        users = np.array([self._users[context.user_id] for context in contexts])
        when = np.array([_moment(context) for context in contexts])
        return self._world.utility(users[:, None], self._items[None, :], when[:, None])


def _moment(context: Context) -> int:
    assert context.timestamp is not None, "a simulated log always has timestamps"
    return context.timestamp
