"""Objectives that compare one positive with all negatives at once."""

import torch
from torch import Tensor

from palate.objectives.scores import CandidateScores, masked_logsumexp, pair_beta


def s_dpo(scores: CandidateScores, beta: float | Tensor = 1.0) -> Tensor:
    """Softmax DPO: the positive against all negatives in one softmax.

    L = log(1 + Σ_i exp(β (h_i − h_p))), averaged over the positives p.    arXiv 2406.09215, §3

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.
        beta: inverse temperature, > 0; a scalar, or (B, K) for one value per negative. Default 1,
            the paper's.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        DataError: a context has no positive or no negative.
        ConfigError: beta is not above 0, or has another shape.
    """
    scores.require_positive_and_negative()
    exponents = -pair_beta(scores, beta) * scores.pair_margins()  # (B, K, K): β (h_i − h_p)
    against = masked_logsumexp(exponents, scores.pair_mask(), dim=2)
    # log(1 + e^x); softplus would turn into the identity above 20, an error of 2e-9
    return scores.mean_over_positives(torch.logaddexp(against, against.new_zeros(())))
