"""What every objective in OBJECTIVES keeps, whoever adds it, alone and inside DynamicPO."""

import math
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import ConfigError, DataError
from palate.objectives import (
    OBJECTIVES,
    CandidateScores,
    DynamicPO,
    objectives,
    setwise_bound_gap,
)


def dynamic(base, scores, beta=1.0):
    return DynamicPO(base, beta=beta)(scores)


PLAIN = sorted(OBJECTIVES)
DYNAMIC = [f"dynamic_{base}" for base in PLAIN]
EVERY = {**OBJECTIVES, **{f"dynamic_{base}": partial(dynamic, base) for base in PLAIN}}

every_objective = pytest.mark.parametrize("name", [*PLAIN, *DYNAMIC])
plain_objective = pytest.mark.parametrize("name", PLAIN)
# no deadline: the first call of an operator in a process is slow
quickly = partial(settings, deadline=None, derandomize=True)

# the only ones that read log_q; the others refuse it
SOFTMAX = ["mult_dpo", "pl_dpo", "s_dpo"]
# adding a constant to every h of a context changes nothing
SHIFT_INVARIANT = ["dmpo", "dpo", "ipo", "lipo", "mult_dpo", "pl_dpo", "s_dpo", "simpo"]
REFERENCE_FREE = ["mppo", "simpo"]
# falls when any one positive rises; mult_dpo pushes its positives toward equal weights instead
DECREASING_IN_EACH_POSITIVE = ["dmpo", "dpo", "lipo", "mppo", "pl_dpo", "s_dpo", "simpo"]
# with one positive and one negative they are one loss
ONE_PAIR_ALIKE = ["dmpo", "dpo", "lipo", "mult_dpo", "pl_dpo", "s_dpo"]
# the mean over the positives of what each would have alone
MEAN_OVER_POSITIVES = ["dmpo", "dpo", "ipo", "mppo", "s_dpo", "simpo"]

values = st.integers(-1920, 1920).map(lambda n: n / 64)
betas = st.floats(0.05, 4)


def base_of(name):
    return name.removeprefix("dynamic_")


@st.composite
def batches(draw, max_level=2, fields=("lengths", "weights", "log_q")):
    """1–3 contexts of 2–6 candidates, level 0 and 1 in each; `fields` are there or not."""
    contexts, k = draw(st.integers(1, 3)), draw(st.integers(2, 6))

    def matrix(of_byte):
        drawn = draw(st.binary(min_size=contexts * k, max_size=contexts * k))
        tensor = torch.tensor([of_byte(byte) for byte in drawn], dtype=torch.float64)
        return tensor.reshape(contexts, k)

    levels = matrix(lambda byte: byte % (max_level + 2) - 1).long()
    for row in range(contexts):
        zero, one = draw(st.sampled_from(list(permutations(range(k), 2))))
        levels[row, zero], levels[row, one] = 0, 1
    batch = {"policy": matrix(score), "reference": matrix(score), "levels": levels}
    for name in fields:
        if draw(st.booleans()):
            batch[name] = matrix({"lengths": lambda byte: byte % 9 + 1}.get(name, mass))
    return batch


def score(byte):
    """A number on a grid, so that sums are exact and ties are frequent."""
    return ((byte + 128) % 256 - 128) / 4


def mass(byte):
    return (byte + 1) / 64


def property_of(names, *strategies):
    """A test of each objective on drawn input: 40 examples, and 15 inside DynamicPO."""

    def of(test):
        @pytest.mark.parametrize("name", names)
        def run(name):
            drawn = quickly(max_examples=15 if name in DYNAMIC else 40)
            drawn(given(*strategies)(test))(name)

        return run

    return of


def readable(name, batch):
    """The batch without what this objective refuses."""
    batch = dict(batch)
    if base_of(name) not in SOFTMAX:
        batch.pop("log_q", None)
    if base_of(name) == "pl_dpo" and batch.get("weights") is not None:
        batch["weights"] = torch.where(batch["levels"] > 0, 1.0, batch["weights"])
    return batch


