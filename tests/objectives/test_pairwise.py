"""dpo: arithmetic by hand, golden values, identities."""

import math

import pytest
import torch

from palate.errors import DataError
from palate.objectives import CandidateScores, dpo, s_dpo


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


def test_golden_bradley_terry(two_level_case):
    case = two_level_case
    policy = torch.tensor([case["logratio"]], dtype=torch.float64, requires_grad=True)
    levels = max(case["group"]) - torch.tensor([case["group"]])
    loss = dpo(CandidateScores(policy, levels=levels), beta=case["beta"]) * case["lipo_bt_pairs"]
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    golden = case["lipo_bt"]
    assert loss.item() == pytest.approx(golden["value"], rel=1e-9, abs=1e-12)
    assert gradient[0].tolist() == pytest.approx(golden["grad"], rel=1e-9, abs=1e-12)
