"""One protocol for all negative samplers, and mixtures of them.

A sampler draws item ids for one context. What it draws is a pure function of (seed, epoch or step,
context id): the same on any worker and after any restart. It never draws an item of `exclude`
(the positives and, by default, the history) nor one item twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from palate.data.contexts import Context, Ids


class NegativeSampler(Protocol):
    """Draws negatives for one context."""

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

    Attributes:
        parts: name → (sampler, count), drawn in this order.
        exclude_history: whether items of the context's history are left out.
    """

    parts: Mapping[str, tuple[NegativeSampler, int]]
    exclude_history: bool = True

    @property
    def count(self) -> int:
        """Most negatives a context gets."""
        return sum(count for _, count in self.parts.values())

    def draw(self, context: Context, key: tuple[int, ...]) -> Ids:
        """Up to `count` distinct negatives of one context.

        Args:
            context: whom and when the negatives are for.
            key: integers that name the draw, e.g. (seed, epoch); the context id is added.
        """
        exclude = context.positives
        if self.exclude_history:
            exclude = np.concatenate([exclude, context.history])
        drawn: list[Ids] = []
        for place, (sampler, count) in enumerate(self.parts.values()):
            name = (*key, context.context_id, place)
            barred = np.concatenate([exclude, *drawn]) if drawn else exclude
            drawn.append(sampler.draw(context, count, barred, name))
        return drawn[0] if len(drawn) == 1 else np.concatenate([np.empty(0, np.int64), *drawn])
