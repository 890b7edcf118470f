"""Alignment: preference optimisation against a frozen reference."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from palate.config import TrainingOptions
from palate.data.contexts import Prepared
from palate.negatives.sampler import Mixture
from palate.objectives import CandidateScores, Objective
from palate.policies.policy import Policy
from palate.policies.reference import Reference
from palate.training.preference_sets import PreferenceSets, collate_sets
from palate.training.trainer import Trained, Validation, disable_dropout, train


def align(
    policy: Policy,
    data: Prepared,
    negatives: Mixture,
    objective: Objective,
    beta: float,
    reference: Reference,
    validation: Validation,
    options: TrainingOptions,
    folder: Path,
    seed: int,
    trackers: tuple[str, ...] = ("tensorboard",),
) -> Trained:
    """Minimise a preference objective over contexts with liked items and drawn negatives.

    Args:
        policy: trained in place, left at its best checkpoint; its dropout is switched off.
        data: prepared data.
        negatives: draws the candidates beside the positives.
        objective: candidate scores → loss per context.
        beta: inverse temperature of the objective.
        reference: log-probabilities of the frozen policy.
        validation: metrics of the policy as it is.
        options: how to train.
        folder: the run folder.
        seed: names the order and the draws.
        trackers: what to log to.

    Returns:
        Optimiser steps made and steps between validations.

    Raises:
        DataError: no training context gets a negative, or training diverged.
    """
    disable_dropout(policy.model)

    def losses(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        scores = CandidateScores(
            policy=policy.log_probs(batch, model).log_probs,
            reference=reference.log_probs(batch),
            levels=batch["levels"],
            check=False,
        )
        return objective(scores, beta=beta), reward_logs(scores, beta)

    return train(
        "align",
        policy,
        losses,
        validation,
        PreferenceSets(
            data.contexts("train"), negatives, seed, policy.moments_together
        ).with_negatives(),
        partial(collate_sets, policy),
        options,
        folder,
        seed,
        trackers,
    )


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
        "rewards/chosen": rewards[positives].mean(),
        "rewards/rejected": rewards[negatives].mean(),
        "rewards/margins": margins[pairs].mean(),
        "rewards/accuracies": (margins[pairs] > 0).float().mean(),
        "logps/chosen": scores.policy[positives].mean(),
        "logps/rejected": scores.policy[negatives].mean(),
        "kl": drift.mean(),
        "chosen/falling": (scores.log_ratios[positives] < 0).float().mean(),
        "negatives": negatives.sum(dim=1).float().mean(),
    }
