"""s_dpo: arithmetic by hand, golden values, accuracy where softplus has none."""

import math

import pytest
import torch

from palate.errors import DataError
from palate.objectives import CandidateScores, s_dpo


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


def test_a_constant_beta_per_negative_is_that_scalar():
    policy = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0, 1, -1]]).expand(3, -1))
    torch.testing.assert_close(s_dpo(scores, torch.full((3, 5), 0.4)), s_dpo(scores, 0.4))


def test_exact_above_twenty():
    # softplus would give 21 itself; log(1 + e^21) - 21 = log1p(e^-21) = 7.58e-10
    scores = CandidateScores(
        torch.tensor([[0.0, 21.0]], dtype=torch.float64), levels=torch.tensor([[1, 0]])
    )
    assert s_dpo(scores).item() - 21 == pytest.approx(math.log1p(math.exp(-21)), rel=1e-4)


def test_levels_above_zero_alone_are_not_enough():
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 2]]))
    with pytest.raises(DataError, match="Context 0 has no negative"):
        s_dpo(scores)


# half of the cases are float32: computed in float64 they bind as tightly, in float32 as README says
@pytest.mark.parametrize(
    ("dtype", "rel", "tiny"), [(torch.float64, 1e-9, 1e-12), (torch.float32, 2e-4, 1e-6)]
)
def test_golden(sdpo_case, dtype, rel, tiny):
    case = sdpo_case

    def joined(name):
        chosen = torch.tensor(case[f"{name}_chosen"], dtype=dtype)[:, None]
        return torch.cat([chosen, torch.tensor(case[f"{name}_rejected"], dtype=dtype)], dim=1)

    policy = joined("policy").requires_grad_()
    levels = torch.zeros(policy.shape, dtype=torch.long)
    levels[:, 0] = 1
    loss = s_dpo(CandidateScores(policy, joined("reference"), levels=levels), beta=case["beta"])
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    golden = case["stable_float64"]
    expected = torch.cat(
        [
            torch.tensor(golden["grad_chosen"], dtype=torch.float64)[:, None],
            torch.tensor(golden["grad_rejected"], dtype=torch.float64),
        ],
        dim=1,
    )
    assert loss.tolist() == pytest.approx(golden["losses"], rel=rel, abs=tiny)
    torch.testing.assert_close(gradient.double(), expected, rtol=rel, atol=tiny)
