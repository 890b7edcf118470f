"""Softmax over a catalogue, in memory that does not grow with its size.

Few logits are held as one matrix. Many are computed a slice of the catalogue at a time, with a
running logsumexp, and computed anew for the gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WHOLE = 2**26
"""Logits held as one matrix, at most: 256 MB in float32, and as much again for a gradient."""
SLICE = 2**23
"""Logits of a slice."""


def cross_entropy(states: Tensor, table: Tensor, targets: Tensor, whole: int = WHOLE) -> Tensor:
    """−log softmax(state · table) at the target.

    Args:
        states: (N, d) what is known.
        table: (items, d) item vectors.
        targets: (N,) item ids.
        whole: logits held as one matrix, at most.

    Returns:
        (N,) float32, in nats.
    """
    if len(states) * len(table) <= whole:
        return F.cross_entropy((states @ table.T).float(), targets, reduction="none")
    return -log_probs(states, table, targets[:, None], whole)[:, 0]


def log_probs(states: Tensor, table: Tensor, item_ids: Tensor, whole: int = WHOLE) -> Tensor:
    """log softmax(state · table) of some items.

    Args:
        states: (N, d).
        table: (items, d).
        item_ids: (N, K) item ids; those below 0 get a 0.
        whole: logits held as one matrix, at most.

    Returns:
        (N, K) float32, in nats.
    """
    wanted = item_ids.clamp(min=0)
    if len(states) * len(table) <= whole:
        logits = (states @ table.T).float()
        chosen, total = logits.gather(1, wanted), logits.logsumexp(dim=1)
    else:
        chosen = torch.einsum("nd,nkd->nk", states, F.embedding(wanted, table)).float()
        total = catalogue_logsumexp(states, table, max(1, SLICE // len(states)))
    return (chosen - total[:, None]).masked_fill(item_ids < 0, 0.0)


def catalogue_logsumexp(states: Tensor, table: Tensor, step: int) -> Tensor:
    """(N, d), (items, d) → (N,) float32 logsumexp of all logits, `step` items at a time."""
    device = states.device.type
    if torch.is_autocast_enabled(device):  # the backward pass runs outside of autocast
        dtype = torch.get_autocast_dtype(device)
        states, table = states.to(dtype), table.to(dtype)
    total: Any = _SlicedLogSumExp.apply(states, table, step)
    return total


class _SlicedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, step: int) -> Tensor:
        total = states.new_full((len(states),), -torch.inf, dtype=torch.float32)
        for items in table.split(step):
            total = torch.logaddexp(total, (states @ items.T).float().logsumexp(dim=1))
        ctx.save_for_backward(states, table, total)
        ctx.step = step
        return total

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        states, table, total = ctx.saved_tensors
        of_states = torch.zeros_like(states, dtype=torch.float32)
        of_table = torch.empty_like(table)
        for start in range(0, len(table), ctx.step):
            items = table[start : start + ctx.step]
            shares = (states @ items.T).float().sub_(total[:, None]).exp_()
            shares = shares.mul_(gradient[:, None]).to(states.dtype)
            of_states += shares @ items
            torch.mm(shares.T, states, out=of_table[start : start + ctx.step])
        return of_states.to(states.dtype), of_table, None
