"""Objectives on the event that every better candidate outranks every worse one."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from palate.errors import ConfigError, did_you_mean
from palate.objectives.scores import CandidateScores, masked_logsumexp, scalar_beta

Reduction = Literal["sum", "mean_positive"]


def mult_dpo(
    scores: CandidateScores,
    beta: float | Tensor = 1.0,
    reduction_per_context: Reduction = "sum",
) -> Tensor:
    """Mult-DPO: the better set against all candidates, as one multinomial draw of k items.

    With P the k candidates of a level, E those of this level and below, w = exp(β h):

    L = −log( k! Π_{p∈P} w_p / (Σ_{e∈E} w_e)^k ), summed over the levels that have a lower one.

    Two levels give Mult-DPO, several Mult²-DPO; levels that do not occur are skipped. The constant
    −log k! is kept: with it L is an upper bound of the exact Plackett–Luce loss. L stays above
    k log k − log k! however well the policy ranks.    arXiv 2606.10078

    Args:
        scores: candidates (B, K); at least two distinct levels per context, level 0 or not.
        beta: inverse temperature, > 0, one for all candidates. Default 1.
        reduction_per_context: "sum" (the paper's, default), or "mean_positive": each level's term
            is divided by its k, so that contexts with many positives do not dominate a batch.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        ConfigError: beta is not one number above 0, or the reduction is unknown.
    """
    if reduction_per_context not in get_args(Reduction):
        raise ConfigError(
            f"reduction_per_context is {reduction_per_context!r}, which is unknown."
            + did_you_mean(reduction_per_context, get_args(Reduction))
        )
    levels, real = scores.levels, scores.real
    pairs = real[:, :, None] & real[:, None, :]  # (B, K, K), as [context, better, other]
    below = pairs & (levels[:, :, None] > levels[:, None, :])
    same = pairs & (levels[:, :, None] == levels[:, None, :])
    ranked = below.any(dim=2)  # (B, K): candidates that have something to outrank

    # −log w_p / Σ_E w for each p; margins first, because h may be large where they are not
    exponents = -scalar_beta(scores, beta) * scores.pair_margins()
    terms = masked_logsumexp(exponents, below | same, dim=2)
    k = same.sum(dim=2).clamp(min=1).to(terms.dtype)
    terms = terms - torch.lgamma(k + 1) / k  # log k! in k equal shares
    if reduction_per_context == "mean_positive":
        terms = terms / k
    total = terms.masked_fill(~ranked, 0.0).sum(dim=1)
    # one level only: nothing to learn, and 0 would hide it where values are not checked
    return total.masked_fill(~ranked.any(dim=1), math.nan)
