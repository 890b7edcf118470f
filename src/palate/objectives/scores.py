"""The scores of a batch of candidates: what every objective reads, and how it is checked."""

import math
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from palate.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class CandidateScores:
    """Log-probabilities and levels of K candidates in each of B contexts.

    On construction half precision becomes float32 (float64 is kept), padding becomes 0 whatever
    it held, a score that is not finite becomes NaN, and the reference is detached. `dtype`s may
    differ; arithmetic takes the wider one.

    Args:
        policy: (B, K) log π_θ(e|x). Values above 0 are legal.
        reference: (B, K) log π_ref(e|x), or None for a reference-free loss: then h = s.
        levels: (B, K) integers: 0 negative, 1 and more preferred (larger is better), -1 padding.
            By keyword.
        check: also check the values, at the price of one synchronisation with the host here and
            one more in each objective. With False an unusable context has the loss NaN.
            By keyword; default True.

    Raises:
        DataError: the tensors do not fit together; with `check`, a level below -1, a score that
            is not finite outside the padding, or a context without two distinct levels.
    """

    policy: Tensor
    reference: Tensor | None = None
    levels: Tensor = field(kw_only=True)
    check: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        self._check_tensors()
        if self.check:
            self._check_values()
        object.__setattr__(self, "policy", self._cleaned(self.policy))
        if self.reference is not None:
            object.__setattr__(self, "reference", self._cleaned(self.reference.detach()))

    @property
    def real(self) -> Tensor:
        """(B, K) true where a candidate stands, false at padding."""
        return self.levels >= 0

    @property
    def positives(self) -> Tensor:
        """(B, K) true at level 1 and above."""
        return self.levels > 0

    @property
    def negatives(self) -> Tensor:
        """(B, K) true at level 0."""
        return self.levels == 0

    @property
    def log_ratios(self) -> Tensor:
        """(B, K) h = s − r, in nats; s without a reference; 0 at padding."""
        return self.policy if self.reference is None else self.policy - self.reference

    def pair_mask(self) -> Tensor:
        """(B, K, K) true at [b, p, i] where p is a positive and i a negative."""
        return self.positives[:, :, None] & self.negatives[:, None, :]

    def pair_margins(self) -> Tensor:
        """(B, K, K) h_p − h_i at [b, p, i], for every p and i; finite at padding."""
        h = self.log_ratios
        return h[:, :, None] - h[:, None, :]

    def mean_over_positives(self, per_positive: Tensor) -> Tensor:
        """The mean of a (B, K) tensor over the positives of each context.

        What it holds elsewhere is not read. A context with no positive or no negative yields NaN
        and no gradient: a batch that was not checked must not look like a loss of 0.

        Returns:
            (B,)
        """
        positives = self.positives
        total = per_positive.masked_fill(~positives, 0.0).sum(dim=1)
        usable = positives.any(dim=1) & self.negatives.any(dim=1)
        return (total / positives.sum(dim=1).clamp(min=1)).masked_fill(~usable, math.nan)

    def require_positive_and_negative(self) -> None:
        """Raise a DataError for the first context without level 0 or without a level above it.

        Does nothing where the values are not checked (`check=False`).
        """
        if self.check:
            lacking = ~(self.positives.any(dim=1) & self.negatives.any(dim=1))
            if lacking.any():
                raise self._lacks(int(lacking.nonzero()[0]))

    def _cleaned(self, scores: Tensor) -> Tensor:
        wide = scores if scores.dtype == torch.float64 else scores.float()
        return wide.masked_fill(~wide.isfinite(), math.nan).masked_fill(~self.real, 0.0)

    def _check_tensors(self) -> None:
        given = {"policy": self.policy, "reference": self.reference, "levels": self.levels}
        if self.reference is None:
            del given["reference"]
        for name, tensor in given.items():
            if not isinstance(tensor, Tensor):
                kind = type(tensor).__name__
                raise DataError(f"{name} is a {kind}. Expected a (B, K) tensor: torch.tensor(…).")
            if tensor.shape != self.policy.shape or tensor.device != self.policy.device:
                raise DataError(
                    f"{name} has shape {tuple(tensor.shape)} on {tensor.device}, but policy has "
                    f"{tuple(self.policy.shape)} on {self.policy.device}. "
                    "Pass one (B, K) tensor for each, on one device."
                )
            if name != "levels" and not tensor.is_floating_point():
                raise DataError(
                    f"{name} has dtype {tensor.dtype}. Expected log-probabilities in floating "
                    f"point: pass {name}.float()."
                )
        if self.policy.ndim != 2 or self.policy.numel() == 0:
            raise DataError(
                f"policy has shape {tuple(self.policy.shape)}. Expected (B, K): at least one "
                "context by its candidates; for a single context pass policy[None]."
            )
        if self.levels.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
            raise DataError(
                f"levels has dtype {self.levels.dtype}. Expected signed integers, -1 for padding, "
                "0 for a negative, 1 and more for a positive: pass levels.long()."
            )

    def _check_values(self) -> None:
        levels, real = self.levels, self.real
        unknown = levels < -1
        highest = levels.amax(dim=1)
        lowest = torch.where(real, levels, highest[:, None]).amin(dim=1)
        one_level = highest <= lowest
        scores = {"policy": self.policy}
        if self.reference is not None:
            scores["reference"] = self.reference
        not_finite = {name: real & ~score.isfinite() for name, score in scores.items()}
        flags = [unknown.any(), one_level.any(), *(mask.any() for mask in not_finite.values())]
        if not torch.stack(flags).any():  # the one synchronisation
            return

        if unknown.any():
            row, column = unknown.nonzero()[0].tolist()
            raise DataError(
                f"Level {int(levels[row, column])} of context {row}, candidate {column} has no "
                "meaning. Use -1 for padding, 0 for a negative, 1 and more for a positive."
            )
        for name, mask in not_finite.items():
            if mask.any():
                row, column = mask.nonzero()[0].tolist()
                raise DataError(
                    f"The {name} score of context {row}, candidate {column} is "
                    f"{float(scores[name][row, column])}. Expected a finite log-probability. "
                    "Find out where it arose, or give the candidate level -1 to leave it out."
                )
        raise self._lacks(int(one_level.nonzero()[0]))

    def _lacks(self, row: int) -> DataError:
        found = sorted(set(self.levels[row][self.real[row]].tolist()))
        if not found:
            return DataError(
                f"Context {row} has no candidates: all of its levels are -1 (padding). "
                "Leave it out, or give it at least one positive and one negative."
            )
        lack, wanted = ("negative", "level 0") if found[0] > 0 else ("positive", "level 1 or more")
        levels = ("levels " if len(found) > 1 else "level ") + ", ".join(map(str, found))
        return DataError(
            f"Context {row} has no {lack}: its candidates have {levels}. "
            f"Add a candidate of {wanted}, or leave the context out."
        )


