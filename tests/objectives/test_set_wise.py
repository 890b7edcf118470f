"""mult_dpo, and its distance to pl_dpo: arithmetic by hand, golden values, identities."""

import math

import pytest
import torch

from objectives.golden import assert_in_groups
from objectives.handmade import from_weights, gradient, one_context
from palate.errors import ConfigError
from palate.objectives import CandidateScores, mult_dpo, s_dpo, setwise_bound_gap


def test_two_levels_by_hand():
    # positives 2 and 3, negatives 1 and 4, W = 10: p = 2! (2/10) (3/10) = 0.12
    scores = from_weights([2.0, 1.0, 3.0, 4.0], [1, 0, 1, 0])
    assert mult_dpo(scores).item() == pytest.approx(-math.log(0.12), rel=1e-12)


def test_several_levels_by_hand():
    # level 2: 5 of 5 + 2 + 3 + 10 = 20, 1! 5/20 = 1/4
    # level 1: 2 and 3 of 2 + 3 + 10 = 15, 2! (2/15) (3/15) = 12/225
    scores = from_weights([2.0, 10.0, 5.0, 3.0], [1, 0, 2, 1])
    assert mult_dpo(scores).item() == pytest.approx(-math.log(1 / 4 * 12 / 225), rel=1e-12)


def test_mean_positive_divides_each_level_by_its_size():
    scores = from_weights([2.0, 10.0, 5.0, 3.0], [1, 0, 2, 1])
    expected = -math.log(1 / 4) - math.log(12 / 225) / 2
    found = mult_dpo(scores, reduction_per_context="mean_positive")
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_beta_is_an_exponent_of_the_weights():
    # beta 2 squares them: positives 4 and 9, negatives 1 and 16, W = 30: p = 2! (4/30) (9/30)
    scores = from_weights([2.0, 1.0, 3.0, 4.0], [1, 0, 1, 0])
    assert mult_dpo(scores, beta=2.0).item() == pytest.approx(-math.log(0.08), rel=1e-12)


def test_gradient_by_hand():
    # dL/dh_e = beta (k w_e / W - [e positive]): k = 2, W = 10
    h = torch.tensor([[2.0, 1.0, 3.0, 4.0]], dtype=torch.float64).log().requires_grad_()
    mult_dpo(CandidateScores(h, levels=torch.tensor([[1, 0, 1, 0]]))).sum().backward()
    assert h.grad is not None
    assert h.grad[0].tolist() == pytest.approx([-0.6, 0.2, -0.4, 0.8], rel=1e-12)


@pytest.mark.parametrize("levels", [[1, 2, 2, 1], [0, 7, 7, 0], [4, 9, 9, 4]])
def test_only_the_order_of_levels_counts(levels):
    values = [1.0, 2.0, 3.0, 4.0]
    expected = mult_dpo(from_weights(values, [0, 1, 1, 0]))
    assert mult_dpo(from_weights(values, levels)).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_contexts_of_different_shape_in_one_batch():
    scores = CandidateScores(
        torch.tensor([[2.0, 1.0, 3.0, 4.0], [2.0, 10.0, 5.0, 3.0]], dtype=torch.float64).log(),
        levels=torch.tensor([[1, 0, -1, 0], [1, 0, 2, 1]]),
    )
    expected = [-math.log(2 / 7), -math.log(1 / 4 * 12 / 225)]
    assert mult_dpo(scores).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean_positive"])
def test_one_positive_is_s_dpo(reduction):
    policy = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    levels = torch.tensor([[0, 0, 1, 0, -1, 0]]).expand(20, -1)
    scores = CandidateScores(4 * policy, levels=levels)
    found = mult_dpo(scores, 0.3, reduction_per_context=reduction)
    torch.testing.assert_close(found, s_dpo(scores, 0.3), rtol=1e-12, atol=1e-14)


