"""Preference objectives: pure functions of `CandidateScores` that return a loss per context."""

from collections.abc import Callable

from torch import Tensor

from palate.objectives.dynamicpo import DynamicPO
from palate.objectives.multi_negative import dmpo, mppo, s_dpo
from palate.objectives.pairwise import dpo, ipo, lipo, simpo
from palate.objectives.scores import CandidateScores
from palate.objectives.set_wise import mult_dpo, pl_dpo, setwise_bound_gap
from palate.plugins import plugins

# (scores, beta=…, further options by keyword) → (B,) loss in nats
Objective = Callable[..., Tensor]

OBJECTIVES: dict[str, Objective] = {
    "dpo": dpo,
    "ipo": ipo,
    "simpo": simpo,
    "lipo": lipo,
    "dmpo": dmpo,
    "mppo": mppo,
    "s_dpo": s_dpo,
    "mult_dpo": mult_dpo,
    "pl_dpo": pl_dpo,
}


def objectives() -> dict[str, Objective]:
    """All objectives by name: those of `OBJECTIVES` and of the entry points `palate.objectives`."""
    return {**plugins("palate.objectives"), **OBJECTIVES}


__all__ = [
    "OBJECTIVES",
    "CandidateScores",
    "DynamicPO",
    "Objective",
    "dmpo",
    "dpo",
    "ipo",
    "lipo",
    "mppo",
    "mult_dpo",
    "objectives",
    "pl_dpo",
    "s_dpo",
    "setwise_bound_gap",
    "simpo",
]
