"""dpo, ipo, lipo and simpo: arithmetic by hand, golden values, identities."""

import math

import pytest
import torch

from objectives.golden import assert_in_groups
from objectives.handmade import from_weights, gradient, one_context
from palate.errors import ConfigError
from palate.objectives import CandidateScores, dpo, ipo, lipo, s_dpo, simpo


def test_one_pair_by_hand():
    # h = (-1 + 1.5, -2 + 1) = (0.5, -1), margin 1.5, beta 2: -log sigma(3) = log(1 + e^-3)
    scores = CandidateScores(
        policy=torch.tensor([[-1.0, -2.0]], dtype=torch.float64),
        reference=torch.tensor([[-1.5, -1.0]], dtype=torch.float64),
        levels=torch.tensor([[1, 0]]),
    )
    assert dpo(scores, beta=2.0).item() == pytest.approx(0.048587351573741958, rel=1e-12)


def test_mean_over_negatives_then_over_positives_by_hand():
    # positives at log 2 and log 3, negatives at 0 and log 6 (beta 1): sigma(a - b) = A / (A + B)
    # p = 2: -log(2/3), -log(2/8); p = 3: -log(3/4), -log(3/9)
    # mean of the means: (log 3/2 + log 4 + log 4/3 + log 3) / 4 = log(24) / 4
    h = torch.tensor([[2.0, 3.0, 1.0, 6.0]], dtype=torch.float64).log()
    scores = CandidateScores(h, levels=torch.tensor([[1, 1, 0, 0]]))
    assert dpo(scores).item() == pytest.approx(math.log(24) / 4, rel=1e-12)


def test_the_loss_at_the_start_is_log_two():
    policy = torch.tensor([[-3.0, -8.0, -1.0]])
    scores = CandidateScores(policy, policy.clone(), levels=torch.tensor([[0, 2, 0]]))
    assert dpo(scores, beta=0.1).item() == pytest.approx(math.log(2), rel=1e-6)


def test_beta_per_negative_by_hand():
    # margins 1 and -2 with beta 0.5 and 3: (log(1 + e^-0.5) + log(1 + e^6)) / 2
    scores = CandidateScores(
        torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64), levels=torch.tensor([[1, 0, 0]])
    )
    beta = torch.tensor([[math.nan, 0.5, 3.0]], dtype=torch.float64)
    expected = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(6))) / 2
    assert dpo(scores, beta=beta).item() == pytest.approx(expected, rel=1e-12)


def test_one_positive_and_one_negative_is_s_dpo():
    policy = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores = CandidateScores(5 * policy, levels=torch.tensor([[1, 0]]).expand(20, -1))
    torch.testing.assert_close(dpo(scores, 0.3), s_dpo(scores, 0.3), rtol=1e-12, atol=1e-14)


def test_dpo_weights_by_hand():
    # as above, negatives 1 and 6 of weights 1 and 3, positives 2 and 3 of weights 1 and 4
    # p = 2: (log 3/2 + 3 log 4) / 4; p = 3: (log 4/3 + 3 log 3) / 4
    scores = from_weights([2.0, 3.0, 1.0, 6.0], [1, 1, 0, 0], weights=[1.0, 4.0, 1.0, 3.0])
    first = (math.log(3 / 2) + 3 * math.log(4)) / 4
    second = (math.log(4 / 3) + 3 * math.log(3)) / 4
    assert dpo(scores).item() == pytest.approx((first + 4 * second) / 5, rel=1e-12)


