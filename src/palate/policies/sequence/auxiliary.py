"""Losses that help cross-entropy along in imitation (HM4SR, arXiv 2501.14269)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from palate.policies.sequence.cross_entropy import cross_entropy

TEMPERATURE = 0.2
"""Of the contrasts, as HM4SR has it."""
MASKED = 0.3
"""Share of places whose text and image a placeholder replaces, as HM4SR has it."""


def contrast(
    states: Tensor, others: Tensor, positives: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """InfoNCE: a state's own vector against those of the rest of the batch, by cosine.

    Args:
        states: (N, d).
        others: (M, d).
        positives: (N,) which of the others is a state's own.
        temperature: by which cosines are divided.

    Returns:
        (N,) −log softmax(cos / temperature) at the own one.
    """
    own = F.normalize(states, dim=1) / temperature
    return cross_entropy(own, F.normalize(others, dim=1), positives)


def category_losses(logits: Tensor, categories: Tensor) -> Tensor:
    """Cross-entropy of the target's categories, averaged over them.

    Args:
        logits: (N, categories).
        categories: (N, M) of each target; −1 for none.

    Returns:
        (N,), 0 for a target without categories.
    """
    is_one = categories >= 0
    found = -logits.float().log_softmax(dim=1).gather(1, categories.clamp(min=0))
    return (found * is_one).sum(dim=1) / is_one.sum(dim=1).clamp(min=1)


def masked_places(shape: torch.Size, device: torch.device, share: float = MASKED) -> Tensor:
    """(R, L) which places a placeholder takes, drawn with the generator of dropout."""
    return torch.rand(shape, device=device) < share
