"""Preference objectives: pure functions of `CandidateScores` that return a loss per context."""

from collections.abc import Callable

from torch import Tensor

from palate.errors import ConfigError, did_you_mean
from palate.objectives.multi_negative import s_dpo
from palate.objectives.pairwise import dpo
from palate.objectives.scores import CandidateScores
from palate.objectives.set_wise import mult_dpo

# (scores, beta=…, further options by keyword) → (B,) loss in nats
Objective = Callable[..., Tensor]

OBJECTIVES: dict[str, Objective] = {
    "dpo": dpo,
    "s_dpo": s_dpo,
    "mult_dpo": mult_dpo,
}


def objective(name: str) -> Objective:
    """The objective of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"There is no objective {name!r}.{did_you_mean(name, OBJECTIVES)}")
    return OBJECTIVES[name]


__all__ = [
    "OBJECTIVES",
    "CandidateScores",
    "Objective",
    "dpo",
    "mult_dpo",
    "objective",
    "s_dpo",
]
