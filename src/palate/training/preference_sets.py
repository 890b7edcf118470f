"""Training examples: contexts with sampled negatives, and histories to imitate.

Examples are fetched by (epoch, index), so that what an epoch draws is a pure function of the seed
and no worker keeps state.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from palate.data.contexts import Context, ContextSet, Ids
from palate.errors import DataError, DataWarning
from palate.negatives.sampler import Mixture
from palate.policies.policy import PADDING_ITEM, Policy
from palate.randomness import random_bits

Index = tuple[int, int]
"""(epoch, index of the example)."""

BUCKET_BATCHES = 20
"""Batches whose examples are sorted by length together: long enough to save padding, short enough
to leave the order random."""


@dataclass(frozen=True)
class PreferenceSet:
    """A context with its candidates: item ids and levels (K), level 0 for a negative."""

    context: Context
    item_ids: Ids
    levels: Ids


class PreferenceSets(Dataset[PreferenceSet]):
    """Contexts with negatives drawn anew each epoch.

    Args:
        contexts: training contexts.
        negatives: the mixture that draws.
        seed: names the draws.
    """

    def __init__(self, contexts: ContextSet, negatives: Mixture, seed: int) -> None:
        self._contexts = contexts
        self._negatives = negatives
        self._seed = seed
        log = contexts.interactions
        self.sizes = contexts.target_rows - log.first_row[log.users[contexts.target_rows]]

    def __len__(self) -> int:
        return len(self._contexts)

    def __getitem__(self, index: Index) -> PreferenceSet:
        epoch, position = index
        context = self._contexts[position]
        drawn = self._negatives.draw(context, (self._seed, epoch))
        if len(drawn) == 0:
            raise DataError(
                f"align.negatives: context {context.context_id} of user {context.user_id} got no "
                "negative. Add a sampler that always has some, such as uniform."
            )
        item_ids = np.concatenate([context.positives, drawn])
        levels = np.concatenate([context.levels, np.zeros(len(drawn), np.int64)])
        return PreferenceSet(context, item_ids, levels)

    def with_negatives(self) -> "PreferenceSets":
        """Those contexts for which the mixture has a negative.

        Warns of how many are left out; raises a DataError where that is all of them.
        """
        name = (self._seed, 0)
        having = [i for i, c in enumerate(self._contexts) if len(self._negatives.draw(c, name)) > 0]
        total = len(self)
        if not having:
            raise DataError(
                f"align.negatives: none of the {total} training contexts gets a negative from "
                f"{', '.join(self._negatives.parts)}. Add uniform: 5, say, or check data.disliked."
            )
        if len(having) < total:
            warnings.warn(
                f"align.negatives: {total - len(having)} of {total} training contexts get no "
                "negative and are left out.",
                DataWarning,
                stacklevel=2,
            )
        kept = self._contexts.subset(np.asarray(having, np.int64))
        return PreferenceSets(kept, self._negatives, self._seed)


class Histories(Dataset[tuple[Ids, int]]):
    """Windows over training histories; each item is a target once, after its predecessors.

    Long histories are cut into windows of three times `context` items that overlap by `context`,
    so that every later target sees at least as much as a prompt holds.

    Args:
        histories: item ids of each user, oldest first.
        context: items a prompt may hold.
    """

    def __init__(self, histories: Sequence[Ids], context: int) -> None:
        self._windows: list[tuple[Ids, int]] = []
        longest, step = 3 * context, 2 * context
        for history in histories:
            self._windows.append((history[:longest], 0))
            for target in range(longest, len(history), step):
                window = history[target - context : target + step]
                self._windows.append((window, context))
        self.sizes = np.array([len(items) for items, _ in self._windows])

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: Index) -> tuple[Ids, int]:
        return self._windows[index[1]]


class Imitations(Dataset[PreferenceSet]):
    """Each later item of each training history as a context of its own with one positive.

    For policies whose prompts must be read anew for every target.

    Args:
        contexts: one context per target; the item at the target is the positive.
        shown: items to draw beside it where the prompt lists candidates, or None.
        seed: names the draws.
    """

    def __init__(self, contexts: ContextSet, shown: Mixture | None, seed: int) -> None:
        self._contexts = contexts
        self._shown = shown
        self._seed = seed
        log = contexts.interactions
        self.sizes = contexts.target_rows - log.first_row[log.users[contexts.target_rows]]

    def __len__(self) -> int:
        return len(self._contexts)

    def __getitem__(self, index: Index) -> PreferenceSet:
        epoch, position = index
        context = self._contexts[position]
        log = self._contexts.interactions
        target = log.items[self._contexts.target_rows[position]][None]
        shown = None
        if self._shown is not None:
            name = (self._seed, epoch)
            alone = replace(context, positives=target, levels=np.ones(1, np.int64))
            shown = np.concatenate([target, self._shown.draw(alone, name)])
            shown = shown[np.argsort(random_bits(*name, "order", context.context_id, shown))]
        level = np.ones(1, np.int64)
        asked = replace(context, positives=target, levels=level, candidates=shown)
        return PreferenceSet(asked, target, level)


class BucketedBatches(Sampler[list[Index]]):
    """Batches of (epoch, index) in an order named by (seed, epoch), similar lengths together.

    Args:
        sizes: (n,) length of each example.
        batch_size: examples in a batch.
        seed: names the order.
    """

    def __init__(self, sizes: Ids, batch_size: int, seed: int) -> None:
        self._sizes = sizes
        self._seed = seed
        self._epoch = 0
        self.batch_size = batch_size
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._sizes) // self.batch_size)

    def __iter__(self) -> Iterator[list[Index]]:
        index = np.arange(len(self._sizes))
        order = np.argsort(random_bits(self._seed, "order", self._epoch, index))
        bucket = np.arange(len(order)) // (self.batch_size * BUCKET_BATCHES)
        order = order[np.lexsort([self._sizes[order], bucket])]
        batches = [
            order[start : start + self.batch_size]
            for start in range(0, len(order), self.batch_size)
        ]
        shuffled = np.argsort(random_bits(self._seed, "batches", self._epoch, np.arange(len(self))))
        return iter([[(self._epoch, int(i)) for i in batches[b]] for b in shuffled])


def collate_sets(policy: Policy, sets: Sequence[PreferenceSet]) -> dict[str, Any]:
    """A batch of preference sets: the policy's tensors, `levels` (B, K) and `contexts`, B."""
    width = max(len(one.item_ids) for one in sets)
    item_ids = np.full((len(sets), width), PADDING_ITEM)
    levels = np.full((len(sets), width), -1)
    for row, one in enumerate(sets):
        item_ids[row, : len(one.item_ids)] = one.item_ids
        levels[row, : len(one.levels)] = one.levels
    batch = policy.collate([one.context for one in sets], item_ids)
    return {**batch, "levels": torch.from_numpy(levels), "contexts": len(sets)}


def collate_windows(policy: Policy, windows: Sequence[tuple[Ids, int]]) -> dict[str, Any]:
    """A batch of histories: the policy's tensors and `contexts`, the number of targets."""
    batch = policy.collate_histories([items for items, _ in windows], [f for _, f in windows])
    return {**batch, "contexts": batch["shape"][0]}
