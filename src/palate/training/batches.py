"""Which examples are learnt together, and in which order."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

from palate.data.contexts import Ids
from palate.policies.policy import Policy
from palate.randomness import random_bits

Index = tuple[int, int]
"""(epoch, index of the example)."""


class Examples(Protocol):
    """What batches are made by: the length of each example and how many losses it has."""

    sizes: Ids
    n_losses: Ids


BUCKET_BATCHES = 20
"""Batches whose examples are sorted by length together: long enough to save padding, short enough
to leave the order random."""


class Batches(Sampler[list[Index]]):
    """Batches of (epoch, index) in an order named by (seed, epoch).

    A step is the mean of its losses, so batches hold about as many losses as one another, few long
    histories or many short ones; with as many histories each, those in short company would count
    for more.

    A language model spends its time on tokens, so its examples are batched with others of their
    length. A sequence model reads a batch in parts of like length anyway, and learns better from
    mixed lengths (benchmarks/results/sequence_quality.md); so are a module's batched.

    Args:
        policy: what reads them.
        examples: their `sizes`, (n,) lengths, and `n_losses`, (n,) how many losses each has.
        batch_size: examples in a batch, on average.
        seed: names the order.
    """

    def __init__(self, policy: Policy, examples: Examples, batch_size: int, seed: int) -> None:
        self._sorts = getattr(policy, "kind", "") == "language"
        self._sizes = examples.sizes
        self._n_losses = examples.n_losses
        self._seed = seed
        self._epoch = 0
        self._batch_size = batch_size
        # given a size, accelerate deals a short batch to one of several processes at the end alone;
        # ours may come anywhere, and would be lost with its neighbours
        self.batch_size = None
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._sizes) // self._batch_size)

    def __iter__(self) -> Iterator[list[Index]]:
        index = np.arange(len(self._sizes))
        order = np.argsort(random_bits(self._seed, "order", self._epoch, index))
        if self._sorts:
            bucket = np.arange(len(order)) // (self._batch_size * BUCKET_BATCHES)
            order = order[np.lexsort([self._sizes[order], bucket])]
        batches = np.split(order, self._starts(self._n_losses[order])[1:])
        shuffled = np.argsort(random_bits(self._seed, "batches", self._epoch, np.arange(len(self))))
        return iter([[(self._epoch, int(i)) for i in batches[b]] for b in shuffled])

    def _starts(self, losses: Ids) -> Ids:
        """The first example of each batch, given the losses of all in order."""
        before = np.cumsum(losses) - losses
        batch = before * len(losses) // (self._batch_size * losses.sum())
        number = np.arange(len(self))
        starts = np.searchsorted(batch, number)
        # an example of more losses than a batch has leaves the next one with an example at least
        starts = np.maximum.accumulate(starts - number) + number
        return np.minimum(starts, len(losses) - len(self) + number)
