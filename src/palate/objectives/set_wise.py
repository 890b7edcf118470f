"""Objectives on the event that every better candidate outranks every worse one."""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from palate.errors import ConfigError, did_you_mean
from palate.objectives.beta import scalar_beta, set_beta
from palate.objectives.levels import (
    level_weights,
    nan_without_pairs,
    of_same_level,
    outranked,
)
from palate.objectives.plackett_luce import log_ratio_loss
from palate.objectives.scores import CandidateScores, masked_logsumexp

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

    A positive's weight, divided by the mean over its level, multiplies its −log(w_p / Σ w).

    Args:
        scores: candidates (B, K); at least two distinct levels per context, level 0 or not.
        beta: inverse temperature, > 0: a scalar, or (B, K, K) for one value per pair
            [better, other], where 0 leaves the pair out. Default 1.
        reduction_per_context: "sum" (the paper's, default), or "mean_positive": each level's term
            is divided by its k, so that contexts with many positives do not dominate a batch.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        ConfigError: beta is not above 0 or has another shape, or the reduction is unknown.
    """
    _check_reduction(reduction_per_context)
    betas, taken = set_beta(scores, beta)
    below, same = outranked(scores), of_same_level(scores)
    # −log w_p / Σ_E w for each p; margins first, because h may be large where they are not
    exponents = scores.softmax_exponents(betas)
    among = below | same
    if taken is not None:
        columns = torch.arange(among.shape[2], device=among.device)
        among &= taken | (scores.places[:, :, None] == columns)  # w_p itself is always there
    terms = masked_logsumexp(exponents, among, dim=2)  # (B, P)
    weights = level_weights(scores)
    if weights is not None:
        terms = terms * scores.of_positives(weights)
    k = same.sum(dim=2).clamp(min=1).to(terms.dtype)
    terms = terms - torch.lgamma(k + 1) / k  # log k! in k equal shares
    return _summed(scores, terms, below, k, reduction_per_context)


def pl_dpo(
    scores: CandidateScores,
    beta: float | Tensor = 1.0,
    reduction_per_context: Reduction = "sum",
    nodes: int = 80,
) -> Tensor:
    """The exact Plackett–Luce loss: every better candidate before every worse, in any order.

    With P the k candidates of a level, N those below it, w = exp(β h) and a_p = w_p / Σ_{i∈N} w_i:

    L = −log ∫₀¹ Π_{p∈P} (1 − u^{a_p}) du, summed over the levels that have a lower one.

    This is the likelihood of which `mult_dpo` is an upper bound: k! orders in one integral, in
    float64, for any k. It goes to 0 as the positives rise.    The integral: arXiv 2006.05067

    Args:
        scores: candidates (B, K); at least two distinct levels per context, level 0 or not. A
            positive has no term of its own here, so it has no weight but 0 and 1.
        beta: inverse temperature, > 0: a scalar, or (B, K, K) for one value per pair
            [better, worse], where 0 leaves the pair out. Default 1.
        reduction_per_context: "sum" (default), or "mean_positive": each level's term is divided by
            its k.
        nodes: of the quadrature, at least 32. Worst relative errors for k from 1 to 500 and A/B
            from 1e-6 to 1e6: with the default 80, 1e-11 of the loss and 2e-10 of the gradient;
            with 64, 3e-9 and 3e-8; with 48, 8e-7 and 1e-5.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        ConfigError: beta is not above 0 or has another shape, the reduction is unknown, nodes are
            too few, or a positive has a weight other than 0 and 1.
    """
    _check_reduction(reduction_per_context)
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 32:
        raise ConfigError(f"nodes is {nodes!r}. Expected a whole number of at least 32: nodes=80.")
    below, same = outranked(scores), of_same_level(scores)
    log_a = _log_ratios_of_sets(scores, beta, below)
    group = _same_place_level(scores, same) & below.any(dim=2)[:, :, None]
    k = same.sum(dim=2).clamp(min=1).to(log_a.dtype)
    terms = log_ratio_loss(log_a, group, nodes) / k
    loss = _summed(scores, terms, below, k, reduction_per_context)
    return _without_weighted_positives(scores, loss).to(scores.log_ratios.dtype)


class BoundGap(NamedTuple):
    """How loose `mult_dpo` is: `gap` (B,) and its `bound` (B,), in nats."""

    gap: Tensor
    bound: Tensor


@torch.no_grad()
def setwise_bound_gap(scores: CandidateScores, beta: float | Tensor = 1.0) -> BoundGap:
    """How far `mult_dpo` lies above `pl_dpo`, and how far it can: 0 ≤ gap ≤ bound.

    bound = Σ_g (k_g − 1) log(1 + A_g/B_g), over the levels g that have a lower one; A_g the total
    weight of the level, B_g that of all lower ones. The surrogate is loose where the positives
    already dominate, and tight where negatives are many or hard.

    Args:
        scores: as for `pl_dpo`.
        beta: inverse temperature, > 0, one for all pairs. Default 1.

    Returns:
        gap and bound, (B,) each, without gradient. Rounding beyond the bounds is cut off.

    Raises:
        ConfigError: beta is not one number above 0, or a positive has a weight other than 0 and 1.
    """
    dtype, scores = scores.log_ratios.dtype, scores.in_float64()
    beta = scalar_beta(scores, beta)
    below, same = outranked(scores), of_same_level(scores)
    exponents = scores.softmax_exponents(beta)
    log_odds = masked_logsumexp(exponents, same, dim=2) - masked_logsumexp(exponents, below, dim=2)
    k = same.sum(dim=2).clamp(min=1).double()
    bound = (k - 1) / k * torch.logaddexp(log_odds, torch.zeros_like(log_odds))
    bound = _summed(scores, bound, below, k, "sum")
    gap = (mult_dpo(scores, beta) - pl_dpo(scores, beta)).clamp(min=0).minimum(bound)
    return BoundGap(gap.to(dtype), bound.to(dtype))


def _log_ratios_of_sets(scores: CandidateScores, beta: float | Tensor, below: Tensor) -> Tensor:
    """(B, P) log a_p = −log Σ_i exp(β (h_i − h_p)) over the candidates below p, in float64."""
    wide = scores.in_float64()
    betas, taken = set_beta(wide, beta)
    pairs = below if taken is None else below & taken
    return -masked_logsumexp(wide.softmax_exponents(betas), pairs, dim=2)


def _same_place_level(scores: CandidateScores, same: Tensor) -> Tensor:
    """(B, P, P) `same` at the columns that hold positives."""
    columns = scores.places[:, None, :].expand(-1, same.shape[1], -1)
    return same.gather(2, columns) & scores.filled[:, None, :]


def _summed(
    scores: CandidateScores, terms: Tensor, below: Tensor, k: Tensor, reduction: Reduction
) -> Tensor:
    """(B,) the terms (B, P) of all positives that outrank something."""
    if reduction == "mean_positive":
        terms = terms / k
    total = terms.masked_fill(~below.any(dim=2), 0.0).sum(dim=1)
    return nan_without_pairs(total, scores, below)


def _check_reduction(reduction: str) -> None:
    if reduction not in get_args(Reduction):
        raise ConfigError(
            f"reduction_per_context is {reduction!r}, which is unknown."
            + did_you_mean(reduction, get_args(Reduction))
        )


def _without_weighted_positives(scores: CandidateScores, loss: Tensor) -> Tensor:
    """The loss, NaN where a positive has a weight that is not 1; checked scores raise instead."""
    if scores.weights is None:
        return loss
    wrong = scores.positives & (scores.weights != 1)
    if scores.check and wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise ConfigError(
            f"The weight of context {row}, candidate {column}, a positive, is "
            f"{float(scores.weights[row, column])}, but pl_dpo has no term for one positive. Use 0 "
            "or 1 for positives, or mult_dpo."
        )
    return loss.masked_fill(wrong.any(dim=1), math.nan)
