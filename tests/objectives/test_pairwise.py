"""dpo and lipo: arithmetic by hand, golden values, identities."""

import math

import pytest
import torch

from palate.errors import ConfigError, DataError
from palate.objectives import CandidateScores, dpo, lipo, s_dpo


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


def test_levels_above_zero_alone_are_not_enough():
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 2]]))
    with pytest.raises(DataError, match="Context 0 has no negative"):
        dpo(scores)


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


def test_lipo_refuses_a_beta_per_negative():
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 0]]))
    with pytest.raises(ConfigError, match="one value for all candidates"):
        lipo(scores, beta=torch.ones(1, 2))


def test_dpo_golden(two_level_case):
    case = two_level_case
    policy = torch.tensor([case["logratio"]], dtype=torch.float64, requires_grad=True)
    levels = max(case["group"]) - torch.tensor([case["group"]])
    loss = dpo(CandidateScores(policy, levels=levels), beta=case["beta"]) * case["lipo_bt_pairs"]
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    golden = case["lipo_bt"]
    assert loss.item() == pytest.approx(golden["value"], rel=1e-9, abs=1e-12)
    assert gradient[0].tolist() == pytest.approx(golden["grad"], rel=1e-9, abs=1e-12)


def test_lipo_golden(setwise_case):
    case = setwise_case
    policy = torch.tensor([case["logratio"]], dtype=torch.float64, requires_grad=True)
    levels = max(case["group"]) - torch.tensor([case["group"]])
    loss = lipo(CandidateScores(policy, levels=levels), beta=case["beta"])
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    golden = case["lipo_bt"]
    assert loss.item() == pytest.approx(golden["value"], rel=1e-9, abs=1e-12)
    assert gradient[0].tolist() == pytest.approx(golden["grad"], rel=1e-9, abs=1e-12)
