"""Objectives that compare one positive with one negative at a time."""

import torch.nn.functional as F
from torch import Tensor

from palate.objectives.scores import CandidateScores, pair_beta


def dpo(scores: CandidateScores, beta: float | Tensor = 1.0) -> Tensor:
    """Direct preference optimisation: each positive against each negative, by Bradley–Terry.

    L = mean_i −log σ(β (h_p − h_i)), averaged over the positives p.    arXiv 2305.18290, Eq. 7

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.
        beta: inverse temperature, > 0; a scalar, or (B, K) for one value per negative. Default 1,
            the papers' value for recommendation; 0.1 is the usual one for chat.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        DataError: a context has no positive or no negative.
        ConfigError: beta is not above 0, or has another shape.
    """
    scores.require_positive_and_negative()
    losses = -F.logsigmoid(pair_beta(scores, beta) * scores.pair_margins())  # (B, K, K)
    total = losses.masked_fill(~scores.pair_mask(), 0.0).sum(dim=2)
    return scores.mean_over_positives(total / scores.negatives.sum(dim=1, keepdim=True).clamp(1))
