"""The scores of a batch of candidates: what every objective reads."""

import math
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from palate.errors import ConfigError
from palate.objectives.checks import check_tensors, check_values, lacking


@dataclass(frozen=True, eq=False)
class CandidateScores:
    """Log-probabilities and levels of K candidates in each of B contexts.

    On construction a candidate of weight 0 becomes padding, half precision becomes float32
    (float64 is kept), padding becomes 0 whatever it held, a score that is not finite becomes NaN,
    and all but the policy is detached. `dtype`s may differ; arithmetic takes the wider one.

    Pairs are laid out as (B, P, K): P places hold the positives of a context, in the order of
    their columns, and K its candidates. P is the most positives of any context where the host
    knows it, else K; further places are empty.

    Args:
        policy: (B, K) log π_θ(e|x). Values above 0 are legal.
        reference: (B, K) log π_ref(e|x), or None for a reference-free loss: then h = s.
        levels: (B, K) integers: 0 negative, 1 and more preferred (larger is better), -1 padding.
            All from here on by keyword.
        lengths: (B, K) tokens of each candidate, above 0; for objectives that average over tokens.
            None, where a candidate is one token (an item id), is 1 everywhere.
        weights: (B, K) at least 0: of a negative, how credible it is as one; of a positive, how
            sure the preference is. Only ratios of positives count. None is 1 everywhere.
        log_q: (B, K) log-probability with which each negative was drawn, up to a constant where
            it is centred; not read elsewhere. For softmax objectives, which a sampler would bias.
            None is uniform.
        centre_log_q: True (default): what is subtracted is log q_i + log mean_j exp(−log q_j), so
            that a constant log_q changes nothing, and with one negative nothing is removed. False:
            it is log q_i as it is, which must then be the true log-probability (of all draws
            together: the log of how often the item is drawn, on average).
        check: also check the values, at the price of one synchronisation with the host here and
            one more in each objective. With False an unusable context has the loss NaN.
            Default True.
        max_positives: most positives of any context, where the caller knows it; spares a device
            without checks the work for K positives. None (default) finds it out if that is free.

    Raises:
        DataError: the tensors do not fit together; with `check`, a level below -1, a score that
            is not finite outside the padding, a length or weight out of range, or a context
            without two distinct levels.
    """

    policy: Tensor
    reference: Tensor | None = None
    levels: Tensor = field(kw_only=True)
    lengths: Tensor | None = field(default=None, kw_only=True)
    weights: Tensor | None = field(default=None, kw_only=True)
    log_q: Tensor | None = field(default=None, kw_only=True)
    centre_log_q: bool = field(default=True, kw_only=True)
    check: bool = field(default=True, kw_only=True)
    max_positives: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_tensors(self)
        if self.weights is not None:
            self._set("levels", self.levels.masked_fill(self.weights == 0, -1))
        if self.check:
            check_values(self)
        self._set("policy", self._cleaned(self.policy))
        for name in ("reference", "weights", "log_q"):
            values = getattr(self, name)
            if values is not None:
                self._set(name, self._cleaned(values.detach()))

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

    @property
    def per_token(self) -> Tensor:
        """(B, K) s / length, in nats per token; 0 at padding."""
        if self.lengths is None:
            return self.policy
        usable = self.lengths > 0
        lengths = self.lengths.masked_fill(~usable, 1)
        return (self.policy / lengths).masked_fill(self.real & ~usable, math.nan)

    @cached_property
    def places(self) -> Tensor:
        """(B, P) the column of the positive in each place; some other column in an empty one."""
        bound, width = self._positives_at_most(), self.levels.shape[1]
        if bound == width:
            return torch.arange(width, device=self.levels.device).expand(self.levels.shape)
        order = self.positives.byte().sort(dim=1, descending=True, stable=True).indices
        return order[:, :bound]

    @cached_property
    def filled(self) -> Tensor:
        """(B, P) true where a place holds a positive."""
        return self.of_positives(self.positives)

    def of_positives(self, values: Tensor) -> Tensor:
        """The values (B, K) or (B, K, K) of the positives: (B, P) or (B, P, K)."""
        if values.ndim == 2:
            return values.gather(1, self.places)
        return values.gather(1, self.places[:, :, None].expand(-1, -1, values.shape[2]))

    def pair_mask(self) -> Tensor:
        """(B, P, K) true at [b, p, i] where p holds a positive and i is a negative."""
        return self.filled[:, :, None] & self.negatives[:, None, :]

    def pair_margins(self, values: Tensor | None = None) -> Tensor:
        """(B, P, K) v_p − v_e at [b, p, e], for every p and e; v is h unless (B, K) are given."""
        values = self.log_ratios if values is None else values
        return self.of_positives(values)[:, :, None] - values[:, None, :]

    def mean_over_negatives(self, per_pair: Tensor) -> Tensor:
        """The mean of a (B, P, K) tensor over the negatives, by their weights: (B, P)."""
        return self.sum_over_negatives(per_pair) / self._negative_mass

    def sum_over_negatives(self, per_pair: Tensor) -> Tensor:
        """The sum of a (B, P, K) tensor over the negatives, times their weights: (B, P)."""
        if self.weights is not None:
            per_pair = per_pair * self.weights[:, None, :]
        return per_pair.masked_fill(~self.pair_mask(), 0.0).sum(dim=2)

    def mean_over_positives(self, per_positive: Tensor) -> Tensor:
        """The mean of a (B, P) tensor over the positives of each context, by their weights.

        What it holds in empty places is not read. A context with no positive or no negative
        yields NaN and no gradient: a batch that was not checked must not look like a loss of 0.

        Returns:
            (B,)
        """
        filled = self.filled
        if self.weights is None:
            total = per_positive.masked_fill(~filled, 0.0).sum(dim=1)
            mean = total / filled.sum(dim=1).clamp(min=1)
        else:
            shares = self.of_positives(self.weights).masked_fill(~filled, 0.0)
            total = (per_positive * shares).masked_fill(~filled, 0.0).sum(dim=1)
            mean = total / shares.sum(dim=1).masked_fill(~filled.any(dim=1), 1.0)
        usable = self.positives.any(dim=1) & self.negatives.any(dim=1)
        return mean.masked_fill(~(usable & self.all_in_places), math.nan)

    @cached_property
    def log_masses(self) -> Tensor | None:
        """(B, K) what softmax objectives add to β h: log weight − correction at negatives, else 0.

        The correction of a negative i is log q_i + log mean_j exp(−log q_j), over all negatives j:
        0 for uniform draws; or log q_i alone, where it is not centred. None where there is nothing
        to add.
        """
        if "_inherited_masses" in self.__dict__:
            return self.__dict__["_inherited_masses"]
        added = None
        if self.weights is not None:
            added = self.weights.masked_fill(~self.negatives, 1.0).log()
        if self.log_q is not None:
            correction = self.log_q + self._log_mean_inverse_q if self.centre_log_q else self.log_q
            correction = correction.masked_fill(~self.negatives, 0.0)
            added = -correction if added is None else added - correction
        return added

    def softmax_exponents(self, betas: float | Tensor) -> Tensor:
        """(B, P, K) β (h_e − h_p), plus the log mass of a negative e: exponents of a softmax.

        Args:
            betas: a scalar, (B, 1, K) or (B, P, K).
        """
        exponents = -betas * self.pair_margins()
        return exponents if self.log_masses is None else exponents + self.log_masses[:, None, :]

    def require_positive_and_negative(self) -> None:
        """Raise a DataError for the first context without level 0 or without a level above it.

        Does nothing where the values are not checked (`check=False`).
        """
        if self.check:
            missing = ~(self.positives.any(dim=1) & self.negatives.any(dim=1))
            if missing.any():
                raise lacking(self.levels, int(missing.nonzero()[0]))

    def refuse_log_q(self, objective: str) -> None:
        """Raise a ConfigError where `log_q` is given to an objective without a softmax."""
        if self.log_q is not None:
            raise ConfigError(
                f"log_q corrects a softmax over negatives, which {objective} has not. Leave log_q "
                "out, or use s_dpo, mult_dpo or pl_dpo."
            )

    def one_positive_each(self, negatives: Tensor) -> "CandidateScores":
        """Each positive with negatives of its own, as a context: (B·P, K), one positive or none.

        Values are not checked again, and the correction for `log_q` stays that of all negatives.

        Args:
            negatives: (B, P, K) true at the negatives of each positive.
        """
        places, width = self.places.shape[1], self.levels.shape[1]

        def repeated(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.repeat_interleave(places, dim=0)

        own = torch.zeros_like(negatives).scatter(2, self.places[:, :, None], True)
        own &= self.filled[:, :, None]
        levels = own.long().masked_fill(~own & ~negatives, -1).reshape(-1, width)
        rows = self._copy()
        for name in ("policy", "reference", "lengths", "weights", "log_q"):
            rows._set(name, repeated(getattr(self, name)))
        rows._set("_inherited_masses", repeated(self.log_masses))
        rows._set("levels", levels)
        object.__setattr__(rows, "check", False)
        object.__setattr__(rows, "max_positives", 1)
        return rows

    def in_float64(self) -> "CandidateScores":
        """The same scores in float64, not checked again."""
        wide = self._copy()
        for name in ("policy", "reference", "weights", "log_q", "_inherited_masses"):
            if (values := wide.__dict__.get(name)) is not None:
                wide._set(name, values.double())
        return wide

    @property
    def _log_mean_inverse_q(self) -> Tensor:
        """(B, 1) log mean exp(−log q) over the negatives of each context."""
        assert self.log_q is not None
        inverse = (-self.log_q).masked_fill(~self.negatives, -math.inf)
        empty = ~self.negatives.any(dim=1, keepdim=True)
        total = inverse.masked_fill(empty, 0.0).logsumexp(dim=1, keepdim=True)
        count = self.negatives.sum(dim=1, keepdim=True).clamp(min=1)
        return total - count.to(total.dtype).log()

    @cached_property
    def _negative_mass(self) -> Tensor:
        """(B, 1) number of negatives, or the sum of their weights; 1 where there is none."""
        if self.weights is None:
            return self.negatives.sum(dim=1, keepdim=True).clamp(min=1)
        mass = self.weights.masked_fill(~self.negatives, 0.0).sum(dim=1, keepdim=True)
        return mass.masked_fill(~self.negatives.any(dim=1, keepdim=True), 1.0)

    @cached_property
    def all_in_places(self) -> Tensor:
        """(B,) false where a context has more positives than `max_positives` promised."""
        return self.filled.sum(dim=1) == self.positives.sum(dim=1)

    def _positives_at_most(self) -> int:
        if self.max_positives is not None:
            return min(max(self.max_positives, 1), self.levels.shape[1])
        if self.check or self.levels.device.type == "cpu":
            return max(int(self.positives.sum(dim=1).amax()), 1)
        return self.levels.shape[1]

    def _cleaned(self, scores: Tensor) -> Tensor:
        wide = scores if scores.dtype == torch.float64 else scores.float()
        return _Cleaned.apply(wide, self.real)

    def _copy(self) -> "CandidateScores":
        copied = object.__new__(CandidateScores)
        kept = [one.name for one in fields(self)] + ["_inherited_masses"]
        copied.__dict__.update(
            {name: self.__dict__[name] for name in kept if name in self.__dict__}
        )
        return copied

    def _set(self, name: str, value: Tensor | None) -> None:
        object.__setattr__(self, name, value)


class _Cleaned(torch.autograd.Function):
    """What is not finite becomes NaN, and padding 0; neither has a gradient.

    It keeps its masks itself. Those of `masked_fill` are freed by the first backward pass, and all
    objectives that read one `CandidateScores` share this step of the graph.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, real: Tensor) -> Tensor:
        return scores.masked_fill(~scores.isfinite(), math.nan).masked_fill(~real, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        scores, real = inputs
        ctx.kept = scores.isfinite() & real

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].masked_fill(~ctx.kept, 0.0), None


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
