"""DynamicPO (arXiv 2605.00327): negatives at the decision boundary, and a β for each of them.

A positive p is compared with its *boundary* negatives alone: those the policy scores at least as
high, or where there is none the topmost of three clusters of negatives. The others are easy, and
in a mean they would take most of the gradient. Selection and β read the policy's log-probability
s; the objective that is wrapped reads what it always reads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palate.errors import ConfigError, did_you_mean
from palate.objectives.beta import scalar_beta
from palate.objectives.checks import is_finite_number
from palate.objectives.multi_negative import dmpo, mppo, s_dpo
from palate.objectives.pairwise import dpo, ipo, lipo, simpo
from palate.objectives.scores import CandidateScores
from palate.objectives.set_wise import mult_dpo, pl_dpo

ONE_POSITIVE = {"dpo": dpo, "ipo": ipo, "simpo": simpo, "dmpo": dmpo, "mppo": mppo, "s_dpo": s_dpo}
"""Objectives of one positive, with β per negative."""
REFERENCE_FREE = ("simpo", "mppo", simpo, mppo)
SET_WISE = {"lipo": lipo, "mult_dpo": mult_dpo, "pl_dpo": pl_dpo}
"""Objectives of sets, with β per pair."""

STRIP = 32
"""Cuts that are tried together: a table of them stays in the processor's cache."""
SAME_COST = 1e-12
"""Share of the squares that were summed by which two cuts count as equally good, for rounding."""


@dataclass(frozen=True)
class DynamicPO:
    """An objective restricted to boundary negatives, with a β for each by two margins.

    For each positive p (arXiv 2605.00327):

    1. B = {i : s_i ≥ s_p}; if empty, the top group of an exact three-means clustering of the
       negatives' s. D is the rest, or B itself where nothing is left.
    2. Δ₁ = s_p − s_i, Δ₂ = s_i − mean_D s,
       β_i = β (1 + scale · tanh((Δ₁ − Δ₂ − margin) / (|Δ₁| + |Δ₂|))), without gradient.
    3. the base over B only, with β_i on the pair (p, i).

    Objectives of one positive are averaged over the positives, by their weights. In `lipo`,
    `mult_dpo` and `pl_dpo` each positive keeps its own boundary negatives among level 0, and pairs
    of positives keep β. There is no loop over the batch and no synchronisation with the host.

    Args:
        base: name of an objective, or a function (scores, beta (B, K) tensor, **options) → (B,)
            that is defined for one positive and any negatives. Default "dmpo".
        beta: β before the margins, > 0. Default 1, the paper's.
        margin: γ, in nats. Default 2, of the released code of April 2026; that of May has 6.
        scale: largest relative change of β, at least 0 and below 1. Default 0.5, the paper's c.
        options: passed on to the base.

    Raises:
        ConfigError: the base is unknown, or a number is out of range.
    """

    base: str | Callable[..., Tensor] = "dmpo"
    beta: float = 1.0
    margin: float = 2.0
    scale: float = 0.5
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {**ONE_POSITIVE, **SET_WISE}
        if not callable(self.base) and self.base not in known:
            raise ConfigError(
                f"DynamicPO has no base {self.base!r}.{did_you_mean(self.base, known)}"
            )
        if not (is_finite_number(self.beta) and self.beta > 0):
            raise ConfigError(f"beta is {self.beta!r}, but it must be a finite number above 0.")
        if not is_finite_number(self.margin):
            raise ConfigError(f"margin is {self.margin!r}. Expected a number, such as margin=2.")
        if not (is_finite_number(self.scale) and 0 <= self.scale < 1):
            raise ConfigError(
                f"scale is {self.scale!r}. Expected at least 0 and below 1, so that every beta "
                "stays above 0: scale=0.5."
            )

    def __call__(self, scores: CandidateScores) -> Tensor:
        """(B,) loss per context; see the base for units and errors."""
        if self._set_wise is None:
            scores.require_positive_and_negative()
        selected = boundary_negatives(scores)  # (B, P, K)
        betas = dual_margin_beta(scores, selected, self.beta, self.margin, self.scale)
        if self._set_wise is not None:
            losses = self._set_wise(scores, self._betas_of_sets(scores, betas), **self.options)
        else:
            rows, places, width = selected.shape
            base = ONE_POSITIVE[self.base] if isinstance(self.base, str) else self.base
            contexts = scores.one_positive_each(selected)
            each = base(contexts, betas.reshape(-1, width), **self.options)
            losses = scores.mean_over_positives(each.reshape(rows, places))
        # a broken score that was not selected must not go unseen
        reads = scores.policy if self.base in REFERENCE_FREE else scores.log_ratios
        return losses.masked_fill(reads.isnan().any(dim=1), torch.nan)

    def boundary(self, scores: CandidateScores) -> Tensor:
        """(B, K) true at the negatives that are at the boundary for any positive."""
        return boundary_negatives(scores).any(dim=1)

    def betas(self, scores: CandidateScores) -> Tensor:
        """(B, K) β of each boundary negative, 0 elsewhere; for one positive per context.

        Raises:
            ConfigError: a context has several positives; `pair_betas` is for them.
        """
        if bool((scores.positives.sum(dim=1) > 1).any()):
            raise ConfigError(
                "A context has several positives, and a negative has a beta for each of them. Use "
                "pair_betas, (B, K, K) as [positive, negative]."
            )
        return self.pair_betas(scores).sum(dim=1)

    def pair_betas(self, scores: CandidateScores) -> Tensor:
        """(B, K, K) β of each pair [positive, boundary negative], 0 elsewhere.

        An objective of sets wants β between positives as well, which calling this wrapper gives it.
        """
        selected = boundary_negatives(scores)
        betas = dual_margin_beta(scores, selected, self.beta, self.margin, self.scale)
        return _in_columns(scores, betas)

    @property
    def _set_wise(self) -> Callable[..., Tensor] | None:
        for name, objective in SET_WISE.items():
            if self.base == name or self.base is objective:
                return objective
        return None

    def _betas_of_sets(self, scores: CandidateScores, betas: Tensor) -> Tensor:
        """(B, K, K): of each positive with its boundary negatives, and β with other positives."""
        with_positives = scores.filled[:, :, None] & scores.positives[:, None, :]
        return _in_columns(scores, betas.masked_fill(with_positives, self.beta))