def loss_and_gradient(name, batch, beta=1.0):
    batch = readable(name, batch)
    policy = batch.pop("policy").detach().requires_grad_()
    loss = EVERY[name](CandidateScores(policy, **batch), beta=beta)
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    return loss.detach(), gradient


def of(policy, levels, reference=None, **more):
    return {"policy": policy, "reference": reference, "levels": levels, **more}


def changed(batch, change):
    return {name: tensor if tensor is None else change(tensor) for name, tensor in batch.items()}


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@property_of([*PLAIN, *DYNAMIC], batches(), betas)
def test_one_finite_loss_per_context(name, batch, beta):
    loss, gradient = loss_and_gradient(name, batch, beta)
    assert loss.shape == batch["policy"].shape[:1]
    assert loss.dtype == torch.float64
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@property_of(
    [*PLAIN, *DYNAMIC],
    batches(),
    st.sampled_from([0.0, 1e30, math.nan, math.inf, -math.inf]),
    st.integers(1, 3),
)
def test_padding_is_ignored_exactly(name, batch, filling, width):
    columns = torch.full((len(batch["policy"]), width), filling, dtype=torch.float64)
    padded = changed(batch, lambda tensor: torch.cat([tensor, columns], dim=1))
    padded["levels"] = torch.cat([batch["levels"], torch.full_like(columns, -1).long()], dim=1)
    loss, gradient = loss_and_gradient(name, batch)
    loss_padded, gradient_padded = loss_and_gradient(name, padded)
    assert_close(loss_padded, loss)
    assert_close(gradient_padded[:, :-width], gradient)
    assert (gradient_padded[padded["levels"] < 0] == 0).all()


