"""What an objective does to a batch, and whether training by it collapses."""

import math

import torch
from torch import Tensor

from palate.objectives.dynamicpo import boundary_negatives, dual_margin_beta
from palate.objectives.scores import CandidateScores
from palate.objectives.set_wise import setwise_bound_gap


@torch.no_grad()
def boundary_diagnostics(
    scores: CandidateScores, gradient: Tensor, selected: Tensor | None = None
) -> dict[str, Tensor]:
    """Where the gradient on negatives goes, and how far the boundary is.

    A negative is at the boundary as in `DynamicPO`, for any positive; the others are easy. A
    violating one is scored at least as high as a positive.

    Args:
        scores: of a batch, as the objective read them.
        gradient: (B, K) ∂(sum of losses)/∂(policy log-probabilities).
        selected: (B, P, K) `boundary_negatives(scores)`, where it is known already.

    Returns:
        Scalars by stable name:

        * `boundary/share`, `easy/share`: shares of Σ_i |∂L/∂s_i| over all negatives of the batch
          that fall on boundary and on easy ones; both 0 where no negative has a gradient;
        * `boundary/size`: boundary negatives per context;
        * `boundary/violations`: of all pairs of positive and negative, the share in which the
          negative is scored at least as high;
        * `boundary/margin`, `easy/margin`: mean of s_p − s_i over pairs with boundary and with
          easy negatives (0 where there are none).
    """
    selected = boundary_negatives(scores) if selected is None else selected
    pairs = scores.pair_mask()
    at_boundary = selected.any(dim=1)  # (B, K)
    size = gradient.abs().double()
    of_boundary = _sum(size, at_boundary)
    of_easy = _sum(size, scores.negatives & ~at_boundary)
    total = (of_boundary + of_easy).clamp(min=torch.finfo(torch.float64).tiny)
    margins = scores.pair_margins(scores.policy)
    count = pairs.sum().clamp(min=1)
    return {
        "boundary/share": of_boundary / total,
        "easy/share": of_easy / total,
        "boundary/size": at_boundary.sum(dim=1).double().mean(),
        "boundary/violations": (pairs & (margins <= 0)).sum() / count,
        "boundary/margin": masked_mean(margins, selected),
        "easy/margin": masked_mean(margins, pairs & ~selected),
    }


@torch.no_grad()
def beta_diagnostics(
    scores: CandidateScores,
    beta: float,
    margin: float = 2.0,
    scale: float = 0.5,
    selected: Tensor | None = None,
) -> dict[str, Tensor]:
    """`beta/p10`, `beta/p50`, `beta/p90`: quantiles of `DynamicPO`'s β over the selected pairs.

    0 where none is selected: no context has a negative.
    """
    selected = boundary_negatives(scores) if selected is None else selected
    betas = dual_margin_beta(scores, selected, beta, margin, scale).double()
    ordered = betas.masked_fill(~selected, math.inf).flatten().sort().values
    last = (selected.sum() - 1).clamp(min=0)

    def quantile(share: float) -> Tensor:
        value = ordered.gather(0, (share * last).round().long()[None])[0]
        return value.masked_fill(value.isinf(), 0.0)

    return {f"beta/p{percent}": quantile(percent / 100) for percent in (10, 50, 90)}


@torch.no_grad()
def bound_diagnostics(scores: CandidateScores, beta: float) -> dict[str, Tensor]:
    """`bound/gap` and `bound/bound`: means over the batch of `setwise_bound_gap`, in nats."""
    gap, bound = setwise_bound_gap(scores, beta)
    return {"bound/gap": gap.mean(), "bound/bound": bound.mean()}


def _sum(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where `mask` is true, 0 where it is nowhere; no synchronisation."""
    return _sum(values.double(), mask) / mask.sum().clamp(min=1)