def scalar_beta(scores: CandidateScores, beta: float | Tensor) -> float | Tensor:
    """One inverse temperature for all pairs, checked.

    Args:
        beta: a number or a tensor of no dimensions. A tensor's value is checked only where
            `scores` are, since that synchronises.

    Raises:
        ConfigError: beta is not one finite number above 0.
    """
    if isinstance(beta, Tensor):
        if beta.ndim != 0:
            raise ConfigError(
                f"beta has shape {tuple(beta.shape)}, but one value for all candidates is "
                "expected here. Pass a number above 0, such as beta=1.0."
            )
        if scores.check:
            _checked_beta(beta.item())
        return beta
    return _checked_beta(beta)


def pair_beta(scores: CandidateScores, beta: float | Tensor) -> float | Tensor:
    """β in a form that multiplies `pair_margins()`: a scalar, or (B, 1, K) from (B, K).

    Args:
        beta: a scalar, or (B, K) with one value per negative; not read at other candidates.

    Raises:
        ConfigError: a value that is used is not a finite number above 0, or the shape is another.
    """
    if not isinstance(beta, Tensor) or beta.ndim == 0:
        return scalar_beta(scores, beta)
    if beta.shape != scores.levels.shape:
        raise ConfigError(
            f"beta has shape {tuple(beta.shape)}. Expected a number, such as beta=1.0, or one "
            f"value per candidate in shape {tuple(scores.levels.shape)}."
        )
    if scores.check:
        wrong = scores.negatives & ~((beta > 0) & beta.isfinite())
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            _checked_beta(beta[row, column].item(), f" of context {row}, candidate {column}")
    used = beta.to(scores.log_ratios.dtype).masked_fill(~scores.negatives, 1.0)
    return used[:, None, :]


def _checked_beta(beta: object, where: str = "") -> float:
    if isinstance(beta, Real) and not isinstance(beta, bool):
        value = float(beta)
        if 0 < value < math.inf:
            return value
    raise ConfigError(
        f"beta{where} is {beta!r}, but it must be a finite number above 0. "
        "Type beta=1.0, or another positive value."
    )


def masked_logsumexp(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    """log Σ exp over the entries where `mask` is true; −inf, without gradient, where none is.

    What the other entries hold (NaN included) touches neither value nor gradient.

    Returns:
        `values` reduced over `dim`.
    """
    empty = ~mask.any(dim=dim, keepdim=True)
    # logsumexp of nothing but −inf has the gradient NaN in some versions: an empty row is 0 here
    filled = values.masked_fill(~mask, -math.inf).masked_fill(empty, 0.0)
    return filled.logsumexp(dim=dim).masked_fill(empty.squeeze(dim), -math.inf)
