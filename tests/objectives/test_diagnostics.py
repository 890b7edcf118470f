"""Where the gradient goes, by hand."""

import math

import pytest
import torch

from palate.objectives import CandidateScores, DynamicPO, dmpo, setwise_bound_gap
from palate.objectives.diagnostics import (
    beta_diagnostics,
    bound_diagnostics,
    boundary_diagnostics,
)
from palate.training.alignment_logs import reward_logs

# positive −2; −1 violates; −5 and −7 are easy
ONE = CandidateScores(torch.tensor([[-2.0, -1.0, -5.0, -7.0]]), levels=torch.tensor([[1, 0, 0, 0]]))


def test_shares_are_of_the_absolute_gradient_on_negatives():
    gradient = torch.tensor([[-9.0, 0.6, -0.1, 0.3]])
    logs = boundary_diagnostics(ONE, gradient)
    assert float(logs["boundary/share"]) == pytest.approx(0.6)
    assert float(logs["easy/share"]) == pytest.approx(0.4)


def test_sizes_violations_and_margins_by_hand():
    logs = boundary_diagnostics(ONE, torch.zeros(1, 4))
    assert float(logs["boundary/size"]) == 1
    assert float(logs["boundary/violations"]) == pytest.approx(1 / 3)
    assert float(logs["boundary/margin"]) == -1  # −2 + 1
    assert float(logs["easy/margin"]) == 4  # (3 + 5) / 2
    assert float(logs["boundary/share"]) == float(logs["easy/share"]) == 0


def test_a_saturated_context_weighs_as_little_as_its_gradient():
    policy = torch.tensor([[0.0, 1.0, -9.0], [0.0, -1.0, -9.0]], requires_grad=True)
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0], [1, 0, 0]]))
    gradient = torch.tensor([[-2.0, 1.0, 1.0], [-0.02, 0.0, 0.02]])
    logs = boundary_diagnostics(scores, gradient)
    # boundary: 1 of the violating, 0 of the topmost cluster; easy: 1 and 0.02
    assert float(logs["boundary/share"]) == pytest.approx(1 / 2.02)


def test_dmpo_spends_its_gradient_evenly_and_dynamicpo_at_the_boundary():
    policy = ONE.policy.clone().requires_grad_()
    shares = []
    for objective in (dmpo, DynamicPO("dmpo")):
        scores = CandidateScores(policy, levels=ONE.levels)
        (gradient,) = torch.autograd.grad(objective(scores).sum(), policy)
        shares.append(float(boundary_diagnostics(scores, gradient)["boundary/share"]))
    assert shares == pytest.approx([1 / 3, 1])


def test_several_positives_share_a_boundary():
    # −1 violates for −2 only; for 0 nothing does, and −1 is the topmost cluster
    scores = CandidateScores(
        torch.tensor([[-2.0, 0.0, -1.0, -5.0, -9.0]]), levels=torch.tensor([[1, 1, 0, 0, 0]])
    )
    logs = boundary_diagnostics(scores, torch.zeros(1, 5))
    assert float(logs["boundary/size"]) == 1
    assert float(logs["boundary/violations"]) == pytest.approx(1 / 6)
    assert float(logs["boundary/margin"]) == 0  # (−1 + 1) / 2


def test_beta_quantiles_are_over_selected_pairs_alone():
    logs = beta_diagnostics(ONE, beta=2.0)
    # Δ1 = −1, Δ2 = −1 + 6 = 5: 2 (1 + tanh((−1 − 5 − 2) / 6) / 2)
    expected = 2 * (1 + 0.5 * math.tanh(-8 / 6))
    assert [float(value) for value in logs.values()] == pytest.approx([expected] * 3)
    assert list(logs) == ["beta/p10", "beta/p50", "beta/p90"]


def test_the_bound_gap_is_a_mean():
    scores = CandidateScores(
        torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
        levels=torch.tensor([[1, 1, 0, 0, 0]]).expand(3, -1),
    )
    gap, bound = setwise_bound_gap(scores, 0.5)
    logs = bound_diagnostics(scores, 0.5)
    assert float(logs["bound/gap"]) == pytest.approx(float(gap.mean()))
    assert float(logs["bound/bound"]) == pytest.approx(float(bound.mean()))
    assert 0 < float(gap.mean()) < float(bound.mean())


def test_nothing_waits_for_the_host():
    # a meta tensor has no values: whatever asks for one raises
    policy, levels = torch.empty(3, 5, device="meta"), torch.empty(3, 5, device="meta").long()
    scores = CandidateScores(policy, policy, levels=levels, check=False)
    for logs in (
        boundary_diagnostics(scores, policy),
        beta_diagnostics(scores, beta=1.0),
        bound_diagnostics(scores, beta=1.0),
        reward_logs(scores, beta=1.0),
    ):
        assert all(value.shape == () for value in logs.values())
