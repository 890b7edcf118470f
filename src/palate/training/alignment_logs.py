"""What alignment tells of a batch, under stable names."""

from collections.abc import Mapping

import torch
from torch import Tensor

from palate.objectives import CandidateScores, DynamicPO
from palate.objectives.diagnostics import (
    beta_diagnostics,
    bound_diagnostics,
    boundary_diagnostics,
)
from palate.objectives.weighted_sum import WeightedSum

BOUNDED = ("mult_dpo", "pl_dpo")
"""Objectives of which one bounds the other; the distance is logged for either."""


@torch.no_grad()
def alignment_logs(
    objective: WeightedSum,
    parts: Mapping[str, Tensor],
    scores: CandidateScores,
    gradient: Tensor,
    beta: float,
) -> dict[str, Tensor]:
    """Scalars of a batch: rewards, where the gradient goes, and what the objective adds.

    `loss/NAME` is the loss of each term of a sum before its weight, `beta/…` there is for
    DynamicPO (quantiles over its pairs), `bound/…` for Mult-DPO and Plackett–Luce.

    Args:
        objective: what is minimised.
        parts: (B,) losses of its terms.
        scores: of the batch.
        gradient: (B, K) derivative of the sum of losses by the policy's log-probabilities.
        beta: inverse temperature.
    """
    logs = {**reward_logs(scores, beta), **boundary_diagnostics(scores, gradient)}
    if len(parts) > 1:
        logs |= {f"loss/{name}": losses.mean() for name, losses in parts.items()}
    for term in objective.terms.values():
        if isinstance(term.objective, DynamicPO):
            logs |= beta_diagnostics(scores, beta, term.objective.margin, term.objective.scale)
    if any(name in BOUNDED for name in objective.terms):
        logs |= bound_diagnostics(scores, beta)
    return logs


@torch.no_grad()
def reward_logs(scores: CandidateScores, beta: float) -> dict[str, Tensor]:
    """Scalars of a batch, under TRL's names and ours; a reward is β h.

    `rewards/accuracies` is the share of (positive, negative) pairs in the right order of reward,
    `kl` the mean of r − s over candidates weighted by the reference's probability among them
    (KL(reference ‖ policy) on the candidate set), `chosen/falling` the share of positives whose
    log-probability is below the reference's.
    """
    rewards = beta * scores.log_ratios
    positives, negatives, pairs = scores.positives, scores.negatives, scores.pair_mask()
    margins = (beta * scores.pair_margins())[pairs]
    reference = scores.policy if scores.reference is None else scores.reference
    kept = scores.real
    among = torch.where(kept, reference, -torch.inf).log_softmax(dim=1)
    now = torch.where(kept, scores.policy, -torch.inf).log_softmax(dim=1)
    drift = torch.where(kept, among.exp() * (among - now), 0.0).sum(dim=1)
    return {
        "rewards/chosen": rewards[positives].mean(),
        "rewards/rejected": rewards[negatives].mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": (margins > 0).float().mean(),
        "logps/chosen": scores.policy[positives].mean(),
        "logps/rejected": scores.policy[negatives].mean(),
        "kl": drift.mean(),
        "chosen/falling": (scores.log_ratios[positives] < 0).float().mean(),
        "negatives": negatives.sum(dim=1).float().mean(),
    }
