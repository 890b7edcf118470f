"""Alignment: preference optimisation against a frozen reference."""

import os
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palate.config import PoolConfig, TrainingOptions
from palate.data.prepared import Prepared
from palate.negatives.sampler import Mixture
from palate.objectives import CandidateScores
from palate.objectives.weighted_sum import WeightedSum
from palate.policies.policy import Policy
from palate.policies.reference import Cached, Reference
from palate.training.alignment_logs import alignment_logs
from palate.training.live_negatives import LiveNegatives, collate_undrawn
from palate.training.noise import Silence
from palate.training.preference_sets import PreferenceSets, asked_in_training, collate_sets
from palate.training.scored_pools import ScoredPools
from palate.training.trainer import (
    Stateful,
    Trained,
    Validation,
    planned_steps,
    train,
)


def align(
    policy: Policy,
    data: Prepared,
    negatives: Mixture,
    objective: WeightedSum,
    beta: float,
    reference: Reference,
    validation: Validation,
    options: TrainingOptions,
    folder: Path,
    seed: int,
    trackers: tuple[str, ...] = ("tensorboard",),
    together: int | None = None,
    pool: PoolConfig | None = None,
    stage: str = "align",
    log_q: Literal["centred", "plain"] | None = None,
) -> Trained:
    """Minimise a preference objective over contexts with liked items and drawn negatives.

    Args:
        policy: trained in place, left at its best checkpoint; without noise (see `noise`).
        data: prepared data.
        negatives: draws the candidates beside the positives.
        objective: candidate scores → loss per context, its β in it.
        beta: inverse temperature by which rewards are logged.
        reference: log-probabilities of the frozen policy.
        validation: metrics of the policy as it is.
        options: how to train.
        folder: the run folder.
        seed: names the order and the draws.
        trackers: what to log to.
        together: moments of one history that a pass reads, at most; None for the policy's own.
        pool: what negatives that ask the policy are chosen from; None for the default.
        log_q: whether and how softmax objectives are corrected for how often the samplers draw each
            item; see `AlignConfig.log_q`.
        stage: names the stage in the progress bar, in `train.jsonl` and among checkpoints.

    Returns:
        Optimiser steps made and steps between validations.

    Raises:
        ConfigError: the policy cannot be asked for such a pool, or its scores of one batch differ
            from one pass to the next.
        DataError: no training context gets a negative, or training diverged.
    """
    silence = Silence(policy, options.precision)
    contexts = data.contexts("train")
    sets = PreferenceSets(contexts, negatives, seed, policy, together).with_negatives(data.n_items)
    live, collate = None, partial(collate_sets, policy)
    states: dict[str, Stateful] = {"objective": objective}
    if negatives.live:
        collate = collate_undrawn
        pools = ScoredPools(policy, data, pool or PoolConfig()) if negatives.asks_policy else None
        live = LiveNegatives(negatives, policy, pools)
        states |= {} if pools is None else {"pools": pools}
    if isinstance(reference, Cached):
        _fill(reference, sets, policy, options, seed, live is not None)

    drawn_log_q = None if log_q is None else torch.from_numpy(negatives.log_q()).float()

    def losses(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}
        if live is not None:
            batch, seen = live.completed(batch["undrawn"], batch["step"])
        held_to = reference.log_probs(batch)  # may change the model's mode
        silence.before(batch, model)
        scored = policy.log_probs(batch, model)
        scores = CandidateScores(
            policy=scored.log_probs,
            reference=held_to,
            levels=batch["levels"],
            lengths=scored.lengths,
            log_q=None if drawn_log_q is None else _of_items(drawn_log_q, batch),
            centre_log_q=log_q != "plain",
            check=False,
            max_positives=batch["max_positives"],
        )
        parts = objective.parts(scores)
        total = objective.total(parts)
        # stops at the scores: the model is not walked through for it
        (gradient,) = torch.autograd.grad(total.sum(), scored.log_probs, retain_graph=True)
        return total, alignment_logs(objective, parts, scores, gradient, beta) | seen

    return train(
        stage,
        policy,
        losses,
        validation,
        sets,
        collate,
        options,
        folder,
        seed,
        trackers,
        states=states,
        watch_collapse=True,
    )


def _of_items(values: Tensor, batch: dict[str, Any]) -> Tensor:
    """(B, K) values of a batch's candidates; some item's at padding."""
    return values[torch.from_numpy(batch["asked"].item_ids)].to(batch["levels"].device)


def _fill(
    reference: Cached,
    sets: PreferenceSets,
    policy: Policy,
    options: TrainingOptions,
    seed: int,
    has_live: bool,
) -> None:
    """Let a cached reference compute what training will ask, or its `ahead` first epochs.

    Negatives that are drawn live are not known beforehand.
    """
    if has_live and policy.lists_candidates:
        return  # a score depends on all candidates shown
    per_epoch, steps = planned_steps(options, len(sets))
    epochs, further = divmod(steps, per_epoch)
    # several processes see other batches
    is_all = int(os.environ.get("WORLD_SIZE", "1")) == 1 and not has_live
    if reference.ahead is not None and (reference.ahead, 0) < (epochs, further):
        epochs, further, is_all = reference.ahead, 0, False
    batches = further * options.accumulate
    blocks = asked_in_training(sets, policy, options.batch_size, seed, epochs, batches)
    reference.fill(blocks, -(-len(sets) // options.batch_size), is_all)