@torch.no_grad()
def boundary_negatives(scores: CandidateScores) -> Tensor:
    """(B, P, K) true at [b, p, i] where the negative i is at the boundary of the positive p.

    Those with s_i ≥ s_p, or where there is none the top group of three-means clustering.
    """
    s, pairs = scores.policy, scores.pair_mask()
    violating = pairs & (scores.pair_margins(s) <= 0)
    top = top_cluster(s, scores.negatives)[:, None, :] & pairs
    return torch.where(violating.any(dim=2, keepdim=True), violating, top)


@torch.no_grad()
def dual_margin_beta(
    scores: CandidateScores,
    selected: Tensor,
    beta: float | Tensor = 1.0,
    margin: float = 2.0,
    scale: float = 0.5,
) -> Tensor:
    """(B, P, K) β of each selected pair by the two margins of `DynamicPO`; 0 elsewhere.

    Args:
        scores: their policy log-probabilities are read.
        selected: (B, P, K) boundary negatives of each positive.
        beta: β before the margins, > 0.
        margin: γ, in nats.
        scale: largest relative change.

    Raises:
        ConfigError: beta is not one number above 0.
    """
    beta = scalar_beta(scores, beta)
    s, pairs = scores.policy.double(), scores.pair_mask()
    rest = pairs & ~selected
    rest = torch.where(rest.any(dim=2, keepdim=True), rest, selected)  # (B, P, K): D
    count = rest.sum(dim=2).clamp(min=1)
    mean = (rest.to(s.dtype) @ s[:, :, None])[:, :, 0] / count  # (B, P)
    to_positive = scores.pair_margins(s)
    to_rest = s[:, None, :] - mean[:, :, None]
    distance = (to_positive.abs() + to_rest.abs()).clamp(min=torch.finfo(torch.float32).tiny)
    change = torch.tanh((to_positive - to_rest - margin) / distance)
    betas = (beta * (1 + scale * change)).to(scores.log_ratios.dtype)
    return betas.masked_fill(~selected, 0.0)


