"""mult_dpo: arithmetic by hand, golden values, identities."""

import math

import pytest
import torch

from palate.errors import ConfigError
from palate.objectives import CandidateScores, mult_dpo, s_dpo


def weights(values, levels):
    """Scores whose exp(h) are these weights."""
    return CandidateScores(
        torch.tensor([values], dtype=torch.float64).log(), levels=torch.tensor([levels])
    )


def test_two_levels_by_hand():
    # positives 2 and 3, negatives 1 and 4, W = 10: p = 2! (2/10) (3/10) = 0.12
    scores = weights([2.0, 1.0, 3.0, 4.0], [1, 0, 1, 0])
    assert mult_dpo(scores).item() == pytest.approx(-math.log(0.12), rel=1e-12)


def test_several_levels_by_hand():
    # level 2: 5 of 5 + 2 + 3 + 10 = 20, 1! 5/20 = 1/4
    # level 1: 2 and 3 of 2 + 3 + 10 = 15, 2! (2/15) (3/15) = 12/225
    scores = weights([2.0, 10.0, 5.0, 3.0], [1, 0, 2, 1])
    assert mult_dpo(scores).item() == pytest.approx(-math.log(1 / 4 * 12 / 225), rel=1e-12)


def test_mean_positive_divides_each_level_by_its_size():
    scores = weights([2.0, 10.0, 5.0, 3.0], [1, 0, 2, 1])
    expected = -math.log(1 / 4) - math.log(12 / 225) / 2
    found = mult_dpo(scores, reduction_per_context="mean_positive")
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_beta_is_an_exponent_of_the_weights():
    # beta 2 squares them: positives 4 and 9, negatives 1 and 16, W = 30: p = 2! (4/30) (9/30)
    scores = weights([2.0, 1.0, 3.0, 4.0], [1, 0, 1, 0])
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
    expected = mult_dpo(weights(values, [0, 1, 1, 0]))
    assert mult_dpo(weights(values, levels)).item() == pytest.approx(expected.item(), rel=1e-12)


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


def test_beta_per_negative_is_refused():
    with pytest.raises(ConfigError, match="one value for all candidates"):
        mult_dpo(weights([1.0, 2.0], [1, 0]), beta=torch.ones(1, 2))


def test_an_unknown_reduction_gets_a_hint():
    with pytest.raises(ConfigError, match="Did you mean 'mean_positive'"):
        mult_dpo(weights([1.0, 2.0], [1, 0]), reduction_per_context="mean_positives")


def test_golden(setwise_case):
    case = setwise_case
    policy = torch.tensor([case["logratio"]], dtype=torch.float64, requires_grad=True)
    levels = max(case["group"]) - torch.tensor([case["group"]])
    loss = mult_dpo(CandidateScores(policy, levels=levels), beta=case["beta"])
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    golden = case["multinomial_nll"]
    assert loss.item() == pytest.approx(golden["value"], rel=1e-9, abs=1e-12)
    assert gradient[0].tolist() == pytest.approx(golden["grad"], rel=1e-9, abs=1e-12)
