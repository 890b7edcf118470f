"""Objectives that compare one better candidate with one worse at a time."""

import math

import torch.nn.functional as F
from torch import Tensor

from palate.objectives.scores import CandidateScores, pair_beta, scalar_beta


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


def lipo(scores: CandidateScores, beta: float | Tensor = 1.0) -> Tensor:
    """Listwise preference optimisation: every pair of different level, by Bradley–Terry.

    L = Σ_{ℓ_a > ℓ_b} −log σ(β (h_a − h_b)), over all pairs (a, b), all of equal weight.

    A sum, not a mean: a context weighs as much as it has pairs, and with one positive and m
    negatives L is m times `dpo`'s.    arXiv 2402.01878

    Args:
        scores: candidates (B, K); at least two distinct levels per context, level 0 or not.
        beta: inverse temperature, > 0, one for all candidates: between two positives no negative
            stands whose own it could be. Default 1.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        ConfigError: beta is not one number above 0.
    """
    levels, real = scores.levels, scores.real
    pairs = real[:, None, :] & (levels[:, :, None] > levels[:, None, :])  # (B, K, K): better, worse
    losses = -F.logsigmoid(scalar_beta(scores, beta) * scores.pair_margins())
    total = losses.masked_fill(~pairs, 0.0).sum(dim=(1, 2))
    # one level only: nothing to learn, and 0 would hide it where values are not checked
    return total.masked_fill(~pairs.any(dim=2).any(dim=1), math.nan)
