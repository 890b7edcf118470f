"""Negatives that are drawn just before the loss, in the process that trains.

A collator of live mixtures leaves the sets of a batch as they are (`Undrawn`); `LiveNegatives` asks
the policy, without gradient and in evaluation mode, and completes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palate.data.contexts import Ids
from palate.errors import DataError
from palate.negatives.live import Visit
from palate.negatives.pool import Pool
from palate.negatives.sampler import Mixture
from palate.policies.policy import Batch, Policy, on_device
from palate.training.preference_sets import PreferenceSet, collate_sets, no_negative
from palate.training.scored_pools import ScoredPools


@dataclass(frozen=True)
class Undrawn:
    """The sets of a batch before their live negatives; as an object of our own it stays on the
    host, unread by the Trainer."""

    sets: list[PreferenceSet]


def collate_undrawn(examples: Sequence[list[PreferenceSet]]) -> dict[str, Any]:
    """A batch for `LiveNegatives.completed`: the sets as they are, and how many `contexts`."""
    sets = [one for example in examples for one in example]
    return {"undrawn": Undrawn(sets), "contexts": len(sets)}


class LiveNegatives:
    """Draws the live part of a mixture for a batch at once.

    Args:
        negatives: the mixture.
        policy: lays out the completed batch.
        pools: scores what may be drawn; None where no sampler asks for it.
    """

    def __init__(self, negatives: Mixture, policy: Policy, pools: ScoredPools | None) -> None:
        self._negatives = negatives
        self._policy = policy
        self._pools = pools

    def completed(self, undrawn: Undrawn, step: int) -> tuple[Batch, dict[str, Tensor]]:
        """The batch with its negatives on the policy's device, and what to log of them.

        Args:
            undrawn: sets with their static negatives.
            step: optimiser steps made so far.

        Raises:
            DataError: a context is left without a negative, or training diverged.
        """
        sets, ranks = [], []
        together = len(undrawn.sets) if self._pools is None else self._pools.together
        for first in range(0, len(undrawn.sets), together):
            some = undrawn.sets[first : first + together]
            drawn, pool = self._draw(some, undrawn.sets, step)
            sets += [one.with_negatives(new) for one, new in zip(some, drawn, strict=True)]
            if pool is not None and not ranks:  # one block of contexts tells enough
                ranks.append(pool.mean_rank(drawn))
        for one in sets:
            if not (one.levels == 0).any():
                raise no_negative(one.context)
        device = next(self._policy.model.parameters()).device
        logs = {"negatives/rank": ranks[0]} if ranks else {}
        return on_device(collate_sets(self._policy, [sets]), device), logs

    @torch.no_grad()
    def _draw(
        self, some: Sequence[PreferenceSet], every: Sequence[PreferenceSet], step: int
    ) -> tuple[list[Ids], Pool | None]:
        contexts = [one.context for one in some]
        keys = [(*one.key, one.context.context_id) for one in some]
        barred = [self._negatives.excluded(context) for context in contexts]
        excludes = [np.append(bar, one.item_ids) for bar, one in zip(barred, some, strict=True)]
        pool = None
        if self._pools is not None:
            pool = self._pools.pool(contexts, barred, keys, step).without(excludes)
            if pool.log_probs.isnan().any():
                raise DataError(
                    f"the policy's scores are nan at step {step}: training diverged. Lower the "
                    "learning rate or beta of this stage."
                )
        batch = [one.context for one in every]
        return self._negatives.draw_live(Visit(contexts, excludes, keys, batch, pool)), pool
