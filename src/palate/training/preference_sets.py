"""Training examples: contexts with sampled negatives, and histories to imitate.

Examples are fetched by (epoch, index), so that what an epoch draws is a pure function of the seed
and no worker keeps state.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from palate.data.contexts import Context, ContextSet, History, Ids
from palate.errors import DataError, DataWarning
from palate.negatives.sampler import Mixture
from palate.policies.policy import PADDING_ITEM, Asked, Policy
from palate.randomness import random_bits
from palate.training.batches import Batches, Index


@dataclass(frozen=True)
class PreferenceSet:
    """A context with its candidates: item ids and levels (K), level 0 for a negative; `key`
    names what is drawn for it."""

    context: Context
    item_ids: Ids
    levels: Ids
    key: tuple[int, ...] = ()

    def with_negatives(self, drawn: Ids) -> "PreferenceSet":
        """The set with further negatives."""
        item_ids = np.concatenate([self.item_ids, drawn])
        levels = np.concatenate([self.levels, np.zeros(len(drawn), np.int64)])
        return replace(self, item_ids=item_ids, levels=levels)


class PreferenceSets(Dataset[list[PreferenceSet]]):
    """Contexts with negatives drawn anew each epoch.

    An example is one context, or several moments of one user's history that are read in one pass.

    Args:
        contexts: training contexts.
        negatives: the mixture that draws.
        seed: names the draws.
        policy: says which moments a pass has room for; None where each is read by itself.
        together: moments in a pass, at most; None for `policy.moments_together`.
    """

    def __init__(
        self,
        contexts: ContextSet,
        negatives: Mixture,
        seed: int,
        policy: Policy | None = None,
        together: int | None = None,
    ) -> None:
        self._contexts = contexts
        self._negatives = negatives
        self._seed = seed
        self._policy = policy
        self._together = together or (1 if policy is None else policy.moments_together)
        self._first_reads = None
        self._examples = list(np.arange(len(contexts))[:, None])
        if policy is not None and self._together > 1:
            self._first_reads, self._examples = passes(contexts, policy, self._together)
        longest = [one[-1] for one in self._examples]
        self.sizes = contexts.history_lengths[longest]
        self.n_losses = np.array([len(one) for one in self._examples])

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Index) -> list[PreferenceSet]:
        epoch, example = index
        return [self._one(epoch, int(place)) for place in self._examples[example]]

    def _one(self, epoch: int, place: int) -> PreferenceSet:
        context = self._contexts[place]
        if self._first_reads is not None:
            context = replace(context, first_read=int(self._first_reads[place]))
        key = (self._seed, epoch)
        drawn = self._negatives.draw(context, key)
        if len(drawn) == 0 and not self._negatives.live:
            raise no_negative(context)
        only = PreferenceSet(context, context.positives, context.levels, key)
        return only.with_negatives(drawn)

    def with_negatives(self, n_items: int | None = None) -> "PreferenceSets":
        """Those contexts for which the mixture has a negative.

        Warns of how many are left out; raises a DataError where that is all of them.

        Args:
            n_items: size of the catalogue; live samplers find something as long as there is an
                item that is not excluded. None: as if there always were one.
        """
        having = [i for i, one in enumerate(self._contexts) if self._has_negative(one, n_items)]
        total = len(self._contexts)
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
        return PreferenceSets(kept, self._negatives, self._seed, self._policy, self._together)

    def _has_negative(self, context: Context, n_items: int | None) -> bool:
        if not self._negatives.live:
            return len(self._negatives.draw(context, (self._seed, 0))) > 0
        excluded = self._negatives.excluded(context)
        return n_items is None or len(excluded) < n_items or len(np.unique(excluded)) < n_items


def no_negative(context: Context) -> DataError:
    """What to raise for a context without one."""
    return DataError(
        f"align.negatives: context {context.context_id} of user {context.user_id} got no "
        "negative. Add a sampler that always has some, such as uniform."
    )


def passes(contexts: ContextSet, policy: Policy, together: int) -> tuple[Ids, list[Ids]]:
    """Which moments of a user one pass reads.

    Args:
        contexts: contexts of one split.
        policy: says what a pass has room for.
        together: moments in a pass, at most.

    Returns:
        (contexts,) places from which on their histories are read, and the contexts of each pass.
    """
    first_reads, found = np.zeros(len(contexts), np.int64), []
    users, lengths = contexts.users, contexts.history_lengths  # of all, once
    order = np.lexsort([contexts.begins, users])
    for of_user in np.split(order, np.flatnonzero(np.diff(users[order])) + 1):
        history = contexts[int(of_user[-1])].history
        first_reads[of_user] = policy.first_reads(history, lengths[of_user], together)
        for same in np.split(of_user, np.flatnonzero(np.diff(first_reads[of_user])) + 1):
            found += np.split(same, range(together, len(same), together))
    return first_reads, found


class Histories(Dataset[History]):
    """Training histories, cut into windows that a policy learns in one pass each.

    Args:
        policy: says how to cut.
        histories: items of each user, oldest first, and the first one to learn.
    """

    def __init__(self, policy: Policy, histories: Sequence[History]) -> None:
        self._windows = [one for history in histories for one in policy.history_windows(history)]
        self.sizes = np.array([len(one.items) for one in self._windows])
        self.n_losses = self.sizes - np.array([one.first_target for one in self._windows])

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: Index) -> History:
        return self._windows[index[1]]


class Imitations(Dataset[list[PreferenceSet]]):
    """Each later item of each training history as a context of its own with one positive.

    For policies whose prompts must be read anew for every target.

    Args:
        contexts: one context per target.
        targets: (contexts,) the items to learn.
        shown: items to draw beside the target where the prompt lists candidates and the context
            brings none; None for prompts without candidates.
        seed: names the draws.
    """

    def __init__(
        self, contexts: ContextSet, targets: Ids, shown: Mixture | None, seed: int
    ) -> None:
        self._contexts = contexts
        self._targets = targets
        self._shown = shown
        self._seed = seed
        self.sizes = contexts.history_lengths
        self.n_losses = np.ones(len(contexts), np.int64)

    def __len__(self) -> int:
        return len(self._contexts)

    def __getitem__(self, index: Index) -> list[PreferenceSet]:
        epoch, position = index
        target, level = self._targets[position][None], np.ones(1, np.int64)
        context = replace(self._contexts[position], positives=target, levels=level)
        if self._shown is not None and context.candidates is None:
            name = (self._seed, epoch)
            shown = np.concatenate([target, self._shown.draw(context, name)])
            shown = shown[np.argsort(random_bits(*name, "order", context.context_id, shown))]
            context = replace(context, candidates=shown)
        return [PreferenceSet(context, target, level)]


def collate_sets(policy: Policy, examples: Sequence[list[PreferenceSet]]) -> dict[str, Any]:
    """A batch of preference sets: the policy's tensors, `levels` (B, K), `contexts`, B,
    `max_positives`, the most of any context, and what was `asked`, for a cached reference."""
    sets = [one for example in examples for one in example]
    item_ids = _padded([one.item_ids for one in sets], PADDING_ITEM)
    levels = _padded([one.levels for one in sets], -1)
    asked = Asked([one.context for one in sets], item_ids)
    return {
        **policy.collate(asked.contexts, item_ids),
        "asked": asked,
        "levels": torch.from_numpy(levels),
        "contexts": len(sets),
        "max_positives": int((levels > 0).sum(axis=1).max()),
    }


def asked_in_training(
    sets: PreferenceSets, policy: Policy, batch_size: int, seed: int, epochs: int, batches: int
) -> Iterator[Asked]:
    """What training will ask, each pair once: all candidates that a context meets, side by side.

    Draws are pure functions of seed and epoch, so they are known before training.

    Args:
        sets: contexts with negatives.
        policy: where its prompts show the candidates, a context's epochs stay apart.
        batch_size: examples in a block; those of similar length are in one.
        seed: names the order of batches.
        epochs: whole epochs.
        batches: further batches of the epoch after them.
    """
    order = Batches(policy, sets, batch_size, seed)
    order.set_epoch(epochs)
    further = {index for batch in islice(order, batches) for _, index in batch}
    by_length = np.argsort(sets.sizes, kind="stable")
    for start in range(0, len(by_length), batch_size):
        met: dict[tuple[int, int], list[PreferenceSet]] = {}
        for example in by_length[start : start + batch_size].tolist():
            for epoch in range(epochs + (example in further)):
                apart = epoch if policy.lists_candidates else 0
                for one in sets[epoch, example]:
                    met.setdefault((apart, one.context.context_id), []).append(one)
        if not met:
            continue
        candidates = [
            same[0].item_ids
            if policy.lists_candidates
            else np.unique(np.concatenate([one.item_ids for one in same]))
            for same in met.values()
        ]
        contexts = [same[0].context for same in met.values()]
        yield Asked(contexts, _padded(candidates, PADDING_ITEM))


def collate_windows(policy: Policy, windows: Sequence[History]) -> dict[str, Any]:
    """A batch of histories: the policy's tensors and `contexts`, the number of targets."""
    batch = policy.collate_histories(windows)
    return {**batch, "contexts": batch["targets"]}


def _padded(rows: Sequence[Ids], padding: int) -> Ids:
    padded = np.full((len(rows), max(map(len, rows))), padding)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values
    return padded
