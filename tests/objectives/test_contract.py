"""What every objective in OBJECTIVES keeps, whoever adds it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import ConfigError, DataError
from palate.objectives import OBJECTIVES, CandidateScores, objectives

# no deadline: the first call of an operator in a process is slow
quickly = settings(max_examples=60, deadline=None, derandomize=True)
every_objective = pytest.mark.parametrize("name", sorted(OBJECTIVES))

# adding a constant to every h of a context changes nothing
SHIFT_INVARIANT = ["dmpo", "dpo", "lipo", "mult_dpo", "s_dpo"]
# falls when any one positive rises; mult_dpo pushes its positives toward equal weights instead
DECREASING_IN_EACH_POSITIVE = ["dmpo", "dpo", "lipo", "s_dpo"]
# with one positive and one negative they are one loss
ONE_PAIR_ALIKE = ["dmpo", "dpo", "lipo", "mult_dpo", "s_dpo"]

values = st.floats(-30, 30)
betas = st.floats(0.05, 4)


@st.composite
def batches(draw, max_level=2):
    """(policy, reference, levels): 1–3 contexts of 2–6 candidates, level 0 and 1 in each."""
    contexts, k = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    rows = []
    for _ in range(contexts):
        others = st.lists(st.integers(-1, max_level), min_size=k - 2, max_size=k - 2)
        rows.append(draw(st.permutations([0, 1, *draw(others)])))

    def matrix():
        row = st.lists(values, min_size=k, max_size=k)
        drawn = draw(st.lists(row, min_size=contexts, max_size=contexts))
        return torch.tensor(drawn, dtype=torch.float64)

    return matrix(), matrix(), torch.tensor(rows)


def loss_and_gradient(name, policy, reference, levels, beta=1.0):
    policy = policy.detach().requires_grad_()
    loss = OBJECTIVES[name](CandidateScores(policy, reference, levels=levels), beta=beta)
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    return loss.detach(), gradient


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@every_objective
@quickly
@given(batches(), betas)
def test_one_finite_loss_per_context(name, batch, beta):
    loss, gradient = loss_and_gradient(name, *batch, beta)
    assert loss.shape == batch[0].shape[:1]
    assert loss.dtype == torch.float64
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@every_objective
@quickly
@given(batches(), st.sampled_from([0.0, 1e30, math.nan, math.inf, -math.inf]), st.integers(1, 3))
def test_padding_is_ignored_exactly(name, batch, filling, width):
    policy, reference, levels = batch
    columns = torch.full((len(policy), width), filling, dtype=torch.float64)
    padded = (
        torch.cat([policy, columns], dim=1),
        torch.cat([reference, columns], dim=1),
        torch.cat([levels, torch.full_like(columns, -1).long()], dim=1),
    )
    loss, gradient = loss_and_gradient(name, *batch)
    loss_padded, gradient_padded = loss_and_gradient(name, *padded)
    assert_close(loss_padded, loss)
    assert_close(gradient_padded[:, :-width], gradient)
    assert (gradient_padded[padded[2] < 0] == 0).all()


@every_objective
@quickly
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(name, batch, random):
    order = list(range(batch[0].shape[1]))
    random.shuffle(order)
    loss, gradient = loss_and_gradient(name, *batch)
    loss_shuffled, gradient_shuffled = loss_and_gradient(name, *(t[:, order] for t in batch))
    assert_close(loss_shuffled, loss)
    assert_close(gradient_shuffled, gradient[:, order])


@every_objective
@quickly
@given(batches())
def test_contexts_do_not_touch_each_other(name, batch):
    together, gradient = loss_and_gradient(name, *batch)
    for row in range(len(together)):
        alone, gradient_alone = loss_and_gradient(name, *(t[row : row + 1] for t in batch))
        assert_close(alone, together[row : row + 1])
        assert_close(gradient_alone, gradient[row : row + 1])


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
@quickly
@given(batches(), values)
def test_a_shift_of_h_changes_nothing(name, batch, shift):
    policy, reference, levels = batch
    loss, gradient = loss_and_gradient(name, policy, reference, levels)
    shifted, gradient_shifted = loss_and_gradient(name, policy + shift, reference, levels)
    assert_close(shifted, loss)
    assert_close(gradient_shifted, gradient)
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros_like(loss), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", DECREASING_IN_EACH_POSITIVE)
@quickly
@given(batches(max_level=1), st.floats(0.01, 5), betas)
def test_the_loss_falls_as_any_positive_rises(name, batch, rise, beta):
    policy, reference, levels = batch
    before, gradient = loss_and_gradient(name, policy, reference, levels, beta)
    assert (gradient[levels == 1] <= 0).all()
    assert (gradient[levels == 0] >= 0).all()
    for column in range(policy.shape[1]):
        raised = policy.clone()
        raised[:, column] += rise
        after, _ = loss_and_gradient(name, raised, reference, levels, beta)
        is_positive, is_negative = levels[:, column] == 1, levels[:, column] == 0
        assert (after[is_positive] <= before[is_positive] + 1e-12).all()
        assert (after[is_negative] >= before[is_negative] - 1e-12).all()


@quickly
@given(values, values, values, betas)
def test_one_pair_is_bradley_terry_whatever_the_objective(h_p, h_i, reference, beta):
    policy = torch.tensor([[h_i, h_p, 7.0]], dtype=torch.float64)
    batch = (policy, torch.full_like(policy, reference), torch.tensor([[0, 1, -1]]))
    expected, gradient = loss_and_gradient("dpo", *batch, beta)
    assert expected.item() == pytest.approx(
        float(np.logaddexp(0.0, -beta * (h_p - h_i))), rel=1e-9, abs=1e-12
    )
    for name in ONE_PAIR_ALIKE:
        loss, other = loss_and_gradient(name, *batch, beta)
        assert_close(loss, expected)
        assert_close(other, gradient)


@every_objective
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_a_finite_float32_loss(name, dtype):
    policy = torch.tensor([[-40.0, -3.0, 7.5, 2.0]], dtype=dtype, requires_grad=True)
    reference = torch.tensor([[-4.0, -3.0, -30.0, 2.0]], dtype=dtype)
    levels = torch.tensor([[1, 0, 0, 1]])
    loss = OBJECTIVES[name](CandidateScores(policy, reference, levels=levels))
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    exact, _ = loss_and_gradient(name, policy.double(), reference.double(), levels)
    torch.testing.assert_close(loss.detach().double(), exact, rtol=1e-6, atol=1e-6)


@every_objective
def test_the_gradient_is_the_derivative(name):
    generator = torch.Generator().manual_seed(7)
    policy = torch.randn(4, 6, dtype=torch.float64, generator=generator).requires_grad_()
    reference = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    levels = torch.tensor(
        [[1, 0, 0, 0, 0, 0], [2, 1, 1, 0, 0, -1], [0, -1, 3, -1, 0, 1], [1, 1, 1, 1, 1, 0]]
    )

    def losses(policy):
        return OBJECTIVES[name](CandidateScores(policy, reference, levels=levels), beta=0.7)

    assert torch.autograd.gradcheck(losses, policy)


EXTREMES = {
    "ties": [0.0, 0.0, 0.0, 0.0],
    "positives far above": [1e4, 1e4, -1e4, -1e4],
    "positives far below": [-1e4, -1e4, 1e4, 1e4],
    "far apart in both sets": [1e4, -1e4, 1e4, -1e4],
    "all far down": [-1e4, -1e4, -1e4, -1e4],
}


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("h", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("levels", [[1, 1, 0, 0], [1, -1, 0, -1], [2, 1, 0, 0]])
def test_extreme_scores_stay_finite(name, dtype, h, levels):
    policy = torch.tensor([h], dtype=dtype)
    reference = torch.zeros_like(policy)
    loss, gradient = loss_and_gradient(name, policy, reference, torch.tensor([levels]))
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@every_objective
def test_no_reference_means_a_reference_of_zero(name):
    policy = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    levels = torch.tensor([[1, 0, 0]])
    without = loss_and_gradient(name, policy, None, levels)
    assert_close(without, loss_and_gradient(name, policy, torch.zeros_like(policy), levels))


@every_objective
def test_unchecked_scores_never_wait_for_the_host(name):
    # a meta tensor has no values: whatever asks for one raises
    policy, levels = torch.empty(3, 5, device="meta"), torch.empty(3, 5, device="meta").long()
    scores = CandidateScores(policy, policy, levels=levels, check=False)
    loss = OBJECTIVES[name](scores, beta=torch.empty((), device="meta"))
    assert loss.shape == (3,)


@every_objective
@pytest.mark.parametrize("lacking", [[1, 1, -1], [0, 0, 0], [-1, -1, -1]])
def test_an_unusable_context_is_nan_alone_where_nothing_is_checked(name, lacking):
    policy = torch.tensor([[0.5, -1.0, 2.0], [0.3, 0.2, 0.1]], requires_grad=True)
    levels = torch.tensor([lacking, [1, 0, 0]])
    scores = CandidateScores(policy, levels=levels, check=False)
    loss = OBJECTIVES[name](scores)
    alone, gradient_alone = loss_and_gradient(name, policy[1:], None, levels[1:])
    assert loss.isnan().tolist() == [True, False]
    assert loss[1].item() == pytest.approx(alone.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    torch.testing.assert_close(gradient[1:], gradient_alone)


@every_objective
@pytest.mark.parametrize("column", range(3))
def test_a_broken_score_makes_the_loss_nan_where_nothing_is_checked(name, column):
    policy = torch.tensor([[0.5, -1.0, 2.0]])
    policy[0, column] = -math.inf
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0]]), check=False)
    assert OBJECTIVES[name](scores).isnan().all()


@every_objective
@pytest.mark.parametrize("levels", [[1, 1, -1], [0, 0, -1]])
def test_an_unusable_context_is_an_error(name, levels):
    with pytest.raises(DataError, match="Context 0 has no"):
        OBJECTIVES[name](CandidateScores(torch.zeros(1, 3), levels=torch.tensor([levels])))


@every_objective
@pytest.mark.parametrize("beta", [0.0, -0.5, math.nan])
def test_beta_must_be_above_zero(name, beta):
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 0]]))
    with pytest.raises(ConfigError, match=r"beta is .* above 0"):
        OBJECTIVES[name](scores, beta=beta)


@every_objective
def test_a_large_batch_is_fast_enough(name):
    policy = torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    levels = (torch.arange(100) < 10).long().expand(64, -1)
    loss, gradient = loss_and_gradient(name, policy, torch.zeros_like(policy), levels)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_entry_points_add_to_the_built_in_ones():
    assert objectives() == OBJECTIVES


def test_the_names_that_do_not_move():
    assert {"dpo", "lipo", "dmpo", "s_dpo", "mult_dpo"} <= set(OBJECTIVES)