@torch.no_grad()
def top_cluster(values: Tensor, mask: Tensor) -> Tensor:
    """The topmost of three clusters of numbers, by exact 1-D k-means in each row.

    Clusters of least squared distance to their means are intervals, so the best two cuts of the
    sorted row are found by trying all. Equal values stay together; with fewer than three distinct
    values there are that many clusters; among equally good cuts the smaller top group wins.

    Args:
        values: (B, K).
        mask: (B, K) true at the numbers to cluster.

    Returns:
        (B, K) true at members of the top cluster; nowhere in a row without numbers.
    """
    count, width = mask.sum(dim=1, keepdim=True), values.shape[1]
    sizes = torch.arange(1, width + 1, device=values.device)  # of the numbers above a cut
    wide = values.double().masked_fill(~mask, -torch.inf)
    ordered = wide.sort(dim=1, descending=True).values
    is_real, is_cut = sizes <= count, (sizes < count) & (ordered > ordered.roll(-1, dims=1))
    # the squared distances of a group are Σ x² − (Σ x)²/n: summed from the top for the upper two
    # groups and from the bottom for the lowest, a number far away spoils only groups it is in
    from_top = (ordered - ordered[:, :1]).masked_fill(~is_real, 0.0)
    sums, squares = from_top.cumsum(dim=1), from_top.square().cumsum(dim=1)
    lowest = ordered.gather(1, (count - 1).clamp(min=0))
    from_bottom = (ordered - lowest).masked_fill(~is_real, 0.0).flip(1)
    sums_below = (from_bottom.cumsum(dim=1) - from_bottom).flip(1)
    squares_below = (from_bottom.square().cumsum(dim=1) - from_bottom.square()).flip(1)
    rest = squares_below - sums_below.square() / (count - sizes).clamp(min=1)

    beyond_first = squares + rest  # of all below a first cut: as one group, then as two
    with_second = beyond_first.masked_fill(~is_cut, torch.inf)
    table = sums.new_empty(len(sums), STRIP, width)
    for start in range(0, width - 2, STRIP):
        end = min(start + STRIP, width - 2)
        second = slice(start + 1, width - 1)
        # where the second cut is not below the first, no cost comes out below that of two groups
        size = sizes[None, second] - sizes[start:end, None]
        size = size.masked_fill(size == 0, 1).to(sums.dtype)
        two = table[:, : end - start, second]
        torch.sub(sums[:, None, second], sums[:, start:end, None], out=two)
        torch.addcdiv(with_second[:, None, second], two.square_(), size, value=-1, out=two)
        first = beyond_first[:, start:end]
        torch.minimum(first, two.amin(dim=2), out=first)
    cost = (beyond_first - sums.square() / sizes).masked_fill(~is_cut, torch.inf)
    cut = _first_of_least(cost, _summed_squares(cost, with_second, sums, squares, sizes))
    cut = torch.where(is_cut.any(dim=1, keepdim=True), cut, (count - 1).clamp(min=0))
    return mask & (wide >= ordered.gather(1, cut))


def _summed_squares(
    cost: Tensor, with_second: Tensor, sums: Tensor, squares: Tensor, sizes: Tensor
) -> Tensor:
    """(B, 1) squares that went into the least cost: those above its second cut."""
    first = cost.argmin(dim=1, keepdim=True)
    size = (sizes - 1 - first).to(sums.dtype)
    two = with_second - (sums - sums.gather(1, first)).square() / size.clamp(min=1)
    second = two.masked_fill(size < 1, torch.inf).argmin(dim=1, keepdim=True)
    return squares.gather(1, torch.maximum(first, second))


def _first_of_least(cost: Tensor, squares: Tensor) -> Tensor:
    """(B, 1) the first column whose cost (B, K) is the least but for rounding of `squares`."""
    least = cost.amin(dim=1, keepdim=True)
    return (cost <= least + SAME_COST * squares).byte().argmax(dim=1, keepdim=True)


def _in_columns(scores: CandidateScores, values: Tensor) -> Tensor:
    """(B, K, K) values (B, P, K) at the columns of the positives; 0 elsewhere."""
    width = scores.levels.shape[1]
    kept = values.masked_fill(~scores.filled[:, :, None], 0.0)
    columns = scores.places[:, :, None].expand(-1, -1, width)
    empty = values.new_zeros(values.shape[0], width, width)
    return empty.scatter_add(1, columns, kept)
