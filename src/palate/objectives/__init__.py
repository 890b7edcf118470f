"""Preference objectives: pure functions of `CandidateScores` that return a loss per context."""

from collections.abc import Callable
from importlib.metadata import entry_points

from torch import Tensor

from palate.objectives.multi_negative import dmpo, s_dpo
from palate.objectives.pairwise import dpo, lipo
from palate.objectives.scores import CandidateScores
from palate.objectives.set_wise import mult_dpo

# (scores, beta=…, further options by keyword) → (B,) loss in nats
Objective = Callable[..., Tensor]

OBJECTIVES: dict[str, Objective] = {
    "dpo": dpo,
    "lipo": lipo,
    "dmpo": dmpo,
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
    "dmpo",
    "dpo",
    "lipo",
    "mult_dpo",
    "objectives",
    "s_dpo",
]