@property_of([*PLAIN, *DYNAMIC], batches(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(name, batch, random):
    order = list(range(batch["policy"].shape[1]))
    random.shuffle(order)
    loss, gradient = loss_and_gradient(name, batch)
    shuffled = changed(batch, lambda tensor: tensor[:, order])
    loss_shuffled, gradient_shuffled = loss_and_gradient(name, shuffled)
    assert_close(loss_shuffled, loss)
    assert_close(gradient_shuffled, gradient[:, order])


@property_of([*PLAIN, *DYNAMIC], batches())
def test_contexts_do_not_touch_each_other(name, batch):
    together, gradient = loss_and_gradient(name, batch)
    for row in range(len(together)):
        one = changed(batch, lambda tensor, row=row: tensor[row : row + 1])
        alone, gradient_alone = loss_and_gradient(name, one)
        assert_close(alone, together[row : row + 1])
        assert_close(gradient_alone, gradient[row : row + 1])


@property_of(
    SHIFT_INVARIANT + [f"dynamic_{base}" for base in SHIFT_INVARIANT],
    batches(fields=("weights", "log_q")),
    values,
)
def test_a_shift_of_h_changes_nothing(name, batch, shift):
    loss, gradient = loss_and_gradient(name, batch)
    shifted = {**batch, "policy": batch["policy"] + shift}
    loss_shifted, gradient_shifted = loss_and_gradient(name, shifted)
    assert_close(loss_shifted, loss)
    assert_close(gradient_shifted, gradient)
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros_like(loss), rtol=0, atol=1e-11)


@property_of(DECREASING_IN_EACH_POSITIVE, batches(max_level=1), st.floats(0.01, 5), betas)
def test_the_loss_falls_as_any_positive_rises(name, batch, rise, beta):
    levels = batch["levels"]
    before, gradient = loss_and_gradient(name, batch, beta)
    assert (gradient[levels == 1] <= 0).all()
    assert (gradient[levels == 0] >= 0).all()
    for column in range(levels.shape[1]):
        raised = {**batch, "policy": batch["policy"].clone()}
        raised["policy"][:, column] += rise
        after, _ = loss_and_gradient(name, raised, beta)
        is_positive, is_negative = levels[:, column] == 1, levels[:, column] == 0
        assert (after[is_positive] <= before[is_positive] + 1e-12).all()
        assert (after[is_negative] >= before[is_negative] - 1e-12).all()


@property_of([f"dynamic_{base}" for base in DECREASING_IN_EACH_POSITIVE], batches(max_level=1))
def test_dynamicpo_lifts_positives_and_lowers_boundary_negatives_alone(name, batch):
    _, gradient = loss_and_gradient(name, batch)
    scores = CandidateScores(**batch)
    boundary = DynamicPO(base_of(name)).boundary(scores)
    assert (gradient[scores.positives] <= 0).all()
    assert (gradient[boundary] >= 0).all()
    assert (gradient[scores.negatives & ~boundary] == 0).all()


@quickly(max_examples=60)
@given(values, values, values, betas)
def test_one_pair_is_bradley_terry_whatever_the_objective(h_p, h_i, reference, beta):
    policy = torch.tensor([[h_i, h_p, 7.0]], dtype=torch.float64)
    batch = of(policy, torch.tensor([[0, 1, -1]]), torch.full_like(policy, reference))
    expected, gradient = loss_and_gradient("dpo", batch, beta)
    assert expected.item() == pytest.approx(
        float(np.logaddexp(0.0, -beta * (h_p - h_i))), rel=1e-9, abs=1e-12
    )
    for name in ONE_PAIR_ALIKE:
        loss, other = loss_and_gradient(name, batch, beta)
        assert_close(loss, expected)
        assert_close(other, gradient)


@property_of(
    ["mult_dpo", "pl_dpo", "dynamic_mult_dpo", "dynamic_pl_dpo"], batches(max_level=0), betas
)
def test_one_positive_makes_the_set_wise_objectives_s_dpo(name, batch, beta):
    s_dpo = "dynamic_s_dpo" if name in DYNAMIC else "s_dpo"
    # weights of one positive do not count, but pl_dpo refuses them
    batch = readable("pl_dpo", batch)
    expected, gradient = loss_and_gradient(s_dpo, batch, beta)
    loss, other = loss_and_gradient(name, batch, beta)
    assert_close(loss, expected)
    assert_close(other, gradient)


@property_of(PLAIN, batches(max_level=1), betas)
def test_dynamicpo_of_violating_negatives_without_margins_is_its_base(name, batch, beta):
    # every positive below every negative, so that all are at the boundary; scale 0 keeps beta
    batch = readable(name, batch)
    batch["policy"] = batch["policy"] - 64.0 * (batch["levels"] == 1)
    scores = CandidateScores(**batch)
    found = DynamicPO(name, beta=beta, scale=0.0)(scores)
    torch.testing.assert_close(found, OBJECTIVES[name](scores, beta=beta), rtol=1e-9, atol=1e-11)


@quickly(max_examples=60)
@given(batches(max_level=1, fields=()), betas)
def test_mult_dpo_pulls_a_positive_toward_its_share(batch, beta):
    # dL/dh_p = beta (k softmax_p - 1) changes sign at softmax_p = 1/k
    _, gradient = loss_and_gradient("mult_dpo", batch, beta)
    real, is_positive = batch["levels"] >= 0, batch["levels"] == 1
    h = (beta * (batch["policy"] - batch["reference"])).masked_fill(~real, -math.inf)
    k = is_positive.sum(dim=1, keepdim=True)
    expected = beta * (k * h.softmax(dim=1) - is_positive.double())
    assert_close(gradient, expected)


@property_of([*PLAIN, *DYNAMIC], batches(fields=("lengths",)), st.floats(-9, 0))
def test_weights_of_one_and_a_constant_log_q_change_nothing(name, batch, log_q):
    constant = {
        "weights": torch.ones_like(batch["policy"]),
        "log_q": torch.full_like(batch["policy"], log_q),
    }
    loss, gradient = loss_and_gradient(name, batch)
    loss_same, gradient_same = loss_and_gradient(name, {**batch, **constant})
    assert_close(loss_same, loss)
    assert_close(gradient_same, gradient)


@property_of(
    [*PLAIN, *DYNAMIC],
    batches(),
    st.lists(st.integers(-1, 2), min_size=1, max_size=3),
    st.sampled_from([0.5, math.nan]),
)
def test_a_candidate_of_weight_zero_is_as_if_absent(name, batch, levels, filling):
    width = len(levels)
    batch.setdefault("weights", torch.ones_like(batch["policy"]))
    columns = torch.full((len(batch["policy"]), width), filling, dtype=torch.float64)
    more = changed(batch, lambda tensor: torch.cat([tensor, columns], dim=1))
    more["levels"] = torch.cat([batch["levels"], torch.tensor([levels] * len(columns))], dim=1)
    more["weights"][:, -width:] = 0.0
    batch, more = readable(name, batch), readable(name, more)
    more["weights"][:, -width:] = 0.0
    loss, gradient = loss_and_gradient(name, batch)
    scores = CandidateScores(**{**more, "policy": more["policy"].requires_grad_()})
    loss_more = EVERY[name](scores, beta=1.0)
    (gradient_more,) = torch.autograd.grad(loss_more.sum(), more["policy"])
    assert_close(loss_more.detach(), loss)
    assert_close(gradient_more[:, :-width], gradient)
    assert (gradient_more[:, -width:] == 0).all()


@property_of(PLAIN, batches(fields=("lengths", "log_q")), st.integers(2, 4))
def test_a_negative_of_weight_n_is_n_negatives(name, batch, n):
    column = int((batch["levels"][0] == 0).nonzero()[0])
    first = changed(batch, lambda tensor: tensor[:1])
    # the correction for sampling counts draws, not credibility: uniform draws here
    first.pop("log_q", None)
    copies = changed(first, lambda t: torch.cat([t, t[:, [column] * (n - 1)]], dim=1))
    weights = torch.ones_like(first["policy"])
    weights[0, column] = n
    loss, gradient = loss_and_gradient(name, {**first, "weights": weights})
    loss_copies, each = loss_and_gradient(name, copies)
    width = weights.shape[1]
    assert_close(loss, loss_copies)
    assert_close(gradient[0, column], each[0, column] + each[0, width:].sum())


@property_of(MEAN_OVER_POSITIVES, batches(fields=("lengths",)), st.integers(2, 4))
def test_a_positive_of_weight_n_is_n_positives(name, batch, n):
    column = int((batch["levels"][0] == 1).nonzero()[0])
    first = changed(batch, lambda tensor: tensor[:1])
    copies = changed(first, lambda t: torch.cat([t, t[:, [column] * (n - 1)]], dim=1))
    weights = torch.ones_like(first["policy"])
    weights[0, column] = n
    loss, _ = loss_and_gradient(name, {**first, "weights": weights})
    loss_copies, _ = loss_and_gradient(name, copies)
    assert_close(loss, loss_copies)


@property_of(
    [n for n in [*PLAIN, *DYNAMIC] if base_of(n) != "pl_dpo"],
    batches(max_level=1),
    st.floats(0.1, 10),
)
def test_only_ratios_of_positive_weights_count(name, batch, factor):
    batch.setdefault("weights", torch.ones_like(batch["policy"]))
    scaled = torch.where(batch["levels"] > 0, factor * batch["weights"], batch["weights"])
    loss, gradient = loss_and_gradient(name, batch)
    loss_scaled, gradient_scaled = loss_and_gradient(name, {**batch, "weights": scaled})
    assert_close(loss_scaled, loss)
    assert_close(gradient_scaled, gradient)


@quickly(max_examples=60)
@given(batches(fields=("log_q",)), st.floats(0.05, 2))
def test_the_gap_to_the_surrogate_is_within_its_bound(batch, beta):
    scores = CandidateScores(**batch)
    gap, bound = setwise_bound_gap(scores, beta)
    assert (gap >= 0).all()
    assert (gap <= bound).all()
    mult = OBJECTIVES["mult_dpo"](scores, beta=beta)
    difference = mult - OBJECTIVES["pl_dpo"](scores, beta=beta)
    rounding = 1e-10 * (1 + mult)
    assert (difference >= -rounding).all()  # what the gap was before it was cut off
    assert (difference <= bound + rounding).all()
    assert ((gap - difference).abs() <= rounding).all()


@every_objective
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_a_finite_float32_loss(name, dtype):
    policy = torch.tensor([[-40.0, -3.0, 7.5, 2.0]], dtype=dtype, requires_grad=True)
    reference = torch.tensor([[-4.0, -3.0, -30.0, 2.0]], dtype=dtype)
    levels = torch.tensor([[1, 0, 0, 1]])
    loss = EVERY[name](CandidateScores(policy, reference, levels=levels), beta=1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    exact, _ = loss_and_gradient(name, of(policy.double(), levels, reference.double()))
    torch.testing.assert_close(loss.detach().double(), exact, rtol=1e-6, atol=1e-6)


@plain_objective
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_the_derivative(name, weighted):
    generator = torch.Generator().manual_seed(7)
    policy = torch.randn(4, 6, dtype=torch.float64, generator=generator).requires_grad_()
    levels = torch.tensor(
        [[1, 0, 0, 0, 0, 0], [2, 1, 1, 0, 0, -1], [0, -1, 3, -1, 0, 1], [1, 1, 1, 1, 1, 0]]
    )
    batch = of(policy, levels, torch.randn(4, 6, dtype=torch.float64, generator=generator))
    if weighted:
        batch["weights"] = torch.rand(4, 6, generator=generator).double() + 0.1
        batch["log_q"] = -3 * torch.rand(4, 6, generator=generator).double()
        batch["lengths"] = torch.randint(1, 9, (4, 6), generator=generator)
    batch = readable(name, batch)

    def losses(policy):
        return OBJECTIVES[name](CandidateScores(**{**batch, "policy": policy}), beta=0.7)

    assert torch.autograd.gradcheck(losses, policy)


EXTREMES = {
    "ties": [0.0, 0.0, 0.0, 0.0],
    "positives far above": [1e4, 1e4, -1e4, -1e4],
    "positives far below": [-1e4, -1e4, 1e4, 1e4],
    "far apart in both sets": [1e4, -1e4, 1e4, -1e4],
    "all far down": [-1e4, -1e4, -1e4, -1e4],
    "one far up": [0.5, 1e4, -0.25, 3.0],
    "one far down": [-1e4, 2.0, 1.5, -3.0],
    "near and far": [-1e4, 0.25, 1e4, 0.0],
    "nearly tied far up": [1e4, 1e4 - 0.5, 1e4 - 1, 1e4 + 1],
}


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("h", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("levels", [[1, 1, 0, 0], [1, -1, 0, -1], [2, 1, 0, 0]])
def test_extreme_scores_stay_finite(name, dtype, h, levels):
    policy = torch.tensor([h], dtype=dtype)
    batch = of(policy, torch.tensor([levels]), torch.zeros_like(policy))
    loss, gradient = loss_and_gradient(name, batch)
    assert loss.dtype == dtype
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@every_objective
def test_no_reference_means_a_reference_of_zero(name):
    policy = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    levels = torch.tensor([[1, 0, 0]])
    without = loss_and_gradient(name, of(policy, levels))
    assert_close(without, loss_and_gradient(name, of(policy, levels, torch.zeros_like(policy))))


@plain_objective
def test_who_reads_the_reference(name):
    policy = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    levels = torch.tensor([[1, 0, 0]])
    without, _ = loss_and_gradient(name, of(policy, levels))
    found, _ = loss_and_gradient(name, of(policy, levels, policy.flip(1)))
    assert (found.item() == without.item()) is (name in REFERENCE_FREE)


@plain_objective
def test_who_reads_log_q(name):
    scores = CandidateScores(
        torch.zeros(1, 3), levels=torch.tensor([[1, 0, 0]]), log_q=torch.tensor([[0.0, -1.0, -2.0]])
    )
    wrappers = [OBJECTIVES[name], EVERY[f"dynamic_{name}"]]
    for objective in wrappers:
        if name in SOFTMAX:
            assert objective(scores, beta=1.0).isfinite().all()
        else:
            with pytest.raises(ConfigError, match=f"which {name} has not. Leave log_q out"):
                objective(scores, beta=1.0)


@every_objective
@pytest.mark.parametrize("max_positives", [None, 2])
def test_unchecked_scores_never_wait_for_the_host(name, max_positives):
    # a meta tensor has no values: whatever asks for one raises
    policy = torch.empty(3, 5, device="meta")
    batch = of(policy, policy.long(), policy, lengths=policy, weights=policy, log_q=policy)
    for fields in (batch, {**batch, "lengths": None, "weights": None, "log_q": None}):
        scores = CandidateScores(**readable(name, fields), check=False, max_positives=max_positives)
        beta = 1.0 if name in DYNAMIC else torch.empty((), device="meta")
        assert EVERY[name](scores, beta=beta).shape == (3,)


@every_objective
@pytest.mark.parametrize("lacking", [[1, 1, -1], [0, 0, 0], [-1, -1, -1]])
def test_an_unusable_context_is_nan_alone_where_nothing_is_checked(name, lacking):
    policy = torch.tensor([[0.5, -1.0, 2.0], [0.3, 0.2, 0.1]], requires_grad=True)
    levels = torch.tensor([lacking, [1, 0, 0]])
    scores = CandidateScores(policy, levels=levels, check=False)
    loss = EVERY[name](scores, beta=1.0)
    alone, gradient_alone = loss_and_gradient(name, of(policy[1:], levels[1:]))
    assert loss.isnan().tolist() == [True, False]
    assert loss[1].item() == pytest.approx(alone.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    torch.testing.assert_close(gradient[1:], gradient_alone)


@every_objective
@pytest.mark.parametrize("column", range(4))
def test_a_broken_score_makes_the_loss_nan_where_nothing_is_checked(name, column):
    # inside DynamicPO only 2.0 is at the boundary of 0.5
    policy = torch.tensor([[0.5, -1.0, 2.0, -7.0]]).repeat(2, 1)
    policy[0, column] = -math.inf
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0, 0]] * 2), check=False)
    assert EVERY[name](scores, beta=1.0).isnan().tolist() == [True, False]


