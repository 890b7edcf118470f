"""Objectives that compare one better candidate with one worse at a time."""

import torch.nn.functional as F
from torch import Tensor

from palate.errors import ConfigError
from palate.objectives.beta import pair_beta, set_beta
from palate.objectives.checks import is_finite_number
from palate.objectives.levels import level_weights, nan_without_pairs, outranked
from palate.objectives.scores import CandidateScores


def dpo(
    scores: CandidateScores, beta: float | Tensor = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """Direct preference optimisation: each positive against each negative, by Bradley–Terry.

    L = mean_i −log σ(β (h_p − h_i)), averaged over the positives p.    arXiv 2305.18290, Eq. 7

    With label smoothing ε (cDPO) each pair is taken to be the wrong way round with probability ε:
    −(1 − ε) log σ(x) − ε log σ(−x), least at x = log((1 − ε)/ε) instead of at infinity.

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.
        beta: inverse temperature, > 0; a scalar, or (B, K) for one value per negative. Default 1,
            the papers' value for recommendation; 0.1 is the usual one for chat.
        label_smoothing: ε, at least 0 and below 0.5. Default 0.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        DataError: a context has no positive or no negative.
        ConfigError: beta is not above 0, or has another shape; label_smoothing is out of range, or
            log_q is given.
    """
    if not (is_finite_number(label_smoothing) and 0 <= label_smoothing < 0.5):
        raise ConfigError(
            f"label_smoothing is {label_smoothing!r}. Expected at least 0 and below 0.5, such as "
            "label_smoothing=0.1."
        )
    scores.refuse_log_q("dpo")
    scores.require_positive_and_negative()
    x = pair_beta(scores, beta) * scores.pair_margins()  # (B, P, K)
    losses = -F.logsigmoid(x)
    if label_smoothing > 0:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-x)
    return scores.mean_over_positives(scores.mean_over_negatives(losses))


def ipo(scores: CandidateScores, beta: float | Tensor = 1.0) -> Tensor:
    """Identity preference optimisation: each margin is drawn to 1/(2β), and no further.

    L = mean_i (h_p − h_i − 1/(2β))², averaged over the positives p.    arXiv 2310.12036, Eq. 17

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.
        beta: strength of the regularisation, > 0 (the paper's τ); a scalar, or (B, K) for one
            value per negative. Default 1; 0.1 is the usual one for chat.

    Returns:
        (B,) loss per context, in squared nats.

    Raises:
        DataError: a context has no positive or no negative.
        ConfigError: beta is not above 0, or has another shape; log_q is given.
    """
    scores.refuse_log_q("ipo")
    scores.require_positive_and_negative()
    losses = (scores.pair_margins() - 1 / (2 * pair_beta(scores, beta))).square()
    return scores.mean_over_positives(scores.mean_over_negatives(losses))


def simpo(scores: CandidateScores, beta: float | Tensor = 2.0, gamma: float = 1.0) -> Tensor:
    """Simple preference optimisation: log-probability per token, without a reference.

    L = mean_i −log σ(β (s_p/len_p − s_i/len_i) − γ), averaged over the positives p.
    arXiv 2405.14734, Eq. 6

    `scores.reference` is not read. Without `scores.lengths` every candidate is one token long.

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.
        beta: inverse temperature, > 0; a scalar, or (B, K) for one value per negative. Default 2,
            which the paper uses for base models.
        gamma: margin by which β times the difference must win, at least 0. Default 1.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        DataError: a context has no positive or no negative.
        ConfigError: beta is not above 0, or has another shape; gamma is below 0; log_q is given.
    """
    if not (is_finite_number(gamma) and gamma >= 0):
        raise ConfigError(f"gamma is {gamma!r}. Expected a number of at least 0, such as gamma=1.")
    scores.refuse_log_q("simpo")
    scores.require_positive_and_negative()
    margins = scores.pair_margins(scores.per_token)
    losses = -F.logsigmoid(pair_beta(scores, beta) * margins - gamma)
    return scores.mean_over_positives(scores.mean_over_negatives(losses))


def lipo(
    scores: CandidateScores, beta: float | Tensor = 1.0, lambda_weights: bool = False
) -> Tensor:
    """Listwise preference optimisation: every pair of different level, by Bradley–Terry.

    L = Σ_{ℓ_a > ℓ_b} −Δ_ab log σ(β (h_a − h_b)), over all pairs (a, b).    arXiv 2402.01878, §4

    Δ_ab is 1, or with λ-weights what exchanging a and b in the order of h would cost in DCG:
    (2^ℓ_a − 2^ℓ_b) · |1/log(1 + rank_a) − 1/log(1 + rank_b)|, no gradient going through it. Of
    equal h the worse level ranks first, and equals of one level share the mean of their ranks:
    before the first step, where policy is reference, all are equal and must still be told apart.

    A sum, not a mean: a context weighs as much as it has pairs, and with one positive and m
    negatives L is m times `dpo`'s. `scores.weights` multiply a pair by its negative's weight and
    its positives', these divided by the mean of their level.

    Args:
        scores: candidates (B, K); at least two distinct levels per context, level 0 or not.
        beta: inverse temperature, > 0: a scalar, or (B, K, K) for one value per pair
            [better, other], where 0 leaves the pair out. Default 1.
        lambda_weights: weigh pairs by Δ (LiPO-λ). Default False.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        ConfigError: beta is not above 0, or has another shape; log_q is given.
    """
    scores.refuse_log_q("lipo")
    betas, taken = set_beta(scores, beta)
    pairs = outranked(scores)
    losses = -F.logsigmoid(betas * scores.pair_margins())  # (B, P, K)
    if lambda_weights:
        losses = losses * _exchange_cost(scores)
    weights = level_weights(scores)
    if weights is not None:
        losses = losses * scores.of_positives(weights)[:, :, None] * weights[:, None, :]
    used = pairs if taken is None else pairs & taken
    total = losses.masked_fill(~used, 0.0).sum(dim=(1, 2))
    return nan_without_pairs(total, scores, used)


def _exchange_cost(scores: CandidateScores) -> Tensor:
    """(B, P, K) |gain difference| × |discount difference| of each pair."""
    h, levels, real = scores.log_ratios.detach(), scores.levels, scores.real

    def row(values: Tensor) -> tuple[Tensor, Tensor]:
        return values[:, None, :], values[:, :, None]

    (others, own), (other_levels, own_levels) = row(h), row(levels)
    worse_first = (others == own) & (other_levels < own_levels)
    alike = (others == own) & (other_levels == own_levels)  # itself included
    above = (((others > own) | worse_first) & real[:, None, :]).sum(dim=2)
    ranks = above + ((alike & real[:, None, :]).sum(dim=2) + 1) / 2
    gains = scores.levels.clamp(min=0).to(h.dtype).exp2()
    discounts = 1 / ranks.clamp(min=1).to(h.dtype).log1p()
    return scores.pair_margins(gains).abs() * scores.pair_margins(discounts).abs()