def test_the_floor_of_a_perfect_ranking():
    # k = 3 far above: k log k - log k! = 3 log 3 - log 6
    scores = CandidateScores(
        torch.tensor([[80.0, 80.0, 80.0, 0.0]], dtype=torch.float64),
        levels=torch.tensor([[1, 1, 1, 0]]),
    )
    assert mult_dpo(scores).item() == pytest.approx(3 * math.log(3) - math.log(6), rel=1e-12)


def test_a_positive_above_its_share_is_pulled_down():
    # softmax_p = 3/4 > 1/k: the gradient changes sign, unlike that of the exact loss
    h = torch.tensor([[6.0, 1.0, 1.0]], dtype=torch.float64).log().requires_grad_()
    mult_dpo(CandidateScores(h, levels=torch.tensor([[1, 1, 0]]))).sum().backward()
    assert h.grad is not None
    assert h.grad[0].tolist() == pytest.approx([0.5, -0.75, 0.25], rel=1e-12)


def test_float32_keeps_small_margins_at_large_scores():
    # 2000 and 2000.25 are exact in float32; a difference of log-sum-exps would lose 1e-4
    h = torch.tensor([[2000.25, 2000.0, 2000.0]])
    levels = torch.tensor([[1, 1, 0]])
    found = mult_dpo(CandidateScores(h, levels=levels))
    expected = mult_dpo(CandidateScores(h.double() - 2000, levels=levels))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_beta_per_pair_by_hand():
    # positives 0 and 1 with beta 1 between them, negatives at -1 and 2 with betas of their own
    # p = 0: e^0 + e^1 + e^(0.5 · -1) + e^(2 · 2); p = 1: e^-1 + e^0, the pair with -1 left out, e^3
    scores = one_context([0.0, 1.0, -1.0, 2.0], [1, 1, 0, 0])
    beta = torch.ones(1, 4, 4, dtype=torch.float64)
    beta[0, 0, 2:] = torch.tensor([0.5, 2.0])
    beta[0, 1, 2:] = torch.tensor([0.0, 3.0])
    first = math.log(1 + math.e + math.exp(-0.5) + math.exp(4))
    second = math.log(math.exp(-1) + 1 + math.exp(3))
    assert mult_dpo(scores, beta).item() == pytest.approx(first + second - math.log(2), rel=1e-12)


def test_weights_by_hand():
    # negatives 1 and 4 of weights 1 and 2 count as 1 and 8: W = 2 + 3 + 1 + 8 = 14
    # positives 2 and 3 of weights 1 and 3 count 0.5 and 1.5 times
    scores = from_weights([2.0, 1.0, 3.0, 4.0], [1, 0, 1, 0], weights=[1.0, 1.0, 3.0, 2.0])
    expected = 0.5 * math.log(14 / 2) + 1.5 * math.log(14 / 3) - math.log(2)
    found = mult_dpo(scores)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    # dL/dh_e = 2 w_e / W - c_p
    slopes = [2 * 2 / 14 - 0.5, 2 * 1 / 14, 2 * 3 / 14 - 1.5, 2 * 8 / 14]
    assert gradient(found, scores) == pytest.approx(slopes, rel=1e-12)


def test_weights_of_several_levels_by_hand():
    # normalised in each level: 5 counts once, 2 and 3 count 0.5 and 1.5 times; 10 counts as 5
    weights = [1.0, 0.5, 9.0, 3.0]
    scores = from_weights([2.0, 10.0, 5.0, 3.0], [1, 0, 2, 1], weights=weights)
    best = math.log(15 / 5)  # of 5 + 2 + 3 + 5
    next_best = 0.5 * math.log(10 / 2) + 1.5 * math.log(10 / 3) - math.log(2)
    assert mult_dpo(scores).item() == pytest.approx(best + next_best, rel=1e-12)


