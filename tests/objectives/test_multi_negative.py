"""dmpo, mppo and s_dpo: arithmetic by hand, golden values, accuracy where naive forms lose it."""

import math

import pytest
import torch

from objectives.golden import assert_chosen_and_rejected
from objectives.handmade import from_weights, gradient, one_context
from palate.errors import ConfigError
from palate.objectives import CandidateScores, dmpo, dpo, mppo, s_dpo


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


def test_exact_above_twenty():
    # softplus would give 21 itself; log(1 + e^21) - 21 = log1p(e^-21) = 7.58e-10
    scores = CandidateScores(
        torch.tensor([[0.0, 21.0]], dtype=torch.float64), levels=torch.tensor([[1, 0]])
    )
    assert s_dpo(scores).item() - 21 == pytest.approx(math.log1p(math.exp(-21)), rel=1e-4)


def test_dmpo_one_positive_by_hand():
    # h = log(6, 2, 8): the mean of the negatives is log sqrt(16) = log 4: -log sigma(log 6/4)
    # = log(1 + 4/6)
    found = dmpo(from_weights([6.0, 2.0, 8.0], [1, 0, 0]))
    assert found.item() == pytest.approx(math.log(10 / 6), rel=1e-12)


def test_dmpo_several_positives_by_hand():
    # negatives 2 and 8, their mean log 4; positives 4 and 12: (log 2 + log(1 + 4/12)) / 2
    found = dmpo(from_weights([2.0, 4.0, 12.0, 8.0], [0, 1, 2, 0]))
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


def test_s_dpo_weights_by_hand():
    # negatives 1 and 5 of weights 4 and 0.4 count as 4 and 2; positives 2 (c = 1), 3 (c = 3)
    # (log(1 + 6/2) + 3 log(1 + 6/3)) / 4
    scores = from_weights([2.0, 1.0, 3.0, 5.0], [1, 0, 2, 0], weights=[1.0, 4.0, 3.0, 0.4])
    expected = (math.log(4) + 3 * math.log(3)) / 4
    assert s_dpo(scores).item() == pytest.approx(expected, rel=1e-12)


def test_s_dpo_log_q_by_hand():
    # drawn with q = 0.2 and 0.05: the mean of 1/q is (5 + 20) / 2 = 12.5, so that the negatives
    # 5 and 1 count as 5 / (0.2 · 12.5) = 2 and 1 / (0.05 · 12.5) = 1.6: log(1 + 3.6 / 2)
    log_q = [0.0, math.log(0.2), math.log(0.05)]
    scores = from_weights([2.0, 5.0, 1.0], [1, 0, 0], log_q=log_q)
    assert s_dpo(scores).item() == pytest.approx(math.log(2.8), rel=1e-7)


def test_s_dpo_log_q_up_to_a_constant_and_beside_beta():
    # the correction is not multiplied by beta: h = ±1 with beta 2, corrections log 2.5, log 0.625
    log_q = [9.0, math.log(0.2) - 7, math.log(0.05) - 7]
    scores = one_context([0.0, 1.0, -1.0], [1, 0, 0], log_q=log_q)
    expected = math.log(1 + math.exp(2) / 2.5 + math.exp(-2) / 0.625)
    assert s_dpo(scores, beta=2.0).item() == pytest.approx(expected, rel=1e-7)


def test_the_log_q_correction_in_float64_is_exact():
    # the log of the number of negatives in float32 would be off by 1e-9
    log_q = [0.0, math.log(0.2), math.log(0.05)]
    scores = from_weights([2.0, 5.0, 1.0], [1, 0, 0], log_q=log_q)
    assert s_dpo(scores).item() == pytest.approx(math.log(2.8), rel=1e-13)


def test_dmpo_weights_by_hand():
    # the mean of log 16 and log 2 by weights 1 and 2 is log (16 · 4)^(1/3) = log 4
    # positives 4 (c = 1) and 12 (c = 3): (log 2 + 3 log(1 + 4/12)) / 4
    scores = from_weights([16.0, 4.0, 12.0, 2.0], [0, 1, 2, 0], weights=[1.0, 0.5, 1.5, 2.0])
    expected = (math.log(2) + 3 * math.log(4 / 3)) / 4
    assert dmpo(scores).item() == pytest.approx(expected, rel=1e-12)


