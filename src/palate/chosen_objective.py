"""The objective a configuration chooses: one or a weighted sum, wrapped or not."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from palate.config.training import AlignConfig
from palate.errors import ConfigError, did_you_mean
from palate.negatives import SAMPLERS
from palate.negatives.sampler import KNOWN_LOG_Q, unknown_log_q
from palate.objectives import CandidateScores, DynamicPO, objectives
from palate.objectives.batch_beta import BatchBeta
from palate.objectives.dynamicpo import ONE_POSITIVE, SET_WISE
from palate.objectives.weighted_sum import Term, WeightedSum, sft
from palate.options import read_options

IMITATION = "sft"
"""Name of the term that is no preference objective."""


def chosen_objective(options: AlignConfig) -> WeightedSum:
    """The objective of an `align` section, β and options filled in.

    A plain name is a sum of one term. `dynamicpo` and `batch_beta` wrap every term but the one of
    imitation.
    """
    return WeightedSum(
        {
            name: Term(weight, _term(name, options))
            for name, weight in weights_of(options.objective).items()
        }
    )


def weights_of(objective: str | Mapping[str, float]) -> dict[str, float]:
    """Name → weight of each term."""
    return {objective: 1.0} if isinstance(objective, str) else dict(objective)


def described(options: AlignConfig) -> str:
    """The objective in words, such as "1 mult_dpo + 0.1 sft, dynamicpo"."""
    weights = weights_of(options.objective)
    names = [f"{weight:g} {name}" if len(weights) > 1 else name for name, weight in weights.items()]
    wrapped = [key for key in ("dynamicpo", "batch_beta") if getattr(options, key) is not None]
    return ", ".join([" + ".join(names), *wrapped])


def objective_problems(align: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names and options of an `align` section, a sentence each.

    Args:
        align: its keys and values, of the right types where pydantic has not complained.
    """
    objective, options = align["objective"], align["objective_options"]
    if not isinstance(objective, str | dict) or not isinstance(options, dict):
        return []  # told by pydantic
    known = [*objectives(), IMITATION]
    names = [name for name in weights_of(objective) if isinstance(name, str)]
    problems = [
        f"align.objective: '{name}' is unknown.{did_you_mean(name, known)}"
        for name in names
        if name not in known
    ]
    if names == [IMITATION]:
        problems.append(
            "align.objective: sft alone aligns nothing. Add an objective, such as "
            "{mult_dpo: 1.0, sft: 0.1}."
        )
    for name, given in options.items():
        key = f"align.objective_options.{name}"
        if name not in names:
            problems.append(
                f"{key}: '{name}' is not in align.objective, which has {', '.join(names)}. Leave "
                "the options out with --set align.objective_options={}."
            )
        elif name == IMITATION and given:
            problems.append(f"{key}: sft has no options.")
        elif name in objectives():
            problems += _read(name, given)[1] or _refused(name, given)
    if align.get("log_q") is not None:
        problems += _without_log_q(names, align["negatives"])
    if align["dynamicpo"] is not None and align["batch_beta"] is not None:
        problems.append(
            "align.dynamicpo and align.batch_beta both choose beta; leave one of them out."
        )
    return problems


def _term(name: str, options: AlignConfig) -> Callable[[CandidateScores], Tensor]:
    if name == IMITATION:
        return sft
    read, _ = _read(name, options.objective_options.get(name, {}))
    objective = objectives()[name]
    if options.dynamicpo is not None:
        base = name if name in ONE_POSITIVE or name in SET_WISE else objective
        return DynamicPO(base, options.beta, **options.dynamicpo.model_dump(), options=read)
    if options.batch_beta is not None:
        return BatchBeta(objective, options.beta, **options.batch_beta.model_dump(), options=read)
    return partial(objective, beta=options.beta, **read)


def _refused(name: str, given: Any) -> list[str]:
    """What the objective itself says of its options, asked on one pair before any training."""
    pair = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 0]]))
    try:
        objectives()[name](pair, **_read(name, given)[0])
    except ConfigError as error:
        return [f"align.objective_options.{name}: {error}"]
    return []


def _without_log_q(names: list[str], negatives: Any) -> list[str]:
    """What is wrong where a correction for the samplers is asked for."""
    pair = CandidateScores(
        torch.zeros(1, 2), levels=torch.tensor([[1, 0]]), log_q=torch.zeros(1, 2)
    )
    problems = []
    for name in names:
        try:
            if name in objectives():
                objectives()[name](pair)
        except ConfigError as error:
            problems.append(f"align.log_q: {error}")
    drawn = negatives if isinstance(negatives, Mapping) else {}
    unknown = [name for name in drawn if name in SAMPLERS and name not in KNOWN_LOG_Q]
    return [*problems, *map(unknown_log_q, unknown)]


def _read(name: str, given: Any) -> tuple[dict[str, Any], list[str]]:
    key = f"align.objective_options.{name}"
    if not isinstance(given, Mapping):
        return {}, [f"{key}: expected options such as {{lambda_weights: true}}; found {given!r}."]
    return read_options(
        objectives()[name], given, f"objective '{name}'", lambda option: f"{key}.{option}", first=2
    )
