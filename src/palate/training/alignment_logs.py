"""What alignment tells of a batch, under stable names."""

from collections.abc import Mapping

import torch
from torch import Tensor

from palate.objectives import CandidateScores, DynamicPO
from palate.objectives.batch_beta import BatchBeta
from palate.objectives.diagnostics import (
    beta_diagnostics,
    bound_diagnostics,
    boundary_diagnostics,
    masked_mean,
)
from palate.objectives.dynamicpo import boundary_negatives
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

    `loss/NAME` is the loss of each term of a sum before its weight; `beta/p…` there is for
    DynamicPO (quantiles over its pairs), `beta/batch` for β-DPO, and `bound/…` for Mult-DPO and
    Plackett–Luce where all pairs have one β.

    Args:
        objective: what is minimised.
        parts: (B,) losses of its terms.
        scores: of the batch.
        gradient: (B, K) derivative of the sum of losses by the policy's log-probabilities.
        beta: inverse temperature.
    """
    selected = boundary_negatives(scores)
    logs = {**reward_logs(scores, beta), **boundary_diagnostics(scores, gradient, selected)}
    if len(parts) > 1:
        logs |= {f"loss/{name}": losses.mean() for name, losses in parts.items()}
    for name, term in objective.terms.items():
        if isinstance(term.objective, DynamicPO):
            margin, scale = term.objective.margin, term.objective.scale
            logs |= beta_diagnostics(scores, beta, margin, scale, selected)
        elif isinstance(term.objective, BatchBeta):
            logs["beta/batch"] = term.objective.last_beta
        elif name in BOUNDED:
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
    margins = beta * scores.pair_margins()
    reference = scores.policy if scores.reference is None else scores.reference
    kept = scores.real
    among = torch.where(kept, reference, -torch.inf).log_softmax(dim=1)
    now = torch.where(kept, scores.policy, -torch.inf).log_softmax(dim=1)
    drift = torch.where(kept, among.exp() * (among - now), 0.0).sum(dim=1)
    return {
        "rewards/chosen": masked_mean(rewards, positives),
        "rewards/rejected": masked_mean(rewards, negatives),
        "rewards/margins": masked_mean(margins, pairs),
        "rewards/accuracies": masked_mean(margins > 0, pairs),
        "logps/chosen": masked_mean(scores.policy, positives),
        "logps/rejected": masked_mean(scores.policy, negatives),
        "kl": drift.mean(),
        "chosen/falling": masked_mean(scores.log_ratios < 0, positives),
        "negatives": negatives.sum(dim=1).float().mean(),
    }