BROKEN = {
    "reference": (math.nan, [name for name in PLAIN if name not in REFERENCE_FREE]),
    "lengths": (0.0, REFERENCE_FREE),
    "weights": (math.nan, PLAIN),
    "log_q": (math.inf, SOFTMAX),
}


@pytest.mark.parametrize(
    ("field", "value", "name"), [(f, v, name) for f, (v, names) in BROKEN.items() for name in names]
)
@pytest.mark.parametrize("column", [1, 2])
def test_a_broken_field_makes_the_loss_nan_where_nothing_is_checked(field, value, name, column):
    given = torch.ones(2, 3)
    given[0, column] = value
    levels = torch.tensor([[1, 0, 0]] * 2)
    scores = CandidateScores(torch.zeros(2, 3), levels=levels, check=False, **{field: given})
    assert OBJECTIVES[name](scores).isnan().tolist() == [True, False]


@plain_objective
def test_more_positives_than_promised_are_nan_where_nothing_is_checked(name):
    policy, levels = torch.tensor([[1.0, 2.0, 0.0]] * 2), torch.tensor([[1, 1, 0], [1, 0, 0]])
    scores = CandidateScores(policy, levels=levels, check=False, max_positives=1)
    assert OBJECTIVES[name](scores).isnan().tolist() == [True, False]
    assert EVERY[f"dynamic_{name}"](scores).isnan().tolist() == [True, False]


