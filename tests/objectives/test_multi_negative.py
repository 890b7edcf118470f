"""s_dpo and dmpo: arithmetic by hand, golden values, accuracy where naive forms lose it."""

import math

import pytest
import torch

from palate.errors import DataError
from palate.objectives import CandidateScores, dmpo, dpo, s_dpo

TOLERANCE = {
    torch.float64: {"rel": 1e-9, "abs": 1e-12},
    torch.float32: {"rel": 2e-4, "abs": 1e-6},
}


def log_scores(weights, levels):
    """Scores of one context whose exp(h) are these weights."""
    h = torch.tensor([weights], dtype=torch.float64).log()
    return CandidateScores(h, levels=torch.tensor([levels]))


def test_one_positive_by_hand():
    # h = log(1, 2, 5) with the positive at 2: log(1 + 1/2 + 5/2) = log 4
    h = torch.tensor([[2.0, 1.0, 5.0]], dtype=torch.float64).log()
    scores = CandidateScores(h, levels=torch.tensor([[1, 0, 0]]))
    assert s_dpo(scores).item() == pytest.approx(math.log(4), rel=1e-12)


def test_several_positives_by_hand():
    # negatives 1 and 5; positives 2 and 3: (log(1 + 6/2) + log(1 + 6/3)) / 2 = log(12) / 2
    h = torch.tensor([[2.0, 1.0, 3.0, 5.0]], dtype=torch.float64).log()
    scores = CandidateScores(h, levels=torch.tensor([[1, 0, 2, 0]]))
    assert s_dpo(scores).item() == pytest.approx(math.log(12) / 2, rel=1e-12)


def test_gradient_by_hand():
    # dL/dh_i = beta w_i / (w_p + sum w), dL/dh_p = -beta (1 - w_p / (w_p + sum w)); w = 2, 1, 5
    h = torch.tensor([[2.0, 1.0, 5.0]], dtype=torch.float64).log() / 0.5
    h.requires_grad_()
    s_dpo(CandidateScores(h, levels=torch.tensor([[1, 0, 0]])), beta=0.5).sum().backward()
    assert h.grad is not None
    assert h.grad[0].tolist() == pytest.approx([-0.5 * 6 / 8, 0.5 / 8, 0.5 * 5 / 8], rel=1e-12)


def test_the_loss_at_the_start_is_the_log_of_the_candidates():
    scores = CandidateScores(torch.zeros(1, 16), levels=(torch.arange(16) == 3).long()[None])
    assert s_dpo(scores).item() == pytest.approx(math.log(16), rel=1e-6)


def test_beta_per_negative_by_hand():
    # h_i - h_p = -1 and 2 with beta 0.5 and 3: log(1 + e^-0.5 + e^6)
    scores = CandidateScores(
        torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64), levels=torch.tensor([[1, 0, 0]])
    )
    beta = torch.tensor([[math.nan, 0.5, 3.0]], dtype=torch.float64)
    expected = math.log(1 + math.exp(-0.5) + math.exp(6))
    assert s_dpo(scores, beta=beta).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("objective", [dmpo, s_dpo])
def test_a_constant_beta_per_negative_is_that_scalar(objective):
    policy = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0, 1, -1]]).expand(3, -1))
    torch.testing.assert_close(objective(scores, torch.full((3, 5), 0.4)), objective(scores, 0.4))


def test_exact_above_twenty():
    # softplus would give 21 itself; log(1 + e^21) - 21 = log1p(e^-21) = 7.58e-10
    scores = CandidateScores(
        torch.tensor([[0.0, 21.0]], dtype=torch.float64), levels=torch.tensor([[1, 0]])
    )
    assert s_dpo(scores).item() - 21 == pytest.approx(math.log1p(math.exp(-21)), rel=1e-4)


def test_dmpo_one_positive_by_hand():
    # h = log(6, 2, 8): the mean of the negatives is log sqrt(16) = log 4: -log sigma(log 6/4)
    # = log(1 + 4/6)
    found = dmpo(log_scores([6.0, 2.0, 8.0], [1, 0, 0]))
    assert found.item() == pytest.approx(math.log(10 / 6), rel=1e-12)


def test_dmpo_several_positives_by_hand():
    # negatives 2 and 8, their mean log 4; positives 4 and 12: (log 2 + log(1 + 4/12)) / 2
    found = dmpo(log_scores([2.0, 4.0, 12.0, 8.0], [0, 1, 2, 0]))
    assert found.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-12)


