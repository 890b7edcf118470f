"""Collapse: an objective that gets better at what is easy, and the ranking worse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ADVICE = (
    "Easy negatives may carry the loss: compare with boundary negatives alone "
    "(align.dynamicpo={}), draw fewer or harder ones, or lower align.learning_rate."
)


class Collapse(NamedTuple):
    """What was seen: the step, and a sentence with the figures and what to change."""

    step: int
    message: str


class _Validation(NamedTuple):
    value: float  # greater is better
    error: float
    entries: int  # of the log before it


@dataclass
class CollapseMonitor:
    """Watches training for a loss that falls while the ranking gets worse.

    Two signs, either of which is reported once:

    * at the last two validations the metric was below its best by more than `metric_fall` of it
      and by more than two of its standard errors, and the loss, over half a window around each, is
      lower than it was at the best by `errors` standard errors;
    * the boundary margin, averaged over `window` entries, is below its highest such average by
      more than `margin_fall` and by more than `errors` standard errors, and the loss is lower than
      it was there by as many. The margin is taken as a share, boundary / (|boundary| + |easy|):
      scores that merely spread widen every margin in nats. A validation that is the best so far
      refutes this sign until the next one.

    The monitor keeps no tensors and reads no clock; feeding it the same log twice says the same.

    Args:
        window: entries of the log that are averaged.
        margin_fall: of the boundary margin as a share, which lies between -1 and 1.
        metric_fall: share of the best metric.
        errors: standard errors.
        greater_is_better: of the validation metric.
    """

    window: int = 10
    margin_fall: float = 0.02
    metric_fall: float = 0.05
    errors: float = 3.0
    greater_is_better: bool = True
    _entries: list[tuple[float, float]] = field(default_factory=list, repr=False)
    _validations: list[_Validation] = field(default_factory=list, repr=False)
    _reported: bool = field(default=False, repr=False)

    def training(
        self, step: int, loss: float, boundary_margin: float, easy_margin: float
    ) -> Collapse | None:
        """Take an entry of the training log; returns what it reveals, the first time.

        Args:
            step: of the entry.
            loss: mean since the entry before.
            boundary_margin: likewise, `boundary/margin`.
            easy_margin: likewise, `easy/margin`.
        """
        spread = abs(boundary_margin) + abs(easy_margin)
        self._entries.append((loss, boundary_margin / spread if spread else 0.0))
        return self._report(step, self._margin_falls())

    def validation(self, step: int, metric: float, error: float = 0.0) -> Collapse | None:
        """Take a validation metric; returns what it reveals, the first time.

        Args:
            step: of the validation.
            metric: its value.
            error: its standard error; 0 where it is not known.
        """
        value = metric if self.greater_is_better else -metric
        self._validations.append(_Validation(value, error, len(self._entries)))
        return self._report(step, self._metric_falls())

    def _metric_falls(self) -> str | None:
        if len(self._validations) < 3:
            return None
        best, *_ = sorted(self._validations[:-2], key=lambda one: -one.value)
        before, last = self._validations[-2:]
        limit = best.value - max(self.metric_fall * abs(best.value), 2 * last.error)
        then, now = self._losses_at(best), self._losses_at(last)
        if max(before.value, last.value) >= limit or _fall(then, now).in_errors <= self.errors:
            return None
        return (
            f"the validation metric got worse, from {abs(best.value):.4g} to "
            f"{abs(last.value):.4g}, while the loss fell from {_mean(then):.4g} to {_mean(now):.4g}"
        )

    def _losses_at(self, validation: _Validation) -> list[float]:
        half = self.window // 2
        end = max(validation.entries, half)  # before training: those that come first
        return [loss for loss, _ in self._entries[end - half : end]]

    def _margin_falls(self) -> str | None:
        if len(self._entries) < 2 * self.window:
            return None
        values = [one.value for one in self._validations]
        if values and values[-1] == max(values):
            return None
        margins = [margin for _, margin in self._entries]
        ends = range(self.window, len(margins) - self.window + 1)
        end = max(ends, key=lambda end: _mean(margins[end - self.window : end]))
        then, now = self._entries[end - self.window : end], self._entries[-self.window :]
        loss = _fall([loss for loss, _ in then], [loss for loss, _ in now])
        margin = _fall([margin for _, margin in then], [margin for _, margin in now])
        if margin.mean > self.margin_fall and min(margin.in_errors, loss.in_errors) > self.errors:
            was, is_now = (_mean([margin for _, margin in part]) for part in (then, now))
            return (
                "the margin to boundary negatives fell from "
                f"{was:.1%} to {is_now:.1%} of the spread of scores while the loss fell by "
                f"{loss.mean:.3g}"
            )
        return None

    def _report(self, step: int, seen: str | None) -> Collapse | None:
        if seen is None or self._reported:
            return None
        self._reported = True
        return Collapse(step, f"collapse at step {step}: {seen}. {ADVICE}")


class _Fall(NamedTuple):
    mean: float
    in_errors: float


def _fall(before: Sequence[float], after: Sequence[float]) -> _Fall:
    """How far a mean fell, and how many standard errors that is; none from fewer than two."""
    if min(len(before), len(after)) < 2:
        return _Fall(0.0, 0.0)
    difference = _mean(before) - _mean(after)
    error = math.sqrt(_variance(before) / len(before) + _variance(after) / len(after))
    return _Fall(difference, difference / error if error else math.copysign(math.inf, difference))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
