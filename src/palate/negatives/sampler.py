"""The protocol of static samplers, and mixtures of static and live ones.

A static sampler draws item ids for one context. What it draws is a pure function of (seed, epoch or
step, context id): the same on any worker and after any restart. It never draws an item of `exclude`
(the positives and, by default, the history) nor one item twice. A live one (`live.py`) draws for a
batch and promises the same, given the policy's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Context, Ids
from palate.errors import ConfigError
from palate.negatives.live import LiveSampler, Visit

KNOWN_LOG_Q = ("uniform", "popularity")
"""Samplers of ours of which it is known how often they draw each item."""


def unknown_log_q(name: str) -> str:
    """What is wrong with a sampler where `align.log_q` is asked for."""
    return (
        f"align.log_q: how often '{name}' draws an item is not known. Draw from "
        f"{' and '.join(KNOWN_LOG_Q)} alone, or leave align.log_q out."
    )


class NegativeSampler(Protocol):
    """Draws negatives for one context.

    One that has `log_probabilities`, (items,) log-probabilities of a single draw, can be corrected
    for (`align.log_q`).
    """

    def draw(self, context: Context, count: int, exclude: Ids, key: tuple[int, ...]) -> Ids:
        """Up to `count` distinct item ids outside `exclude`; fewer only if there are no more.

        Args:
            context: whom and when the negatives are for.
            count: how many.
            exclude: item ids not to draw.
            key: integers that name the draw.
        """
        ...


@dataclass(frozen=True)
class Mixture:
    """Several samplers, each with its own number of negatives; none repeats another's.

    The static ones are drawn where examples are made (`draw`), the live ones after them, for a
    batch at once (`draw_live`).

    Attributes:
        parts: name → (sampler, count), drawn in this order.
        exclude_history: whether items of the context's history are left out.
    """

    parts: Mapping[str, tuple[NegativeSampler | LiveSampler, int]]
    exclude_history: bool = True

    @property
    def count(self) -> int:
        """Most negatives a context gets."""
        return sum(count for _, count in self.parts.values())

    def log_q(self) -> NDArray[np.float64]:
        """(items,) log of how often each item is drawn for a context, on average, were nothing
        excluded and items drawn anew each time: log Σ_s count_s q_s(i) over the samplers s.

        Raises:
            ConfigError: of a sampler that is not known; it has no `log_probabilities` (items,).
        """
        terms = []
        for name, (sampler, count) in self.parts.items():
            log_probabilities = getattr(sampler, "log_probabilities", None)
            if log_probabilities is None:
                raise ConfigError(unknown_log_q(name))
            terms.append(np.log(count) + log_probabilities)
        return np.logaddexp.reduce(terms)

    @cached_property
    def static(self) -> list[tuple[int, NegativeSampler, int]]:
        """(place, sampler, count) of those that need neither policy nor batch."""
        return [
            (place, sampler, count)
            for place, (sampler, count) in enumerate(self.parts.values())
            if not isinstance(sampler, LiveSampler)
        ]

    @cached_property
    def live(self) -> list[tuple[int, LiveSampler, int]]:
        """(place, sampler, count) of those that ask the policy or look at the batch."""
        return [
            (place, sampler, count)
            for place, (sampler, count) in enumerate(self.parts.values())
            if isinstance(sampler, LiveSampler)
        ]

    @property
    def asks_policy(self) -> bool:
        """Whether a sampler needs the policy's scores."""
        return any(sampler.asks_policy for _, sampler, _ in self.live)

    @property
    def chooses_among(self) -> int:
        """Scored items that the samplers which ask the policy need for a context."""
        asking = [(sampler, count) for _, sampler, count in self.live if sampler.asks_policy]
        counts = [count for _, count in asking]
        return max([sum(counts), *(getattr(sampler, "k", 0) for sampler, _ in asking)])

    def excluded(self, context: Context) -> Ids:
        """Items that no sampler may draw: positives and, by default, the history."""
        if not self.exclude_history:
            return context.positives
        return np.concatenate([context.positives, context.history])

    def draw(self, context: Context, key: tuple[int, ...]) -> Ids:
        """Up to `count` distinct negatives of one context, from the static samplers.

        Args:
            context: whom and when the negatives are for.
            key: integers that name the draw, e.g. (seed, epoch); the context id is added.
        """
        exclude = self.excluded(context)
        drawn: list[Ids] = []
        for place, sampler, count in self.static:
            name = (*key, context.context_id, place)
            barred = np.concatenate([exclude, *drawn]) if drawn else exclude
            drawn.append(sampler.draw(context, count, barred, name))
        return drawn[0] if len(drawn) == 1 else np.concatenate([np.empty(0, np.int64), *drawn])

    def draw_live(self, visit: Visit) -> list[Ids]:
        """For each context its distinct negatives from the live samplers.

        Args:
            visit: contexts, what is not to be drawn for them, and the scores of what is; its keys
                name the draws, e.g. (seed, epoch, context id).
        """
        excludes, pool = list(visit.excludes), visit.pool
        drawn = [np.empty(0, np.int64) for _ in visit.contexts]
        for place, sampler, count in self.live:
            keys = [(*key, place) for key in visit.keys]
            new = sampler.draw_batch(replace(visit, excludes=excludes, keys=keys, pool=pool), count)
            drawn = [np.append(*both) for both in zip(drawn, new, strict=True)]
            excludes = [np.append(*both) for both in zip(excludes, new, strict=True)]
            pool = None if pool is None else pool.without(new)
        return drawn
