"""Objectives that compare one positive with all negatives at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from palate.objectives.scores import CandidateScores, masked_logsumexp, pair_beta


def dmpo(scores: CandidateScores, beta: float | Tensor = 1.0) -> Tensor:
    """Direct multi-preference optimisation: the positive against the mean of the negatives.

    L = −log σ(mean_i β (h_p − h_i)) = −log σ(β h_p − (β/m) Σ_i h_i), averaged over the
    positives p.    CIKM 2024, doi 10.1145/3627673.3679611

    Every negative gets the same gradient, however it ranks.

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.
        beta: inverse temperature, > 0; a scalar, or (B, K) for one value β_i per negative.
            Default 1, the value in DynamicPO's comparison (arXiv 2605.00327).

    Returns:
        (B,) loss per context, in nats.

    Raises:
        DataError: a context has no positive or no negative.
        ConfigError: beta is not above 0, or has another shape.
    """
    scores.require_positive_and_negative()
    h, negatives = scores.log_ratios, scores.negatives
    count = negatives.sum(dim=1, keepdim=True).clamp(min=1)

    def mean_over_negatives(values: Tensor) -> Tensor:
        return values.masked_fill(~negatives, 0.0).sum(dim=1, keepdim=True) / count

    betas = (torch.ones_like(h)[:, None, :] * pair_beta(scores, beta))[:, 0]  # (B, K)
    # a constant cancels from every margin; near 0 the difference of two means loses no digits
    centred = h - mean_over_negatives(h).detach()
    margins = mean_over_negatives(betas) * centred - mean_over_negatives(betas * centred)
    return scores.mean_over_positives(-F.logsigmoid(margins))


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