@every_objective
@pytest.mark.parametrize("levels", [[1, 1, -1], [0, 0, -1]])
def test_an_unusable_context_is_an_error(name, levels):
    with pytest.raises(DataError, match="Context 0 has no"):
        EVERY[name](CandidateScores(torch.zeros(1, 3), levels=torch.tensor([levels])))


NEED_LEVEL_ZERO = [*MEAN_OVER_POSITIVES, *(f"dynamic_{name}" for name in MEAN_OVER_POSITIVES)]


@every_objective
def test_levels_above_zero_alone_are_enough_for_set_wise_objectives(name):
    scores = CandidateScores(torch.zeros(1, 3), levels=torch.tensor([[1, 2, -1]]))
    if name in NEED_LEVEL_ZERO:
        with pytest.raises(DataError, match=r"Context 0 has no negative: .* levels 1, 2"):
            EVERY[name](scores, beta=1.0)
    else:
        assert EVERY[name](scores, beta=1.0).item() == pytest.approx(math.log(2), rel=1e-6)


@every_objective
@pytest.mark.parametrize("beta", [0.0, -0.5, math.nan, math.inf])
def test_beta_must_be_above_zero(name, beta):
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 0]]))
    with pytest.raises(ConfigError, match=r"beta is .* above 0"):
        EVERY[name](scores, beta=beta)