def test_mppo_by_hand():
    # q = 0.5 against 0.2 and 0.1: 0.3 + 0.4 = 0.7, beta 2: log(1 + e^-1.4)
    scores = from_weights([0.5, 0.2, 0.1], [1, 0, 0])
    found = mppo(scores, beta=2.0)
    assert found.item() == pytest.approx(math.log1p(math.exp(-1.4)), rel=1e-12)
    # dL/ds_p = -beta m q_p sigma(-x), dL/ds_i = beta q_i sigma(-x)
    wrong = 1 / (1 + math.exp(1.4))
    expected = [-2 * 2 * 0.5 * wrong, 2 * 0.2 * wrong, 2 * 0.1 * wrong]
    assert gradient(found, scores) == pytest.approx(expected, rel=1e-12)


def test_mppo_several_positives_by_hand():
    # positives 0.5 and 0.3 against 0.2 and 0.4: 0.3 + 0.1 and 0.1 - 0.1
    found = mppo(from_weights([0.5, 0.2, 0.3, 0.4], [1, 0, 2, 0]))
    assert found.item() == pytest.approx((math.log1p(math.exp(-0.4)) + math.log(2)) / 2, rel=1e-12)


def test_mppo_likelihoods_by_hand():
    # q = p^(1/length): 0.25^(1/2) = 0.5, 0.008^(1/3) = 0.2, 0.1; whole: 0.25, 0.008, 0.1
    scores = from_weights([0.25, 0.008, 0.1], [1, 0, 0], lengths=[2, 3, 1])
    average, whole = math.log1p(math.exp(-0.7)), math.log1p(math.exp(-(0.242 + 0.15)))
    assert mppo(scores).item() == pytest.approx(average, rel=1e-12)
    assert mppo(scores, likelihood="average").item() == pytest.approx(average, rel=1e-12)
    assert mppo(scores, likelihood="sequence").item() == pytest.approx(whole, rel=1e-12)


def test_mppo_without_lengths_is_by_sequence():
    scores = from_weights([0.25, 0.008, 0.1], [1, 0, 0])
    assert mppo(scores).item() == mppo(scores, likelihood="sequence").item()


def test_mppo_beta_per_negative_and_weights_by_hand():
    # 0.3 and 0.4 by beta 0.5 and 3 and weights 2 and 0.1: 0.3 + 0.12
    scores = from_weights([0.5, 0.2, 0.1], [1, 0, 0], weights=[5.0, 2.0, 0.1])
    found = mppo(scores, beta=torch.tensor([[9.0, 0.5, 3.0]], dtype=torch.float64))
    assert found.item() == pytest.approx(math.log1p(math.exp(-0.42)), rel=1e-12)


def test_mppo_of_whole_titles_hardly_moves():
    # e^-12 apart: what the docstring warns of
    scores = one_context([-12.0, -13.0], [1, 0])
    assert mppo(scores).item() == pytest.approx(math.log(2), abs=1e-5)
    assert max(map(abs, gradient(mppo(scores), scores))) < 1e-5


def test_mppo_has_a_largest_likelihood():
    scores = CandidateScores(torch.tensor([[0.0, 90.0, 1e4]]), levels=torch.tensor([[1, 0, 0]]))
    assert mppo(scores).item() == pytest.approx(2 * math.exp(80), rel=1e-5)


def test_an_unknown_likelihood_gets_a_hint():
    with pytest.raises(ConfigError, match=r"likelihood is 'averaged'.*Did you mean 'average'"):
        mppo(from_weights([1.0, 2.0], [1, 0]), likelihood="averaged")


# the stable form was computed in float64, for float32 cases too: both precisions are compared
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_s_dpo_golden(sdpo_case, dtype):
    assert_chosen_and_rejected(s_dpo, sdpo_case, sdpo_case["stable_float64"], dtype)


def test_dmpo_golden(dynamicpo_case):
    dtype = getattr(torch, dynamicpo_case["dtype"])  # what the released function was called with
    assert_chosen_and_rejected(dmpo, dynamicpo_case, dynamicpo_case["DMPO"], dtype)
