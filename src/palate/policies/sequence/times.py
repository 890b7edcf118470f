"""When the items of a history were consumed, as a model reads it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.contexts import Ids

UNKNOWN = 0
"""Bucket of an interval that nobody knows: before the first item, or without a clock."""
BUCKETS = 34
"""Of intervals: an unknown one, and doubling seconds up to 2³² (136 years)."""
DAY = 86_400


def interval_buckets(times: Ids) -> Ids:
    """Seconds since the item before → 1 + ⌊log2(1 + seconds)⌋; 0 for the first item.

    Args:
        times: (L,) Unix seconds, oldest first.
    """
    gaps = np.maximum(np.diff(times), 0)
    _, bits = np.frexp(1.0 + gaps)  # 2^(bits − 1) <= 1 + gap < 2^bits
    return np.append(UNKNOWN, np.minimum(bits, BUCKETS - 1)).astype(np.int64)[: len(times)]


def days_since_first(times: Ids) -> NDArray[np.float32]:
    """(L,) Unix seconds → days since the first item that is read, which float32 can tell apart.

    Times before that of the first item count as its own.
    """
    return (np.maximum(times - times[:1], 0) / DAY).astype(np.float32)


class TimeVectors(nn.Module):
    """Intervals and, where wanted, days → vectors.

    Args:
        hidden: width d.
        absolute: whether the days since the first item count too.
    """

    def __init__(self, hidden: int, absolute: bool) -> None:
        super().__init__()
        self.intervals = nn.Embedding(BUCKETS, hidden)
        self.days = nn.Linear(1, hidden) if absolute else None

    def forward(self, intervals: Tensor, days: Tensor) -> Tensor:
        """(R, L) buckets and days → (R, L, d)."""
        vectors = self.intervals(intervals)
        if self.days is None:
            return vectors
        return vectors + self.days(torch.log1p(days)[..., None])
