"""Imitation: supervised fine-tuning on each next item of the training histories."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from palate.config import TrainingOptions
from palate.data.prepared import Prepared
from palate.negatives import mixture
from palate.policies.policy import Policy
from palate.training.preference_sets import (
    Histories,
    Imitations,
    collate_sets,
    collate_windows,
)
from palate.training.trainer import Trained, Validation, train

SHOWN = 19
"""Items drawn beside the true one where a prompt lists candidates: the published protocol's."""


def imitate(
    stage: str,
    policy: Policy,
    data: Prepared,
    validation: Validation,
    options: TrainingOptions,
    folder: Path,
    seed: int,
    trackers: tuple[str, ...] = ("tensorboard",),
    early_stopping: bool = True,
    validate_every: int | None = None,
) -> Trained:
    """Minimise −log π(next item | history) over all training interactions, liked or not.

    Where the policy can, one pass over a history learns all its items; otherwise each target is
    read with a prompt of its own.

    Args:
        stage: "sft" or "sft_continued".
        policy: trained in place, left at its best checkpoint.
        data: prepared data.
        validation: metrics of the policy as it is.
        options: how to train.
        folder: the run folder.
        seed: names the order and the draws.
        trackers: what to log to.
        early_stopping: stop when validation no longer improves.
        validate_every: steps between validations; by default from `options.evaluations`.

    Returns:
        Optimiser steps made and steps between validations.
    """
    if policy.learns_whole_histories:
        dataset: Any = Histories(policy, data.training_histories)
        collate: Any = partial(collate_windows, policy)

        def losses(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            return policy.history_losses(batch, model), {}
    else:
        shown = mixture({"uniform": SHOWN}, data) if policy.lists_candidates else None
        dataset = Imitations(*data.imitation_contexts(), shown, seed)
        collate = partial(collate_sets, policy)

        def losses(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            return -policy.log_probs(batch, model).log_probs[:, 0], {}

    return train(
        stage,
        policy,
        losses,
        validation,
        dataset,
        collate,
        options,
        folder,
        seed,
        trackers,
        early_stopping,
        validate_every,
    )
