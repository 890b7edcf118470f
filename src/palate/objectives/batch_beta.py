"""β-DPO (arXiv 2407.08639): one β for each batch, by how its margin compares with earlier ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palate.errors import ConfigError
from palate.objectives.checks import is_finite_number
from palate.objectives.pairwise import dpo
from palate.objectives.scores import CandidateScores

FLOOR = 1e-3
"""Least β of a batch."""


@dataclass(eq=False)
class BatchBeta:
    """An objective whose β follows the margin of each batch.

    β = max(1e-3, β₀ (1 + α (margin − running margin))): batches that are easy for their time (wide
    margins, where the labels say little) are held nearer to the reference.    arXiv 2407.08639

    The margin of a batch is the mean of h_p − h_i over its pairs, contexts weighing alike, without
    gradient. The running margin is that of the batches before it, m · running + (1 − m) · margin;
    it starts at the first batch's, whose β is β₀. (The released code averages a batch in before it
    compares, starts at 0, pools all processes, and trains on a sample of each batch.) It is a
    state: `state_dict` and `load_state_dict` carry it over a restart, and each process follows its
    own batches.

    Args:
        base: objective that takes one β, a tensor without dimensions. Default `dpo`.
        beta: β₀, > 0. Default 0.1, the paper's.
        alpha: α, how strongly β follows, in 1/nats, at least 0. Default 0.6, the paper's.
        momentum: m, at least 0 and below 1. Default 0.9, the paper's.
        options: passed on to the base.

    Raises:
        ConfigError: a number is out of range.
    """

    base: Callable[..., Tensor] = dpo
    beta: float = 0.1
    alpha: float = 0.6
    momentum: float = 0.9
    options: dict[str, Any] = field(default_factory=dict)
    running_margin: Tensor | None = field(default=None, init=False)
    last_beta: Tensor = field(init=False)

    def __post_init__(self) -> None:
        for name, fits, wanted in (
            ("beta", lambda value: value > 0, "a number above 0"),
            ("alpha", lambda value: value >= 0, "a number of at least 0"),
            ("momentum", lambda value: 0 <= value < 1, "at least 0 and below 1"),
        ):
            value = getattr(self, name)
            if not (is_finite_number(value) and fits(value)):
                raise ConfigError(f"{name} is {value!r}. Expected {wanted}.")
        self.last_beta = torch.tensor(self.beta)

    def __call__(self, scores: CandidateScores) -> Tensor:
        """(B,) loss per context of one batch; the running margin moves on."""
        scores.require_positive_and_negative()
        with torch.no_grad():
            margins = scores.mean_over_positives(scores.mean_over_negatives(scores.pair_margins()))
            margin = margins.nanmean()  # of unchecked scores a broken context has NaN, alone
            running = margin if self.running_margin is None else self.running_margin.to(margin)
            before = torch.where(running.isnan(), margin, running)
            change = (margin - before).nan_to_num(0.0)
            beta = (self.beta * (1 + self.alpha * change)).clamp(min=FLOOR)
            moved = self.momentum * before + (1 - self.momentum) * margin
            self.running_margin = torch.where(margin.isnan(), before, moved)
            self.last_beta = beta
        return self.base(scores, beta, **self.options)

    def state_dict(self) -> dict[str, float | None]:
        """What a restart needs; reading it synchronises with the device."""
        running = self.running_margin
        margin = math.nan if running is None else float(running)
        return {"running_margin": None if math.isnan(margin) else margin}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Go on from a former `state_dict`."""
        running = state["running_margin"]
        self.running_margin = (
            None if running is None else torch.tensor(running, dtype=torch.float64)
        )
