"""The probability that one set of exponential clocks rings before another, by quadrature.

Give each candidate an arrival time T_e ~ Exp(w_e). Under Plackett–Luce the chance that a set P
comes before a set of total weight B depends on the ratios a_p = w_p / B alone:

    p = ∫₀¹ Π_p (1 − u^{a_p}) du = ∫ exp(y − e^y) Π_p (1 − exp(−a_p e^y)) dy    (u = exp(−e^y))

(Ma et al., AISTATS 2021, arXiv 2006.05067). Both forms below integrate a smooth bump over y by the
trapezoid rule, which converges exponentially for such integrands.

* p small: the integrand above; its logarithm is concave.
* p near 1: L = −log p would lose all digits, so the complement is integrated instead. By parts,
  1 − p = ∫ (1 − exp(−e^y)) Π_p (1 − exp(−a_p e^y)) Σ_p ψ_p dy with ψ = x / (e^x − 1) at
  x = a_p e^y: the chance that the last of P comes after the first of the others.

The gradient, ∂L/∂log a_p = −(1/p) ∫ exp(y − e^y) Π (1 − exp(−a e^y)) ψ_p dy, has a positive
integrand on the same nodes, and is returned as it is rather than by differentiating a sum.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FALL = 40.0
"""The integrand is followed down to e^−40 of its peak: what is cut off is below 1e-17."""
LARGEST = 6.56
"""x = e^6.56 = 706: e^x is still a float64; beyond it nothing changes."""
SMALLEST = -18.0
"""Below x = e^−18 the series of log(1 − e^−x) and ψ are exact in float64."""
NEWTON_STEPS = 6
HALVINGS = 6


def log_ratio_loss(log_a: Tensor, same: Tensor, nodes: int) -> Tensor:
    """−log p of each group of candidates, at each of its members.

    Args:
        log_a: (B, P) log(w_p / B) in float64; +inf for a member with nothing to come before, and
            anything where `same` is false on the diagonal.
        same: (B, P, P) true where two places belong to one group; false for empty places.
        nodes: of the quadrature.

    Returns:
        (B, P): the loss of the group, repeated for each member; 0 at empty places.
    """
    return _PlackettLuce.apply(log_a, same, nodes)  # pyright: ignore[reportReturnType]


class _PlackettLuce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_a: Tensor, same: Tensor, nodes: int) -> Tensor:
        member = same.diagonal(dim1=1, dim2=2)
        known = log_a.masked_fill(~member, 0.0)
        loss, derivative = _integrate(known, same, nodes)
        ctx.save_for_backward(derivative.masked_fill(~member, 0.0), same)
        broken = member & (log_a.isnan() | log_a.isneginf())
        loss = loss.masked_fill((same & broken[:, None, :]).any(dim=2), math.nan)
        return loss.masked_fill(~member, 0.0)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None, None]:
        derivative, same = ctx.saved_tensors
        # a group's loss stands at each of its members; each member moves all of them
        wanted = (same.to(gradients[0].dtype) @ gradients[0][:, :, None])[:, :, 0]
        return derivative * wanted, None, None


def _integrate(log_a: Tensor, same: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """(B, P) loss of each member's group, and its derivative by the member's log a."""
    groups = same.to(log_a.dtype)
    members = log_a[:, None, :].masked_fill(~same, torch.inf)  # never late: changes nothing
    k = groups.sum(dim=2).clamp(min=1)
    # p ≥ Π a/(1 + a): where that is large the complement is the better integral
    log_bound = (groups * -torch.logaddexp(-members, torch.zeros_like(members))).sum(dim=2)
    is_near_one = log_bound > math.log(0.3)
    low, high = _bracket(members, k, is_near_one)
    step = (high - low) / (nodes - 1)
    places = torch.arange(nodes, dtype=log_a.dtype, device=log_a.device)
    y = low[:, :, None] + step[:, :, None] * places  # (B, P, nodes): the nodes of each group

    before, psi = _log_before(log_a[:, :, None] + y)  # own member at its group's nodes
    product = groups @ before  # Σ over the group of log(1 − exp(−a e^y))
    t = y.exp()
    exponent = y - t + product
    peak = exponent.amax(dim=2, keepdim=True)
    density = (exponent - peak).exp()
    total = density.sum(dim=2)
    # 1 − exp(−e^y) for the first of the others, Π and Σ ψ for the last of the group
    complement = (-torch.expm1(-t) * product.exp() * (groups @ psi)).sum(dim=2) * step
    log_p = peak[:, :, 0] + (total * step).log()
    loss = torch.where(is_near_one, -torch.log1p(-complement), -log_p)
    # where p is near 1 the nodes miss much of its integral, so p is taken from the complement
    mass = torch.where(is_near_one, (-loss - peak[:, :, 0]).exp() / step, total)
    derivative = -(density * psi).sum(dim=2) / mass
    return loss, derivative


def _bracket(members: Tensor, k: Tensor, is_near_one: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P) ends between which the integrand of each group is above e^−FALL of its peak.

    Args:
        members: (B, P, P) log a of each member of the place's group.
        k: (B, P) size of the group.
        is_near_one: (B, P) whether the complement is integrated.
    """
    # the mode of the direct form, where e^y = 1 + Σ ψ: by halves, near enough for a bracket
    mode, above = torch.zeros_like(k), (k + 1).log()
    for _ in range(HALVINGS):
        middle = (mode + above) / 2
        rises = 1 + _log_before(members + middle[:, :, None])[1].sum(dim=2) > middle.exp()
        mode, above = torch.where(rises, middle, mode), torch.where(rises, above, middle)
    before, psi = _log_before(members + mode[:, :, None])
    z = torch.maximum(mode.exp(), 1 + psi.sum(dim=2))
    # the exponent falls by at least z (r − 1 − log r) at e^y = r z, on either side
    fall = FALL / z
    direct = (z.log() - fall - 1, z.log() + (1 + (2 * fall).sqrt() + fall).log())
    direct_peak = mode - mode.exp() + before.sum(dim=2)

    # the complement: near its peak a_min e^y ≈ 1 + log k; beyond, it falls like k exp(−a_min e^y)
    slowest = members.amin(dim=2)
    slowest = slowest.masked_fill(slowest.isposinf(), 0.0)
    peak_at = torch.log1p(k.log()) - slowest
    right = (FALL + 6 + 2 * k.log()).log() - slowest
    before, psi = _log_before(members + peak_at[:, :, None])
    first, first_psi = _log_before(peak_at)
    at_peak = first + before.sum(dim=2)
    peak = at_peak + psi.sum(dim=2).log() - k.log()
    left = peak_at - (FALL + at_peak - peak) / (first_psi + psi.sum(dim=2))

    level = torch.where(is_near_one, peak, direct_peak) - FALL
    low = torch.where(is_near_one, left, direct[0])
    for _ in range(NEWTON_STEPS):  # on a concave function, from the left: never past the root
        before, psi = _log_before(members + low[:, :, None])
        first, first_psi = _log_before(low)
        value = torch.where(is_near_one, first, low - low.exp()) + before.sum(dim=2)
        slope = torch.where(is_near_one, first_psi, 1 - low.exp()) + psi.sum(dim=2)
        low = low + (level - value) / slope
    return low, torch.where(is_near_one, right, direct[1])


def _log_before(t: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 − e^−x) and its derivative by t, ψ = x/(e^x − 1), at x = e^t."""
    x = t.clamp(max=LARGEST).exp()
    odds = torch.expm1(x)  # e^x − 1
    is_small = t < SMALLEST
    log_before = torch.where(is_small, t - x / 2, -torch.log1p(1 / odds))
    psi = torch.where(is_small, 1 - x / 2, x / odds)
    return log_before, psi
