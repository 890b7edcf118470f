"""Objectives that compare one positive with all negatives at once."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from palate.errors import ConfigError, did_you_mean
from palate.objectives.beta import pair_beta
from palate.objectives.scores import CandidateScores, masked_logsumexp

Likelihood = Literal["average", "sequence"]
LARGEST_LOG_LIKELIHOOD = 80.0
"""exp of it, times β and a thousand negatives, is still a float32. A log-probability is below 0;
scores above this count as this."""


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
        ConfigError: beta is not above 0, or has another shape; log_q is given.
    """
    scores.refuse_log_q("dmpo")
    scores.require_positive_and_negative()
    margins = scores.mean_over_negatives(pair_beta(scores, beta) * scores.pair_margins())
    return scores.mean_over_positives(-F.logsigmoid(margins))


def mppo(
    scores: CandidateScores,
    beta: float | Tensor = 1.0,
    likelihood: Likelihood = "average",
) -> Tensor:
    """Multi pair-wise preference optimisation: likelihoods, not their logarithms, by their sum.

    L = −log σ(β Σ_i (q_p − q_i)), averaged over the positives p.    arXiv 2412.15244

    `scores.reference` is not read. A whole title's probability is near 1e-5 in a catalogue of
    realistic size, so that with likelihood="sequence" the loss stays near log 2 and has almost no
    gradient; that form is here because published comparisons computed it.

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.
        beta: inverse temperature, > 0; a scalar, or (B, K) for one value per negative. Default 1.
        likelihood: "average" (the paper's, default): q = exp(s/length), the geometric mean of the
            tokens' probabilities, 1 token where `scores.lengths` are not given; "sequence":
            q = exp(s).

    Returns:
        (B,) loss per context, in nats.

    Raises:
        DataError: a context has no positive or no negative.
        ConfigError: beta is not above 0, or has another shape; the likelihood is unknown; log_q is
            given.
    """
    if likelihood not in get_args(Likelihood):
        raise ConfigError(
            f"likelihood is {likelihood!r}, which is unknown."
            + did_you_mean(likelihood, get_args(Likelihood))
        )
    scores.refuse_log_q("mppo")
    scores.require_positive_and_negative()
    log_q = scores.per_token if likelihood == "average" else scores.policy
    margins = scores.pair_margins(log_q.clamp(max=LARGEST_LOG_LIKELIHOOD).exp())
    total = scores.sum_over_negatives(pair_beta(scores, beta) * margins)
    return scores.mean_over_positives(-F.logsigmoid(total))


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
    exponents = scores.softmax_exponents(pair_beta(scores, beta))  # (B, P, K): β (h_i − h_p)
    against = masked_logsumexp(exponents, scores.pair_mask(), dim=2)
    # log(1 + e^x); softplus would turn into the identity above 20, an error of 2e-9
    return scores.mean_over_positives(torch.logaddexp(against, against.new_zeros(())))
