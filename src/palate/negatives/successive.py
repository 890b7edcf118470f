"""Draws one after another in proportion to weights, for a batch of contexts at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from palate.data.contexts import Ids
from palate.negatives.noise import gumbel_noise
from palate.negatives.pool import Pool
from palate.negatives.stream import Stream

PROPOSALS = 4
"""Proposals for each draw that is wanted; where items repeat too often the rest is ranked."""
REST = 1
"""Stands in the key of that rest."""


def draw_in_proportion(
    pool: Pool, log_weights: Tensor, count: int, keys: Sequence[tuple[int, ...]]
) -> list[Ids]:
    """For each context `count` distinct items of its pool, each next one in proportion to exp of
    its weight among those left.

    Proposals from the cumulative weights need a few random numbers a context. Contexts in which
    they repeat too often, as a few items have nearly all the weight, draw what they lack by the
    Gumbel top-k trick (arXiv 1903.06059), which needs one for each item; the distribution is the
    same.

    Args:
        pool: whose items.
        log_weights: (B, N); −inf for what is not to be drawn.
        count: how many, at most.
        keys: B tuples of integers that name the draws.
    """
    largest = log_weights.amax(dim=1, keepdim=True).clamp(min=torch.finfo(log_weights.dtype).min)
    cumulative = (log_weights - largest).double().exp().cumsum(dim=1)
    numbers = np.stack([Stream(key).uniform(0, PROPOSALS * count) for key in keys])
    wanted = torch.from_numpy(numbers).to(cumulative.device) * cumulative[:, -1:]
    columns = torch.searchsorted(cumulative, wanted, right=True)
    columns = columns.clamp(max=log_weights.shape[1] - 1)
    there = (log_weights.gather(1, columns) > -torch.inf).cpu().numpy()
    items = pool.items_at(columns).cpu().numpy()
    drawn = [
        np.array(list(dict.fromkeys(row[kept].tolist()))[:count], np.int64)
        for row, kept in zip(items, there, strict=True)
    ]
    short = [row for row, one in enumerate(drawn) if len(one) < count]
    if short:
        item_ids = pool.item_ids if pool.item_ids.ndim == 1 else pool.item_ids[short]
        left = Pool(log_weights[short], item_ids).without([drawn[row] for row in short])
        noise = gumbel_noise([(*keys[row], REST) for row in short], item_ids)
        for row, more in zip(short, left.taken(left.log_probs + noise, count), strict=True):
            drawn[row] = np.append(drawn[row], more)[:count]
    return drawn
