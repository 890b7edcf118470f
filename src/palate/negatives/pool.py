"""Items that contexts may be given as negatives, with their scores under the policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palate.data.contexts import Ids

MOST_COMPARED = 2**22
"""Numbers compared when ranks are counted; fewer contexts are looked at beyond it."""


@dataclass(frozen=True)
class Pool:
    """Scored items of B contexts: the whole catalogue, or a candidate set each.

    Attributes:
        log_probs: (B, N) float32; −inf for what is not to be drawn.
        item_ids: (B, N) int64, each item once in a row; or (N,) for the whole catalogue, in its
            order.
    """

    log_probs: Tensor
    item_ids: Tensor

    def without(self, excludes: Sequence[Ids]) -> "Pool":
        """The pool with some items of each context left out.

        Args:
            excludes: B arrays of item ids.
        """
        rows = torch.from_numpy(np.repeat(np.arange(len(excludes)), [len(e) for e in excludes]))
        barred = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *excludes]))
        rows, barred = rows.to(self.log_probs.device), barred.to(self.log_probs.device)
        if self.item_ids.ndim == 1:  # the catalogue: an item stands in its own column
            left = self.log_probs.index_put((rows, barred), self.log_probs.new_tensor(-torch.inf))
            return Pool(left, self.item_ids)
        width = int(max(self.item_ids.max(), barred.max() if len(barred) else 0)) + 1
        names = torch.arange(len(excludes), device=rows.device)[:, None] * width + self.item_ids
        out = torch.isin(names, rows * width + barred)
        return Pool(self.log_probs.masked_fill(out, -torch.inf), self.item_ids)

    def best(self, k: int) -> "Pool":
        """The `k` highest-scoring items of each context, best first."""
        log_probs, columns = self.log_probs.topk(min(k, self.log_probs.shape[1]), dim=1)
        return Pool(log_probs, self.items_at(columns))

    def taken(self, priority: Tensor, count: int) -> list[Ids]:
        """For each context the `count` items of highest priority; those at −inf never.

        Args:
            priority: (B, N).
            count: how many, at most.
        """
        first, columns = priority.topk(min(count, priority.shape[1]), dim=1)
        items = self.items_at(columns).cpu().numpy()
        there = (first > -torch.inf).cpu().numpy()
        return [row[kept] for row, kept in zip(items, there, strict=True)]

    def mean_rank(self, drawn: Sequence[Ids]) -> Tensor:
        """Mean rank of drawn items among all that could be drawn, 1 for the likeliest.

        Of the first contexts alone where there are many, so that it costs little.

        Args:
            drawn: for each context items of its pool; others are passed over.

        Returns:
            A scalar; NaN where none is of the pool.
        """
        width = max(map(len, drawn), default=0)
        rows = max(1, min(len(drawn), MOST_COMPARED // max(1, width * self.log_probs.shape[1])))
        padded = np.full((rows, width), -1)
        for row, items in enumerate(drawn[:rows]):
            padded[row, : len(items)] = items
        wanted = torch.from_numpy(padded).to(self.log_probs.device)
        log_probs, item_ids = self.log_probs[:rows], self.item_ids.expand(len(drawn), -1)[:rows]
        is_it = item_ids[:, None] == wanted[..., None]  # (rows, width, N)
        score = torch.where(is_it, log_probs[:, None], -torch.inf).amax(dim=2)
        rank = 1 + (log_probs[:, None] > score[..., None]).sum(dim=2)
        return rank[score > -torch.inf].float().mean()

    def items_at(self, columns: Tensor) -> Tensor:
        """The (B, …) items in some columns of each row."""
        if self.item_ids.ndim == 1:
            return self.item_ids[columns]
        return self.item_ids.gather(1, columns)
