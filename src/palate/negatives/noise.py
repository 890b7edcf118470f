"""Gumbel noise for many (context, item) pairs at once, on the device where the scores are.

The numbers are those of `palate.randomness.gumbel`; what is mixed per pair is a tensor's work, so a
whole catalogue for a batch of contexts never crosses from the host.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from palate.negatives.stream import first_state
from palate.randomness import MIX_1, MIX_2

_FIRST, _SECOND = (int(number.view(np.int64)) for number in (MIX_1, MIX_2))


def gumbel_noise(keys: Sequence[tuple[int, ...]], item_ids: Tensor) -> Tensor:
    """Standard Gumbel draws: row b, item i is `gumbel(*keys[b], i)` of `palate.randomness`.

    Args:
        keys: B tuples of integers that name the draws.
        item_ids: (N,) or (B, N) int64.

    Returns:
        (B, N) float32 on the device of `item_ids`.
    """
    first = np.array([first_state(key) for key in keys], np.uint64).view(np.int64)
    state = torch.from_numpy(first).to(item_ids.device)[:, None] + item_ids  # wraps, as it should
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    state = state ^ _shifted(state, 31)
    uniform = _shifted(state, 11).double() * 2.0**-53
    return -torch.log(-torch.log1p(-uniform) + 1e-300).float()


def _shifted(state: Tensor, by: int) -> Tensor:
    """Right by some bits, with zeros from the left: torch's own shift keeps the sign."""
    return (state >> by) & ((1 << (64 - by)) - 1)