def test_dmpo_gradient_by_hand():
    # beta 2, margin 0.5 - (0.1 + 0.5) / 2 = 0.2: sigma(-0.4) = 0.401312339887548
    h = torch.tensor([[0.5, 0.1, 0.5]], dtype=torch.float64, requires_grad=True)
    dmpo(CandidateScores(h, levels=torch.tensor([[1, 0, 0]])), beta=2.0).sum().backward()
    assert h.grad is not None
    wrong = 0.401312339887548
    assert h.grad[0].tolist() == pytest.approx([-2 * wrong, wrong, wrong], rel=1e-12)


def test_dmpo_beta_per_negative_by_hand():
    # margins 1 and -2 with beta 0.5 and 3: the mean of 0.5 and -6 is -2.75: log(1 + e^2.75)
    scores = CandidateScores(
        torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64), levels=torch.tensor([[1, 0, 0]])
    )
    beta = torch.tensor([[math.nan, 0.5, 3.0]], dtype=torch.float64)
    expected = math.log1p(math.exp(2.75))
    assert dmpo(scores, beta=beta).item() == pytest.approx(expected, rel=1e-12)


def test_dmpo_beta_per_negative_acts_on_pairs_of_every_positive():
    # positives at 1 and 2, negatives at 0 and 3, beta 0.5 and 2
    # p = 1: (0.5 * 1 + 2 * -2) / 2 = -1.75; p = 2: (0.5 * 2 + 2 * -1) / 2 = -0.5
    h = torch.tensor([[1.0, 0.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    scores = CandidateScores(h, levels=torch.tensor([[1, 0, 1, 0]]))
    beta = torch.tensor([[9.0, 0.5, 9.0, 2.0]], dtype=torch.float64)
    loss = dmpo(scores, beta=beta)
    expected = (math.log1p(math.exp(1.75)) + math.log1p(math.exp(0.5))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    # dL/dh_p = -mean(beta) sigma(-margin) / k, dL/dh_i = sum_p beta_i / m sigma(-margin) / k
    loss.sum().backward()
    assert h.grad is not None
    first, second = 1 / (1 + math.exp(-1.75)), 1 / (1 + math.exp(-0.5))
    both = (first + second) / 2
    assert h.grad[0].tolist() == pytest.approx(
        [-1.25 * first / 2, 0.25 * both, -1.25 * second / 2, 1.0 * both], rel=1e-12
    )


def test_dmpo_of_the_same_negative_several_times_is_dpo():
    # m equal negatives have that mean; dpo's mean over them is the same number
    policy = torch.tensor([[0.4, -1.0, -1.0, -1.0]], dtype=torch.float64)
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0, 0]]))
    torch.testing.assert_close(dmpo(scores, 0.7), dpo(scores, 0.7), rtol=1e-12, atol=0)


def test_dmpo_in_float32_keeps_small_margins_at_large_scores():
    # multiples of 1/4096 near 4000 are exact in float32, but a sum of 31 is not
    noise = torch.randn(8, 32, generator=torch.Generator().manual_seed(5))
    h = 4000 + (noise * 4096).round() / 4096
    levels = (torch.arange(32) == 0).long().expand(8, -1)
    expected = dmpo(CandidateScores(h.double(), levels=levels))
    found = dmpo(CandidateScores(h, levels=levels)).double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("objective", [dmpo, s_dpo])
def test_levels_above_zero_alone_are_not_enough(objective):
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 2]]))
    with pytest.raises(DataError, match="Context 0 has no negative"):
        objective(scores)


def check_golden(objective, case, golden, dtype, tolerance):
    """Losses and gradients of a case with one chosen item per context."""

    def joined(name, values=case):
        chosen = torch.tensor(values[f"{name}_chosen"], dtype=dtype)[:, None]
        return torch.cat([chosen, torch.tensor(values[f"{name}_rejected"], dtype=dtype)], dim=1)

    policy = joined("policy").requires_grad_()
    reference = None if case["reference_chosen"] is None else joined("reference")
    levels = torch.zeros(policy.shape, dtype=torch.long)
    levels[:, 0] = 1
    loss = objective(CandidateScores(policy, reference, levels=levels), beta=case["beta"])
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert loss.tolist() == pytest.approx(golden["losses"], **tolerance)
    found, expected = gradient.flatten().tolist(), joined("grad", golden).flatten().tolist()
    assert found == pytest.approx(expected, **tolerance)


# the stable form was computed in float64, for float32 cases too: both precisions are compared
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_s_dpo_golden(sdpo_case, dtype):
    check_golden(s_dpo, sdpo_case, sdpo_case["stable_float64"], dtype, TOLERANCE[dtype])


def test_dmpo_golden(dmpo_case):
    dtype = getattr(torch, dmpo_case["dtype"])  # what the released function was called with
    check_golden(dmpo, dmpo_case, dmpo_case["DMPO"], dtype, TOLERANCE[dtype])