@plain_objective
def test_a_beta_per_negative_or_pair_may_be_that_scalar(name):
    policy = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0, 2, -1]]).expand(3, -1))
    shape = (3, 5) if name in MEAN_OVER_POSITIVES else (3, 5, 5)
    found = OBJECTIVES[name](scores, beta=torch.full(shape, 0.4))
    torch.testing.assert_close(found, OBJECTIVES[name](scores, beta=0.4))


@plain_objective
def test_a_beta_of_another_shape_is_refused(name):
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 0]]))
    shape = (1, 2, 2) if name in MEAN_OVER_POSITIVES else (1, 2)
    with pytest.raises(ConfigError, match=r"beta has shape \(1, 2"):
        OBJECTIVES[name](scores, beta=torch.ones(shape))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in sorted(OBJECTIVES)),
        ("lipo", {"lambda_weights": True}),
        ("dpo", {"label_smoothing": 0.1}),
        ("mppo", {"likelihood": "sequence"}),
        ("mult_dpo", {"reduction_per_context": "mean_positive"}),
        ("pl_dpo", {"reduction_per_context": "mean_positive"}),
    ],
    ids=str,
)
def test_the_first_step_moves_something(name, options):
    """Policy equal to reference, as training starts: a loss without gradient never begins."""
    s = torch.tensor([[-2.0, -2.5, -1.0, -3.0]], requires_grad=True)
    scores = CandidateScores(s, s.detach().clone(), levels=torch.tensor([[2, 1, 0, 0]]))
    loss = OBJECTIVES[name](scores, beta=1.0, **options)
    (found,) = torch.autograd.grad(loss.sum(), s)
    assert (found[0, :2] < 0).all()
    assert (found[0, 2:] > 0).all()


