"""Preference objectives: pure functions of `CandidateScores` that return a loss per context."""

from collections.abc import Callable
from importlib.metadata import entry_points

from torch import Tensor

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


def objectives() -> dict[str, Objective]:
    """All objectives by name: those of `OBJECTIVES` and of the entry points `palate.objectives`."""
    found = {entry.name: entry.load() for entry in entry_points(group="palate.objectives")}
    return {**found, **OBJECTIVES}


__all__ = [
    "OBJECTIVES",
    "CandidateScores",
    "Objective",
    "dpo",
    "mult_dpo",
    "objectives",
    "s_dpo",
]
