"""BatchBeta: β by the margins of batches, two and three of them by hand."""

import math

import pytest
import torch

from objectives.handmade import one_context
from palate.errors import ConfigError, DataError
from palate.objectives import CandidateScores, dpo, ipo, lipo, mult_dpo, pl_dpo, s_dpo
from palate.objectives.batch_beta import BatchBeta


def batch(*margins):
    """One context per margin, of one positive and one negative."""
    policy = torch.tensor([[margin, 0.0] for margin in margins], dtype=torch.float64)
    return CandidateScores(policy, levels=torch.tensor([[1, 0]]).expand(len(margins), -1))


def bradley_terry(x):
    return math.log1p(math.exp(-x))


def test_three_batches_by_hand():
    objective = BatchBeta()  # beta 0.1, alpha 0.6, momentum 0.9
    # margin (1 + 3) / 2 = 2, the first: beta 0.1
    found = objective(batch(1.0, 3.0)).tolist()
    assert found == pytest.approx([bradley_terry(0.1), bradley_terry(0.3)], rel=1e-12)
    # margin 5 against 2: beta 0.1 (1 + 0.6 · 3) = 0.28; then 0.9 · 2 + 0.1 · 5 = 2.3
    assert objective(batch(5.0)).item() == pytest.approx(bradley_terry(0.28 * 5), rel=1e-12)
    # margin 1.3 against 2.3: beta 0.1 (1 - 0.6) = 0.04; then 0.9 · 2.3 + 0.1 · 1.3 = 2.2
    assert objective(batch(1.3)).item() == pytest.approx(bradley_terry(0.04 * 1.3), rel=1e-12)
    assert objective.state_dict() == {"running_margin": pytest.approx(2.2, rel=1e-12)}


def test_options_by_hand():
    # margins 1, then 2, alpha 0.5, momentum 0.5: beta 2 (1 + 0.5 · 1) = 3; then (1 + 2) / 2
    objective = BatchBeta(s_dpo, beta=2.0, alpha=0.5, momentum=0.5)
    assert objective(batch(1.0)).item() == pytest.approx(bradley_terry(2), rel=1e-12)
    assert objective(batch(2.0)).item() == pytest.approx(bradley_terry(6), rel=1e-12)
    assert objective.state_dict() == {"running_margin": pytest.approx(1.5)}


def test_beta_has_a_floor():
    objective = BatchBeta()
    objective(batch(10.0))
    # 0.1 (1 + 0.6 (-10 - 10)) = -1.1: 0.001
    assert objective(batch(-10.0)).item() == pytest.approx(bradley_terry(-0.01), rel=1e-12)


def test_the_margin_is_that_of_h_and_contexts_weigh_alike():
    # margins 4 - 0 and 4 - 2, mean 3; and 1: the batch's is (3 + 1) / 2, not (4 + 2 + 1) / 3
    policy = torch.tensor([[9.0, 5.0, 7.0], [9.0, 8.0, 7.0]], dtype=torch.float64)
    reference = torch.tensor([[5.0, 5.0, 5.0], [3.0, 3.0, 3.0]], dtype=torch.float64)
    levels = torch.tensor([[1, 0, 0], [1, 0, -1]])
    objective = BatchBeta()
    objective(CandidateScores(policy, reference, levels=levels))
    assert objective.state_dict() == {"running_margin": pytest.approx(2.0)}


def test_beta_passes_no_gradient():
    scores = one_context([2.0, 0.0], [1, 0])
    objective = BatchBeta()
    objective(batch(1.0))
    (found,) = torch.autograd.grad(objective(scores).sum(), scores.policy)
    # margin 2 against 1: beta 0.1 (1 + 0.6) = 0.16, dL/dh = -beta sigma(-0.32)
    expected = -0.16 / (1 + math.exp(0.32))
    assert found[0].tolist() == pytest.approx([expected, -expected], rel=1e-12)


def test_a_state_goes_on_where_it_was():
    whole, first = BatchBeta(), BatchBeta()
    for one in (whole, first):
        one(batch(1.0, 2.0))
        one(batch(4.0))
    second = BatchBeta()
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    for margin in (-1.0, 3.0):
        assert second(batch(margin)).item() == whole(batch(margin)).item()
    assert second.state_dict() == whole.state_dict()


def test_a_state_before_the_first_batch():
    objective = BatchBeta()
    assert objective.state_dict() == {"running_margin": None}
    objective(batch(3.0))
    objective.load_state_dict({"running_margin": None})
    assert objective(batch(1.0)).item() == pytest.approx(bradley_terry(0.1), rel=1e-12)


@pytest.mark.parametrize("base", [ipo, lipo, mult_dpo, pl_dpo, s_dpo])
def test_any_objective_of_one_beta_will_do(base):
    objective = BatchBeta(base, beta=0.5)
    assert objective(batch(1.0)).item() == pytest.approx(base(batch(1.0), beta=0.5).item())


def test_options_are_passed_on():
    objective = BatchBeta(dpo, beta=0.5, options={"label_smoothing": 0.1})
    expected = dpo(batch(1.0), beta=0.5, label_smoothing=0.1)
    assert objective(batch(1.0)).item() == pytest.approx(expected.item())


def test_it_never_waits_for_the_host():
    policy = torch.empty(3, 5, device="meta")
    scores = CandidateScores(policy, levels=policy.long(), check=False)
    objective = BatchBeta()
    assert objective(scores).shape == (3,)
    assert objective(scores).shape == (3,)


WRONG = [
    {"beta": 0.0},
    {"beta": -1.0},
    {"beta": math.nan},
    {"beta": math.inf},
    {"beta": "1"},
    {"beta": True},
    {"alpha": -0.1},
    {"alpha": math.inf},
    {"momentum": -0.1},
    {"momentum": 1.0},
    {"momentum": math.nan},
]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_number_out_of_range_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"^{name} is .*Expected "):
        BatchBeta(**wrong)


def test_an_unusable_context_is_an_error_and_leaves_no_trace():
    objective = BatchBeta()
    with pytest.raises(DataError, match="Context 0 has no negative"):
        objective(CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 2]])))
    assert objective.state_dict() == {"running_margin": None}


def test_a_broken_batch_does_not_break_the_next():
    objective = BatchBeta()
    objective(batch(2.0))
    policy = torch.tensor([[math.nan, 0.0], [3.0, 0.0]], dtype=torch.float64)
    levels = torch.tensor([[1, 0], [1, 0]])
    found = objective(CandidateScores(policy, levels=levels, check=False))
    assert found[0].isnan()
    assert objective(batch(2.0)).isfinite().all()


def test_a_first_batch_that_is_broken_is_none():
    objective = BatchBeta(beta=0.1)
    policy = torch.tensor([[math.nan, 0.0]], dtype=torch.float64)
    objective(CandidateScores(policy, levels=torch.tensor([[1, 0]]), check=False))
    assert objective.state_dict() == {"running_margin": None}
    objective(batch(2.0))  # the first whole one: its margin starts the running one
    assert objective.state_dict() == {"running_margin": 2.0}
    assert objective.last_beta == pytest.approx(0.1)


def test_a_broken_context_is_nan_alone():
    policy = torch.tensor([[math.nan, 0.0], [3.0, 0.0]], dtype=torch.float64)
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0], [1, 0]]), check=False)
    assert BatchBeta()(scores).isnan().tolist() == [True, False]