def test_log_q_by_hand():
    # drawn with q = 0.2 and 0.05, 5 and 1 count as 5 / 2.5 = 2 and 1 / 0.625 = 1.6 (see s_dpo)
    log_q = [9.0, math.log(0.2), math.log(0.05), 9.0]
    scores = from_weights([2.0, 5.0, 1.0, 3.0], [1, 0, 0, 1], log_q=log_q)
    expected = 2 * math.log(8.6) - math.log(2) - math.log(3) - math.log(2)
    assert mult_dpo(scores).item() == pytest.approx(expected, rel=1e-7)


def test_the_gap_by_hand():
    # positives 2 and 3, negatives 1 and 4: p = 2/10 · 3/8 + 3/10 · 2/7 = 9/56, surrogate 0.12
    # bound (2 - 1) log(1 + 5/5)
    gap, bound = setwise_bound_gap(from_weights([2.0, 1.0, 3.0, 4.0], [1, 0, 1, 0]))
    assert gap.item() == pytest.approx(math.log(9 / 56 / 0.12), rel=1e-9)
    assert bound.item() == pytest.approx(math.log(2), rel=1e-12)


def test_the_gap_of_several_levels_by_hand():
    # 5 over 2, 3 and 10: one positive, no gap; 2 and 3 over 10 with beta 2: 4 and 9 over 100,
    # p = 4/113 · 9/109 + 9/113 · 4/104, surrogate 2 · 4 · 9 / 113²; bound log(1 + 13/100)
    scores = from_weights([2.0, 10.0, 5.0, 3.0], [1, 0, 2, 1])
    gap, bound = setwise_bound_gap(scores, beta=2.0)
    exact = 4 / 113 * 9 / 109 + 9 / 113 * 4 / 104
    assert gap.item() == pytest.approx(math.log(exact / (72 / 113**2)), rel=1e-8)
    assert bound.item() == pytest.approx(math.log(1.13), rel=1e-12)


def test_the_gap_of_a_perfect_ranking_is_the_floor_of_the_surrogate():
    scores = one_context([80.0, 80.0, 80.0, 0.0], [1, 1, 1, 0])
    gap, bound = setwise_bound_gap(scores)
    assert gap.item() == pytest.approx(3 * math.log(3) - math.log(6), rel=1e-9)
    assert bound.item() == pytest.approx(2 * (80 + math.log(3)), rel=1e-9)
    assert not gap.requires_grad


def test_the_gap_of_float32_scores_is_computed_in_float64():
    policy = torch.tensor([[2000.25, 2000.0, 1999.0]])
    levels = torch.tensor([[1, 1, 0]])
    found = setwise_bound_gap(CandidateScores(policy, levels=levels))
    exact = setwise_bound_gap(CandidateScores(policy.double(), levels=levels))
    assert found.gap.item() == exact.gap.float().item()
    assert found.bound.item() == exact.bound.float().item()


def test_the_gap_needs_one_beta():
    with pytest.raises(ConfigError, match="one value for all candidates"):
        setwise_bound_gap(from_weights([1.0, 2.0], [1, 0]), torch.ones(1, 2, 2))


def test_an_unknown_reduction_gets_a_hint():
    with pytest.raises(ConfigError, match="Did you mean 'mean_positive'"):
        mult_dpo(from_weights([1.0, 2.0], [1, 0]), reduction_per_context="mean_positives")


def test_golden(setwise_case):
    assert_in_groups(mult_dpo, setwise_case, setwise_case["multinomial_nll"])


def test_a_pair_of_one_level_can_be_left_out_too():
    # w = 2, 3 against 4: with β 0 between the positives each stands alone: 2! (2/6) (3/7)
    scores = CandidateScores(
        torch.tensor([[2.0, 3.0, 4.0]], dtype=torch.float64).log(), levels=torch.tensor([[1, 1, 0]])
    )
    beta = torch.ones(1, 3, 3, dtype=torch.float64)
    beta[0, 0, 1] = beta[0, 1, 0] = 0.0
    expected = -math.log(2 * (2 / 6) * (3 / 7))
    assert mult_dpo(scores, beta).item() == pytest.approx(expected, rel=1e-12)