def test_label_smoothing_by_hand():
    # margin log 3 at beta 1: sigma = 3/4: -0.9 log(3/4) - 0.1 log(1/4)
    scores = from_weights([3.0, 1.0], [1, 0])
    found = dpo(scores, label_smoothing=0.1)
    expected = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    # dL/dx = sigma(x) - (1 - eps) = 0.75 - 0.9
    assert gradient(found, scores) == pytest.approx([-0.15, 0.15], rel=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_label_smoothing_turns_where_its_doubt_says(beta):
    # dL/dx = sigma(x) - (1 - eps) is 0 at x = log((1 - eps) / eps): margin log(9) / beta
    def slope(margin):
        scores = one_context([margin, 0.0], [1, 0])
        return gradient(dpo(scores, beta, label_smoothing=0.1), scores)[0]

    turn = math.log(9) / beta
    assert slope(turn) == pytest.approx(0.0, abs=1e-12)
    assert slope(turn - 0.01) < -1e-6
    assert slope(turn + 0.01) > 1e-6


@pytest.mark.parametrize("epsilon", [-0.1, 0.5, 1.0, math.nan, "0.1", True])
def test_label_smoothing_out_of_range_is_refused(epsilon):
    with pytest.raises(ConfigError, match=r"label_smoothing is .*below 0\.5"):
        dpo(from_weights([2.0, 1.0], [1, 0]), label_smoothing=epsilon)


def test_ipo_by_hand():
    # beta 0.25 wants margins of 2; they are 1.5 and 3: (0.25 + 1) / 2
    scores = one_context([3.0, 1.5, 0.0], [1, 0, 0])
    found = ipo(scores, beta=0.25)
    assert found.item() == pytest.approx(0.625, rel=1e-12)
    # dL/dh_i = -2 (margin - 2) / m
    assert gradient(found, scores) == pytest.approx([0.5, 0.5, -1.0], rel=1e-12)


def test_ipo_several_positives_and_weights_by_hand():
    # beta 0.5 wants 1. Positive 2: margins 2 and 1, squares 1 and 0; 0: 0 and -1, squares 1 and 4
    scores = one_context([2.0, 0.0, 0.0, 1.0], [1, 2, 0, 0])
    assert ipo(scores, beta=0.5).item() == pytest.approx((1 / 2 + 5 / 2) / 2, rel=1e-12)
    # negatives 3 : 1: 3/4 and 7/4; positives 1 : 4
    scores = one_context([2.0, 0.0, 0.0, 1.0], [1, 2, 0, 0], weights=[0.5, 2.0, 3.0, 1.0])
    assert ipo(scores, beta=0.5).item() == pytest.approx((3 / 4 + 4 * 7 / 4) / 5, rel=1e-12)


def test_ipo_beta_per_negative_by_hand():
    # margins 1 and -2, wanted 1/(2 · 0.5) = 1 and 1/(2 · 2) = 0.25: (0 + 2.25²) / 2
    scores = one_context([1.0, 0.0, 3.0], [1, 0, 0])
    found = ipo(scores, beta=torch.tensor([[math.nan, 0.5, 2.0]], dtype=torch.float64))
    assert found.item() == pytest.approx(2.25**2 / 2, rel=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_ipo_is_least_at_its_margin(beta):
    def slope(margin):
        scores = one_context([margin, 0.0], [1, 0])
        return gradient(ipo(scores, beta), scores)[0]

    turn = 1 / (2 * beta)
    assert ipo(one_context([turn, 0.0], [1, 0]), beta).item() == 0.0
    assert slope(turn) == 0.0
    assert slope(turn - 0.01) == pytest.approx(-0.02)
    assert slope(turn + 0.01) == pytest.approx(0.02)


def test_simpo_by_hand():
    # per token -6/3 = -2 and -12/4 = -3, margin 1: beta 2, gamma 1: log(1 + e^-1)
    scores = one_context([-6.0, -12.0], [1, 0], lengths=[3, 4])
    found = simpo(scores)
    assert found.item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-12)
    # dL/ds = -beta / length sigma(-x)
    wrong = 1 / (1 + math.e)
    assert gradient(found, scores) == pytest.approx([-2 / 3 * wrong, 2 / 4 * wrong], rel=1e-12)


def test_simpo_options_several_positives_and_no_lengths_by_hand():
    # margins 1 and -2; 2 and -1: beta 0.5, gamma 0.3: x = 0.2, -1.3; 0.7, -0.8
    scores = one_context([1.0, 0.0, 3.0, 2.0], [1, 0, 0, 3])
    losses = [math.log1p(math.exp(-x)) for x in (0.2, -1.3, 0.7, -0.8)]
    found = simpo(scores, beta=0.5, gamma=0.3)
    assert found.item() == pytest.approx(sum(losses) / 4, rel=1e-12)


def test_simpo_beta_per_negative_and_weights_by_hand():
    # margins 1 and -2, beta 0.5 and 3, gamma 1: x = -0.5 and -7, weights 1 and 3
    scores = one_context([1.0, 0.0, 3.0], [1, 0, 0], weights=[1.0, 0.5, 1.5])
    found = simpo(scores, beta=torch.tensor([[9.0, 0.5, 3.0]], dtype=torch.float64))
    expected = (math.log1p(math.exp(0.5)) + 3 * math.log1p(math.exp(7))) / 4
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_simpo_without_gamma_and_lengths_is_dpo_without_a_reference():
    scores = one_context([1.0, 0.0, 3.0, 2.0], [1, 0, 0, 3])
    assert simpo(scores, beta=0.7, gamma=0.0).item() == pytest.approx(dpo(scores, 0.7).item())


@pytest.mark.parametrize("gamma", [-0.1, math.inf, math.nan, "1", True])
def test_gamma_out_of_range_is_refused(gamma):
    with pytest.raises(ConfigError, match=r"gamma is .* at least 0"):
        simpo(from_weights([2.0, 1.0], [1, 0]), gamma=gamma)


def test_lipo_sums_over_pairs_by_hand():
    # levels 2, 1, 1, 0 at weights 6, 2, 3, 4, sigma(a - b) = A / (A + B); the two of level 1 are
    # no pair: 6 over 2, 3, 4: 6/8, 6/9, 6/10; 2 over 4: 2/6; 3 over 4: 3/7
    h = torch.tensor([[2.0, 6.0, 4.0, 3.0]], dtype=torch.float64).log()
    scores = CandidateScores(h, levels=torch.tensor([[1, 2, 0, 1]]))
    likelihood = (6 / 8) * (6 / 9) * (6 / 10) * (2 / 6) * (3 / 7)
    assert lipo(scores).item() == pytest.approx(-math.log(likelihood), rel=1e-12)


def test_lipo_gradient_by_hand():
    # beta 2, three levels at 0, so each pair's sigma is 1/2: -2/2 for each win, +2/2 for each loss
    h = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    lipo(CandidateScores(h, levels=torch.tensor([[1, 0, 2]])), beta=2.0).sum().backward()
    assert h.grad is not None
    assert h.grad[0].tolist() == [0.0, 2.0, -2.0]


def test_lipo_of_two_levels_is_dpo_times_its_pairs():
    policy = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    levels = torch.tensor([[1, 0, 0, -1, 1, 0]]).expand(20, -1)  # 2 positives, 3 negatives
    scores = CandidateScores(5 * policy, levels=levels)
    torch.testing.assert_close(lipo(scores, 0.3), 6 * dpo(scores, 0.3), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("levels", [[2, 1, 1, 3], [4, 0, 0, 9], [5, -1, 2, 7]])
def test_lipo_needs_two_levels_and_reads_their_order_only(levels):
    policy = torch.tensor([[0.3, -1.0, 2.0, 0.5]], dtype=torch.float64)
    present = torch.tensor([levels]) >= 0
    plain = torch.tensor([[1, 0, 0, 2]]).masked_fill(~present, -1)
    found = lipo(CandidateScores(policy, levels=torch.tensor([levels])))
    expected = lipo(CandidateScores(policy, levels=plain))
    assert found.item() == expected.item()


def test_lipo_beta_per_pair_by_hand():
    # levels 2, 1, 0 at h = 3, 1, 0; the pair (0, 2) is left out: log(1 + e^-1) + log(1 + e^-3)
    scores = one_context([3.0, 1.0, 0.0], [2, 1, 0])
    beta = torch.full((1, 3, 3), 9.0, dtype=torch.float64)
    beta[0, 0, 1], beta[0, 0, 2], beta[0, 1, 2] = 0.5, 0.0, 3.0
    found = lipo(scores, beta)
    expected = math.log1p(math.exp(-1)) + math.log1p(math.exp(-3))
    assert found.item() == pytest.approx(expected, rel=1e-12)
    first, second = 0.5 / (1 + math.e), 3 / (1 + math.exp(3))
    assert gradient(found, scores) == pytest.approx([-first, first - second, second], rel=1e-12)


def test_lipo_weights_by_hand():
    # levels 2, 1, 1, 0; of level 1 the weights 1 and 3 are 0.5 and 1.5, level 2 has 1 alone
    # 6 over 2, 3, 4: 0.5, 1.5 and 0.25; 2 over 4: 0.5 · 0.25; 3 over 4: 1.5 · 0.25
    scores = from_weights([2.0, 6.0, 4.0, 3.0], [1, 2, 0, 1], weights=[1.0, 7.0, 0.25, 3.0])
    expected = (
        0.5 * math.log(8 / 6)
        + 1.5 * math.log(9 / 6)
        + 0.25 * math.log(10 / 6)
        + 0.125 * math.log(6 / 2)
        + 0.375 * math.log(7 / 3)
    )
    assert lipo(scores).item() == pytest.approx(expected, rel=1e-12)


def test_lambda_weights_by_hand():
    # h = 1, 3, 1, 0 at levels 2, 0, 1, 0: of the two at 1 the worse level ranks first, so ranks
    # 3, 1, 2, 4; discounts 1/log 4, 1/log 2, 1/log 3, 1/log 5; gains 4, 1, 2, 1
    one, two, three, four = (1 / math.log(1 + rank) for rank in (1, 2, 3, 4))
    scores = one_context([1.0, 3.0, 1.0, 0.0], [2, 0, 1, 0])
    found = lipo(scores, lambda_weights=True)
    lost, won, even = math.log1p(math.exp(2)), math.log1p(math.exp(-1)), math.log(2)
    expected = (
        3 * (one - three) * lost  # (0, 1): margin −2
        + 2 * (two - three) * even  # (0, 2): tied
        + 3 * (three - four) * won  # (0, 3): margin 1
        + 1 * (one - two) * lost  # (2, 1)
        + 1 * (two - four) * won  # (2, 3)
    )
    assert found.item() == pytest.approx(expected, rel=1e-12)
    # no gradient through the ranks: -Δ sigma(-x) for the better one
    down, up = 1 / (1 + math.exp(-2)), 1 / (1 + math.e)
    first = 3 * (one - three) * down + 2 * (two - three) / 2 + 3 * (three - four) * up
    third = -2 * (two - three) / 2 + (one - two) * down + (two - four) * up
    expected_gradient = [
        -first,
        3 * (one - three) * down + (one - two) * down,
        -third,
        3 * (three - four) * up + (two - four) * up,
    ]
    assert gradient(found, scores) == pytest.approx(expected_gradient, rel=1e-12)


def test_lambda_weights_share_ranks_within_a_level():
    # both negatives tied at 0 share ranks 2 and 3: Δ = 1/log 2 − 1/log 3.5 each
    scores = one_context([1.0, 0.0, 0.0], [1, 0, 0])
    expected = 2 * (1 / math.log(2) - 1 / math.log(3.5)) * math.log1p(math.exp(-1))
    assert lipo(scores, lambda_weights=True).item() == pytest.approx(expected, rel=1e-12)


def test_lambda_weights_do_not_rank_padding():
    scores = one_context([1.0, 3.0, 1.0, 0.0], [2, 0, 1, 0])
    padded = one_context([9.0, 1.0, 3.0, 2.0, 1.0, 0.0], [-1, 2, 0, -1, 1, 0])
    expected = lipo(scores, lambda_weights=True).item()
    assert lipo(padded, lambda_weights=True).item() == pytest.approx(expected, rel=1e-12)


def test_lambda_weights_rank_by_h_not_by_beta_h_or_the_policy():
    # h = 1, 0 (s = 0, 5): ranks 1 and 2, gain 1: (1/log 2 - 1/log 3) log(1 + e^-0.1)
    scores = one_context([0.0, 5.0], [1, 0], reference=[-1.0, 5.0])
    expected = (1 / math.log(2) - 1 / math.log(3)) * math.log1p(math.exp(-0.1))
    found = lipo(scores, beta=0.1, lambda_weights=True)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_dpo_golden(two_level_case):
    pairs = two_level_case["lipo_bt_pairs"]

    def summed(scores, beta):
        return dpo(scores, beta) * pairs

    assert_in_groups(summed, two_level_case, two_level_case["lipo_bt"])


def test_lipo_golden(setwise_case):
    assert_in_groups(lipo, setwise_case, setwise_case["lipo_bt"])
