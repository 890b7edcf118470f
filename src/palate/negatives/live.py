"""Samplers that ask the policy or look at the batch: they run just before the loss.

They draw for a batch at once, from scores that were made without gradient by the policy as it is.
What they draw is, given its weights, a pure function of (seed, epoch, context id).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field

from palate.data.contexts import Context, Ids
from palate.data.prepared import Prepared
from palate.negatives.noise import gumbel_noise
from palate.negatives.pool import Pool
from palate.negatives.static import Uniform
from palate.negatives.stream import Stream
from palate.negatives.successive import draw_in_proportion


@dataclass(frozen=True)
class Visit:
    """Contexts for which negatives are drawn together.

    Attributes:
        contexts: B contexts.
        excludes: for each, item ids not to draw: positives, history where that is left out, and
            what other samplers of the mixture drew.
        keys: for each, integers that name the draw.
        batch: all contexts of the batch, of which these may be a part.
        pool: what may be drawn, with scores; the same items are left out. None where no sampler
            of the mixture asks for it.
    """

    contexts: Sequence[Context]
    excludes: Sequence[Ids]
    keys: Sequence[tuple[int, ...]]
    batch: Sequence[Context]
    pool: Pool | None = None


@runtime_checkable
class LiveSampler(Protocol):
    """Draws negatives for the contexts of a batch, in the process that trains.

    Attributes:
        asks_policy: whether it needs the scores of a pool.
    """

    asks_policy: bool

    def draw_batch(self, visit: Visit, count: int) -> list[Ids]:
        """For each context up to `count` distinct item ids outside its `excludes`; fewer only if
        there are no more to be had."""
        ...


@dataclass(frozen=True)
class InBatch:
    """Positives of the batch's other users, each once, all equally likely.

    What a user likes anywhere in the batch is never a negative of theirs. A context for which the
    batch has nothing at all gets one uniform item, so that no batch is too small.

    Attributes:
        n_items: size of the catalogue.
    """

    n_items: int
    asks_policy = False

    def draw_batch(self, visit: Visit, count: int) -> list[Ids]:
        """See `LiveSampler.draw_batch`."""
        liked = {_whose(one): set[int]() for one in visit.batch}
        for one in visit.batch:
            liked[_whose(one)].update(one.positives.tolist())
        everyone = set[int]().union(*liked.values())
        drawn = []
        for one, exclude, key in zip(visit.contexts, visit.excludes, visit.keys, strict=True):
            left = everyone - liked[_whose(one)] - set(exclude.tolist())
            pool = np.array(sorted(left), np.int64)
            if len(pool) == 0:
                drawn.append(Uniform(self.n_items).draw(one, 1, exclude, key))
                continue
            drawn.append(pool[Stream(key).permutation(len(pool))[:count]])
        return drawn


@dataclass(frozen=True)
class Hard:
    """The items that the policy ranks highest: argmax of s over what is not excluded."""

    asks_policy = True

    def draw_batch(self, visit: Visit, count: int) -> list[Ids]:
        """See `LiveSampler.draw_batch`; best first."""
        pool = _asked(visit)
        return pool.taken(pool.log_probs, count)


@dataclass(frozen=True)
class StochasticTopK:
    """A random choice among the K items that the policy ranks highest.    arXiv 2603.29259

    Without replacement, uniformly or in proportion to exp(s / temperature).

    Attributes:
        k: how many are chosen among, after what is excluded.
        temperature: None for uniform.
    """

    k: int = 50
    temperature: float | None = None
    asks_policy = True

    def draw_batch(self, visit: Visit, count: int) -> list[Ids]:
        """See `LiveSampler.draw_batch`; at most `k`."""
        best = _asked(visit).best(self.k)
        # uniform: the same score for all that may be drawn
        zero = torch.where(best.log_probs == -torch.inf, best.log_probs, 0.0)
        scores = zero if self.temperature is None else best.log_probs / self.temperature
        return best.taken(scores + gumbel_noise(visit.keys, best.item_ids), count)


@dataclass(frozen=True)
class SelfPlay:
    """The policy's own draws: in proportion to exp(s / temperature).    SPRec, arXiv 2412.09243

    Without replacement: after each draw the others keep their proportions.

    Attributes:
        temperature: 1 is the policy itself; lower draws more of what it ranks highest.
    """

    temperature: float = 1.0
    asks_policy = True

    def draw_batch(self, visit: Visit, count: int) -> list[Ids]:
        """See `LiveSampler.draw_batch`."""
        pool = _asked(visit)
        return draw_in_proportion(pool, pool.log_probs / self.temperature, count, visit.keys)


Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def in_batch(data: Prepared) -> InBatch:
    """Positives of the batch's other users. No options."""
    return InBatch(data.n_items)


def hard(data: Prepared) -> Hard:
    """The items that the policy ranks highest. No options."""
    return Hard()


def stochastic_topk(
    data: Prepared,
    k: Annotated[int, Field(ge=1)] = 50,
    temperature: Temperature | None = None,
) -> StochasticTopK:
    """A random choice among the items that the policy ranks highest.

    Options:
        k: how many it chooses among. Default 50 (not published).
        temperature: > 0; chooses in proportion to exp(s / temperature). Default null: uniformly.
    """
    return StochasticTopK(k, temperature)


def self_play(data: Prepared, temperature: Temperature = 1.0) -> SelfPlay:
    """The policy's own draws.

    Options:
        temperature: > 0. Default 1, the policy itself.
    """
    return SelfPlay(temperature)


def _asked(visit: Visit) -> Pool:
    if visit.pool is None:
        raise TypeError("this sampler asks the policy: the visit needs a pool.")
    return visit.pool


def _whose(context: Context) -> tuple[int, int]:
    """The user; of contexts that belong to nobody each by itself."""
    user = context.user_id
    return (user, -1) if user >= 0 else (user, context.context_id)
