"""How many of a run's negatives are false: items that the person would like."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.config import RunConfig, source_arguments
from palate.data.prepared import sample_contexts
from palate.data.simulator import Simulation
from palate.evaluation.false_negatives import LikedLater, WouldLike
from palate.negatives import mixture
from palate.run_folder import prepared
from palate.training.holdout import split_training

FROM_THE_LOG = ("uniform", "popularity", "observed")
"""Samplers that need nothing but the prepared data; others ask the policy, or a file."""
CONTEXTS = 500


@dataclass(frozen=True)
class FalseNegatives:
    """Shares of false negatives.

    Attributes:
        shares: sampler → (share of its negatives that are false, how many were drawn).
        is_truth: whether the simulator's truth was asked; otherwise only what the log shows later,
            which is a lower bound.
        left_out: samplers of the run that cannot be asked without the policy or a file.
    """

    shares: dict[str, tuple[float, int]]
    is_truth: bool
    left_out: list[str]


def false_negatives(folder: Path, config: RunConfig) -> FalseNegatives:
    """What a run's samplers draw in the first epoch for a sample of its training contexts.

    Args:
        folder: a run folder that holds its data.
        config: its configuration.
    """
    data, options = prepared(config, folder), config.align
    contexts = sample_contexts(
        split_training(data, options.holdout)[1].contexts("train"),
        CONTEXTS,
        config.seed,
        "false negatives",
    )
    is_truth = config.data.source == "simulate"
    known = (
        WouldLike(data, Simulation(**source_arguments(config)), config.data.liked_from)
        if is_truth
        else LikedLater(data)
    )
    shares = {}
    asked = {name: n for name, n in options.negatives.items() if name in FROM_THE_LOG}
    for name, count in asked.items():
        given = {n: o for n, o in options.sampler_options.items() if n == name}
        alone = mixture({name: count}, data, options.exclude_history, given)
        drawn = np.full((len(contexts), count), -1)
        for row, context in enumerate(contexts):
            found = alone.draw(context, (config.seed, 0))
            drawn[row, : len(found)] = found
        total = int((drawn >= 0).sum())
        if total:
            share = float(known(list(contexts), drawn).sum()) / total
            shares[name] = (share, total)
    left_out = [name for name in options.negatives if name not in asked]
    return FalseNegatives(shares, is_truth, left_out)