def test_entry_points_add_to_the_built_in_ones():
    assert objectives() == OBJECTIVES


def test_the_names_that_do_not_move():
    assert {"dpo", "lipo", "dmpo", "s_dpo", "mult_dpo"} <= set(OBJECTIVES)
    assert {"ipo", "simpo", "mppo", "pl_dpo"} <= set(OBJECTIVES)


@pytest.mark.parametrize("second", [*PLAIN, *DYNAMIC])
@pytest.mark.parametrize("first", ["ipo", "dynamic_s_dpo", "mult_dpo"])
def test_two_objectives_may_be_differentiated_one_after_the_other(first, second):
    """Each with the gradient that it has on scores of its own."""
    levels = torch.tensor([[1, 0, 0, -1], [0, 2, 1, 0]])

    reference = torch.tensor([[-2.0, -1.5, -3.0, 0.0], [-2.5, -1.0, -3.5, -0.5]])

    def scores_of(policy):
        return CandidateScores(policy, reference, levels=levels)

    def fresh():
        return torch.tensor(
            [[-1.0, -2.5, -0.5, math.nan], [-3.0, -1.0, -2.0, -0.25]],
            dtype=torch.float64,
            requires_grad=True,
        )

    policy = fresh()
    shared = scores_of(policy)
    for name in (first, second):
        policy.grad = None
        EVERY[name](shared).sum().backward()
        alone = fresh()
        EVERY[name](scores_of(alone)).sum().backward()
        torch.testing.assert_close(policy.grad, alone.grad, rtol=0, atol=0)


def test_scores_take_transforms_of_functions():
    """torch.func differentiates through them as autograd does."""
    levels = torch.tensor([[1, 0, 0, -1]])

    def loss(policy):
        scores = CandidateScores(policy, levels=levels, check=False, max_positives=1)
        return OBJECTIVES["s_dpo"](scores).sum()

    policy = torch.tensor([[-1.0, -2.5, -0.5, 0.0]], dtype=torch.float64)
    weights = torch.softmax(policy[:, :3], dim=1)
    by_hand = torch.cat([weights - torch.tensor([[1.0, 0, 0]]), torch.zeros(1, 1)], dim=1)
    torch.testing.assert_close(torch.func.grad(loss)(policy), by_hand)
