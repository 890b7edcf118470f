"""DynamicPO: against exhaustive clustering, plain Python, golden values and hand arithmetic."""

import math
import random
from fractions import Fraction
from functools import partial

import pytest
import torch

from objectives.golden import TOLERANCE, chosen_and_rejected, with_chosen
from objectives.handmade import gradient, one_context
from palate.errors import ConfigError, DataError
from palate.objectives import (
    OBJECTIVES,
    CandidateScores,
    DynamicPO,
    dmpo,
    dpo,
    mult_dpo,
    s_dpo,
)
from palate.objectives.dynamicpo import boundary_negatives, dual_margin_beta, top_cluster

EVERY_WIDTH = math.lcm(*range(1, 21))


def exhaustive_top(values):
    """Members of the top cluster of a list of integers or fractions, every pair of cuts tried.

    The squared distances to the means are least where Σ (sum of a group)² / its size is largest;
    times a common multiple of all sizes, this is exact.
    """
    ordered = sorted(values, reverse=True)
    n = len(ordered)
    cuts = [i for i in range(1, n) if ordered[i - 1] != ordered[i]]
    sums = [0]
    for value in ordered:
        sums.append(sums[-1] + value)

    def gain(*ends):
        starts = (0, *ends[:-1])
        return sum(
            (sums[end] - sums[start]) ** 2 * (EVERY_WIDTH // (end - start))
            for start, end in zip(starts, ends, strict=True)
        )

    if not cuts:
        return [True] * n
    if len(cuts) == 1:
        best = cuts[0]
    else:
        tried = [(gain(a, b, n), -a) for a in cuts for b in cuts if a < b]
        best = -max(tried)[1]  # the smaller top group of equally good ones
    return [value >= ordered[best - 1] for value in values]


def assert_top(rows, offset=0.0, dtype=torch.float64, unit=Fraction(1)):
    """`top_cluster` of rows of integers, times unit, plus offset, finds what exhaustion finds."""
    width = max(len(row) for row in rows)
    values = torch.full((len(rows), width), math.nan, dtype=dtype)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        values[i, : len(row)] = torch.tensor(row, dtype=torch.float64) * float(unit) + offset
        mask[i, : len(row)] = True
    found = top_cluster(values, mask).tolist()
    for row, members in zip(rows, found, strict=True):
        assert members == exhaustive_top(row) + [False] * (width - len(row)), row


def test_the_top_cluster_of_10000_rows_of_small_integers():
    rng = random.Random(0)
    rows = []
    for i in range(10_000):
        size = rng.randint(1, 20) if i % 5 == 0 else rng.randint(1, 8)
        largest = rng.choice([1, 2, 4, 9, 40])
        rows.append([rng.randint(-largest, largest) for _ in range(size)])
    assert_top(rows)


def test_the_drawn_rows_have_equally_good_cuts():
    # 3 2 | 1 0 | and 3 | 2 1 | 0 … are as good as each other: the smaller top group wins
    assert exhaustive_top([0, 1, 2, 3]) == [False, False, False, True]
    assert_top([[0, 1, 2, 3], [0, 1, 2, 3, 4], [5, 5, 3, 3, 1, 1, -1, -1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_the_top_cluster_at_a_large_offset(dtype, offset):
    # steps of 1/1024 are exact near 1e4 in float32, where their squares would not be
    rng = random.Random(1)
    rows = [[rng.randint(-50, 50) for _ in range(rng.randint(2, 15))] for _ in range(500)]
    assert_top(rows, offset, dtype, unit=Fraction(1, 1024))


def test_the_top_cluster_of_real_numbers():
    rng = random.Random(2)
    rows = [[rng.gauss(0, 3) for _ in range(rng.randint(3, 20))] for _ in range(300)]
    for row in rows:
        values = torch.tensor([row], dtype=torch.float64)
        found = top_cluster(values, torch.ones_like(values).bool())[0].tolist()
        assert found == exhaustive_top([Fraction(value) for value in row])


def test_the_top_cluster_is_found_beyond_one_strip_of_cuts():
    # three blocks of 30 equal numbers, and three of numbers that differ
    equal = [0] * 30 + [7] * 30 + [12] * 30
    apart = [i for start in (0, 1000, 3000) for i in range(start, start + 30)]
    for row in (equal, apart):
        values = torch.tensor([row], dtype=torch.float64)
        found = top_cluster(values, torch.ones_like(values).bool())[0]
        assert found.tolist() == [False] * 60 + [True] * 30


@pytest.mark.parametrize("far", [-1e3, -1e4, -1e9])
def test_one_number_far_below_leaves_the_clusters_of_the_others(far):
    # {far}, {0, -0.1}, {5, 4.9, 4.8}
    row = [5.0, 4.9, 4.8, 0.0, -0.1, far]
    values = torch.tensor([row], dtype=torch.float64)
    found = top_cluster(values, torch.ones_like(values).bool())[0].tolist()
    assert exhaustive_top([Fraction(value) for value in row]) == [True] * 3 + [False] * 3
    assert found == [True] * 3 + [False] * 3


def test_a_row_without_numbers_has_no_top_cluster():
    values = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    mask = torch.tensor([[False, False], [True, False]])
    assert top_cluster(values, mask).tolist() == [[False, False], [True, False]]


def naive_boundary(s, positive, negatives):
    """Indices of the negatives at the boundary of a positive."""
    violating = [i for i in negatives if s[i] >= s[positive]]
    top = exhaustive_top([Fraction(s[i]) for i in negatives])
    return violating or [i for i, inside in zip(negatives, top, strict=True) if inside]


def naive_betas(s, positive, negatives, beta, margin, scale):
    """{boundary negative: its β}."""
    boundary = naive_boundary(s, positive, negatives)
    rest = [i for i in negatives if i not in boundary] or boundary
    mean = sum(s[i] for i in rest) / len(rest)
    betas = {}
    for i in boundary:
        to_positive, to_rest = s[positive] - s[i], s[i] - mean
        distance = abs(to_positive) + abs(to_rest)
        gap = to_positive - to_rest - margin
        change = math.tanh(gap / distance) if distance else math.copysign(1.0, gap)
        betas[i] = beta * (1 + scale * change)
    return betas


def against(x):
    """−log σ(x)."""
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


ONE_POSITIVE = {
    "dpo": lambda s, h, p, betas: mean(against(b * (h[p] - h[i])) for i, b in betas.items()),
    "ipo": lambda s, h, p, betas: mean((h[p] - h[i] - 1 / (2 * b)) ** 2 for i, b in betas.items()),
    "simpo": lambda s, h, p, betas: mean(against(b * (s[p] - s[i]) - 1) for i, b in betas.items()),
    "dmpo": lambda s, h, p, betas: against(mean(b * (h[p] - h[i]) for i, b in betas.items())),
    "mppo": lambda s, h, p, betas: against(
        sum(b * (math.exp(s[p]) - math.exp(s[i])) for i, b in betas.items())
    ),
    "s_dpo": lambda s, h, p, betas: math.log1p(
        sum(math.exp(b * (h[i] - h[p])) for i, b in betas.items())
    ),
}


def naive_lipo(h, levels, betas, beta):
    total = sum(against(b * (h[p] - h[i])) for p, own in betas.items() for i, b in own.items())
    pairs = [(p, q) for p in betas for q in betas if levels[p] > levels[q]]
    return total + sum(against(beta * (h[p] - h[q])) for p, q in pairs)


def naive_mult_dpo(h, levels, betas, beta):
    total = 0.0
    for p, own in betas.items():
        others = sum(math.exp(beta * (h[q] - h[p])) for q in betas if levels[q] <= levels[p])
        total += math.log(others + sum(math.exp(b * (h[i] - h[p])) for i, b in own.items()))
    sizes = [sum(levels[p] == level for p in betas) for level in {levels[p] for p in betas}]
    return total - sum(math.lgamma(k + 1) for k in sizes)


def naive_pl_dpo(h, levels, betas, beta):
    total = 0.0
    for level in {levels[p] for p in betas}:
        a = []
        for p in betas:
            if levels[p] == level:
                lower = sum(math.exp(beta * (h[q] - h[p])) for q in betas if levels[q] < level)
                own = sum(math.exp(b * (h[i] - h[p])) for i, b in betas[p].items())
                a.append(1 / (lower + own))
        # ∫ Π (1 − u^a) du at u = exp(−e^y), by a fine trapezoid
        nodes = [math.exp(node / 32) for node in range(-45 * 32, 6 * 32)]
        area = sum(t * math.exp(-t) * math.prod(-math.expm1(-x * t) for x in a) for t in nodes)
        total -= math.log(area / 32)
    return total


SETS = {"lipo": naive_lipo, "mult_dpo": naive_mult_dpo, "pl_dpo": naive_pl_dpo}


def naive_loss(name, s, h, levels, beta, margin, scale):
    negatives = [i for i, level in enumerate(levels) if level == 0]
    betas = {
        p: naive_betas(s, p, negatives, beta, margin, scale)
        for p, level in enumerate(levels)
        if level > 0
    }
    if name in SETS:
        return SETS[name](h, levels, betas, beta)
    return mean(ONE_POSITIVE[name](s, h, p, own) for p, own in betas.items())


def random_contexts(most_positives, most_level=2, count=40):
    """Scores in one padded batch, and the lists (s, h, levels) of each context.

    Scores lie on a grid, for ties; half of the positives are far up, so that none violates.
    """
    rng = random.Random(most_positives)
    lists = []
    for i in range(count):
        k, m = rng.randint(1, most_positives), rng.randint(1, 9)
        levels = [rng.randint(1, most_level) for _ in range(k)] + [0] * m
        rng.shuffle(levels)
        s = [rng.randint(-16, 0) / 4 + (4 if level and i % 2 else 0) for level in levels]
        lists.append((s, [value - rng.randint(-16, 0) / 4 for value in s], levels))
    width = max(len(s) for s, _, _ in lists)
    policy, reference = torch.zeros(2, count, width, dtype=torch.float64)
    levels = torch.full((count, width), -1)
    for row, (s, h, own) in enumerate(lists):
        policy[row, : len(s)] = torch.tensor(s)
        reference[row, : len(s)] = torch.tensor(s) - torch.tensor(h)
        levels[row, : len(s)] = torch.tensor(own)
    return CandidateScores(policy, reference, levels=levels), lists


SETTINGS = {"beta": 0.7, "margin": 1.5, "scale": 0.6}


@pytest.mark.parametrize("most_positives", [1, 3])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_base_is_what_plain_python_computes(name, most_positives):
    scores, lists = random_contexts(most_positives)
    found = DynamicPO(name, **SETTINGS)(scores)
    expected = [naive_loss(name, *one, **SETTINGS) for one in lists]
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("most_positives", [1, 3])
def test_boundary_and_betas_are_what_plain_python_computes(most_positives):
    scores, lists = random_contexts(most_positives)
    objective = DynamicPO(**SETTINGS)
    union, betas = objective.boundary(scores), objective.pair_betas(scores)
    for row, (s, _, levels) in enumerate(lists):
        negatives = [i for i, level in enumerate(levels) if level == 0]
        seen = set()
        for p in range(betas.shape[1]):
            own = betas[row, p]
            if p >= len(levels) or levels[p] <= 0:
                assert (own == 0).all()
                continue
            expected = naive_betas(s, p, negatives, **SETTINGS)
            assert own.nonzero()[:, 0].tolist() == sorted(expected)
            for i, value in expected.items():
                assert own[i].item() == pytest.approx(value, rel=1e-12)
            seen |= set(expected)
        assert union[row].nonzero()[:, 0].tolist() == sorted(seen)
    if most_positives == 1:
        torch.testing.assert_close(objective.betas(scores), betas.sum(dim=1), rtol=0, atol=0)


def test_violating_negatives_by_hand():
    # s_p = 1; 2 and 1 violate (a tie does), 0 and -2 are the rest, their mean -1
    scores = one_context([1.0, 2.0, 0.0, 1.0, -2.0], [1, 0, 0, 0, 0], reference=[0.0] * 5)
    objective = DynamicPO(beta=2.0)
    assert objective.boundary(scores)[0].tolist() == [False, True, False, True, False]
    # Δ1 = -1, Δ2 = 3: tanh((-1 - 3 - 2) / 4); Δ1 = 0, Δ2 = 2: tanh((0 - 2 - 2) / 2)
    first, second = 2 * (1 + 0.5 * math.tanh(-1.5)), 2 * (1 + 0.5 * math.tanh(-2))
    expected = [0.0, first, 0.0, second, 0.0]
    assert objective.betas(scores)[0].tolist() == pytest.approx(expected, rel=1e-12)
    # DMPO: the mean of β_i (h_p - h_i) over those two, -first / 2; no gradient through β
    found = objective(scores)
    assert found.item() == pytest.approx(math.log1p(math.exp(first / 2)), rel=1e-12)
    wrong = 1 / (1 + math.exp(-first / 2))
    slopes = [-(first + second) / 2, first / 2, 0.0, second / 2, 0.0]
    expected = [slope * wrong for slope in slopes]
    assert gradient(found, scores) == pytest.approx(expected, rel=1e-12)


def test_the_top_cluster_by_hand():
    # none reaches 3; clusters {2, 1.5}, {-1}, {-5, -6}: the rest has the mean -4
    scores = one_context([3.0, 2.0, 1.5, -1.0, -5.0, -6.0], [1, 0, 0, 0, 0, 0])
    objective = DynamicPO("s_dpo", margin=1.0)
    # Δ1 = 1, Δ2 = 6: tanh((1 - 6 - 1) / 7); Δ1 = 1.5, Δ2 = 5.5: tanh((1.5 - 5.5 - 1) / 7)
    first, second = 1 + 0.5 * math.tanh(-6 / 7), 1 + 0.5 * math.tanh(-5 / 7)
    expected = [0.0, first, second, 0.0, 0.0, 0.0]
    assert objective.betas(scores)[0].tolist() == pytest.approx(expected, rel=1e-12)
    expected = math.log(1 + math.exp(-first) + math.exp(-1.5 * second))
    assert objective(scores).item() == pytest.approx(expected, rel=1e-12)


def test_selection_reads_the_policy_and_the_loss_the_log_ratios():
    # the reference alone turns the order of h around
    policy, levels = [1.0, 2.0, 0.0], [1, 0, 0]
    scores = one_context(policy, levels, reference=[-9.0, 9.0, -9.0])
    objective = DynamicPO(dpo)
    assert objective.betas(scores).tolist() == objective.betas(one_context(policy, levels)).tolist()
    # h_p - h_1 = 10 + 7; Δ1 = -1, Δ2 = 2 - 0
    beta = 1 + 0.5 * math.tanh((-1 - 2 - 2) / 3)
    assert objective(scores).item() == pytest.approx(math.log1p(math.exp(-17 * beta)), rel=1e-12)


@pytest.mark.parametrize(("margin", "beta"), [(2.0, 0.5), (0.0, 1.0), (-1.0, 1.5)])
def test_all_negatives_tied_with_the_positive(margin, beta):
    # Δ1 = Δ2 = 0: tanh of -infinity, 0 or infinity
    scores = one_context([0.3, 0.3, 0.3], [1, 0, 0])
    objective = DynamicPO(margin=margin)
    assert objective.betas(scores).tolist() == [[0.0, beta, beta]]
    assert objective(scores).item() == pytest.approx(math.log(2), rel=1e-12)


def test_where_nothing_is_left_the_boundary_is_its_own_rest():
    # both violate, their mean 2.5: Δ1 = -1, Δ2 = -0.5 and Δ1 = -2, Δ2 = 0.5
    scores = one_context([1.0, 2.0, 3.0], [1, 0, 0])
    first, second = 1 + 0.5 * math.tanh(-2.5 / 1.5), 1 + 0.5 * math.tanh(-4.5 / 2.5)
    expected = [0.0, first, second]
    assert DynamicPO().betas(scores)[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_weights_by_hand():
    # both violate; weights 1 and 3 in DMPO's mean, positives' c outside it
    scores = one_context([1.0, 2.0, 3.0], [1, 0, 0], weights=[0.5, 1.0, 3.0])
    first, second = 1 + 0.5 * math.tanh(-2.5 / 1.5), 1 + 0.5 * math.tanh(-4.5 / 2.5)
    x = (-1 * first - 2 * 3 * second) / 4
    assert DynamicPO()(scores).item() == pytest.approx(math.log1p(math.exp(-x)), rel=1e-12)


def test_weights_of_positives_by_hand():
    weights = [1.0, 3.0, 1.0, 1.0]
    both = one_context([0.0, 1.0, 0.5, -3.0], [1, 1, 0, 0], weights=weights)
    first = one_context([0.0, 1.0, 0.5, -3.0], [1, -1, 0, 0])
    second = one_context([0.0, 1.0, 0.5, -3.0], [-1, 1, 0, 0])
    for name in ONE_POSITIVE:
        objective = DynamicPO(name)
        expected = (objective(first) + 3 * objective(second)) / 4
        assert objective(both).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("base", ["s_dpo", s_dpo, "mult_dpo", mult_dpo, "pl_dpo"])
def test_the_correction_for_log_q_is_that_of_all_negatives(base):
    # 1 and 2 violate 0; q = 0.25, 0.5 there and 0.125 at the third: the mean of 1/q is
    # (4 + 2 + 8) / 3, so that they count 1 / (0.25 · 14/3) = 6/7 and 1 / (0.5 · 14/3) = 3/7
    log_q = [0.0, math.log(0.25), math.log(0.5), math.log(0.125)]
    scores = one_context([0.0, 1.0, 2.0, -1.0], [1, 0, 0, 0], log_q=log_q)
    first, second = naive_betas([0.0, 1.0, 2.0, -1.0], 0, [1, 2, 3], 1.0, 2.0, 0.5).values()
    expected = math.log(1 + 6 / 7 * math.exp(first) + 3 / 7 * math.exp(2 * second))
    assert DynamicPO(base)(scores).item() == pytest.approx(expected, rel=1e-7)


def test_the_correction_survives_a_change_of_precision():
    log_q = [0.0, math.log(0.25), math.log(0.5), math.log(0.125)]
    scores = one_context([0.0, 1.0, 2.0, -1.0], [1, 0, 0, 0], log_q=log_q)
    rows = scores.one_positive_each(boundary_negatives(scores))
    assert rows.log_masses is not None
    wide = rows.in_float64().log_masses
    assert wide is not None
    assert wide.tolist() == rows.log_masses.double().tolist()


def test_a_function_of_ones_own_is_a_base():
    scores, _ = random_contexts(3)
    expected = DynamicPO("dmpo", **SETTINGS)(scores)

    def own(scores, beta, factor):
        assert beta.shape == scores.levels.shape
        assert (scores.positives.sum(dim=1) <= 1).all()
        return factor * dmpo(scores, beta)

    found = DynamicPO(own, **SETTINGS, options={"factor": 3.0})(scores)
    torch.testing.assert_close(found, 3 * expected)
    partially = DynamicPO(partial(own, factor=1.0), **SETTINGS)(scores)
    torch.testing.assert_close(partially, expected)


def test_options_reach_the_base():
    scores = one_context([1.0, 2.0, -1.0], [1, 0, 0])
    plain, smoothed = DynamicPO("dpo"), DynamicPO("dpo", options={"label_smoothing": 0.1})
    beta = plain.betas(scores)[0, 1].item()
    expected = 0.9 * against(-beta) + 0.1 * against(beta)
    assert smoothed(scores).item() == pytest.approx(expected, rel=1e-12)
    once = DynamicPO("mult_dpo", options={"reduction_per_context": "mean_positive"})
    two = one_context([1.0, 2.0, -1.0], [1, 0, 1])
    assert once(two).item() == pytest.approx(DynamicPO("mult_dpo")(two).item() / 2, rel=1e-12)


def test_dual_margin_beta_takes_a_tensor_without_dimensions():
    scores = one_context([1.0, 2.0, -1.0], [1, 0, 0])
    selected = boundary_negatives(scores)
    found = dual_margin_beta(scores, selected, torch.tensor(2.0, dtype=torch.float64))
    assert found.tolist() == dual_margin_beta(scores, selected, 2.0).tolist()
    with pytest.raises(ConfigError, match="one value for all candidates"):
        dual_margin_beta(scores, selected, torch.ones(1, 3))


def test_betas_pass_no_gradient():
    scores = one_context([1.0, 2.0, -1.0], [1, 0, 0])
    objective = DynamicPO()
    assert not objective.betas(scores).requires_grad
    assert not objective.boundary(scores).requires_grad


WRONG = {
    "an unknown base": ({"base": "sdpo"}, r"no base 'sdpo'\. Did you mean 's_dpo'"),
    "beta 0": ({"beta": 0.0}, r"beta is 0\.0"),
    "beta nan": ({"beta": math.nan}, r"beta is nan"),
    "beta a word": ({"beta": "1"}, r"beta is '1'"),
    "margin without end": ({"margin": math.inf}, r"margin is inf"),
    "margin none": ({"margin": None}, r"margin is None"),
    "scale 1": ({"scale": 1.0}, r"scale is 1\.0\. Expected at least 0 and below 1"),
    "scale below 0": ({"scale": -0.1}, r"scale is -0\.1"),
    "scale nan": ({"scale": math.nan}, r"scale is nan"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_what_is_out_of_range_is_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DynamicPO(**wrong)


def test_betas_of_several_positives_are_asked_of_pair_betas():
    scores = one_context([1.0, 2.0, -1.0], [1, 2, 0])
    with pytest.raises(ConfigError, match=r"several positives.* pair_betas"):
        DynamicPO().betas(scores)


@pytest.mark.parametrize("name", sorted(ONE_POSITIVE))
def test_a_context_without_negatives_is_named(name):
    scores = CandidateScores(torch.zeros(2, 2), levels=torch.tensor([[1, 0], [1, 2]]))
    with pytest.raises(DataError, match="Context 1 has no negative"):
        DynamicPO(name)(scores)


def test_golden(dynamicpo_case):
    case = dynamicpo_case
    dtype = getattr(torch, case["dtype"])
    scores = chosen_and_rejected(case, dtype)
    objective = DynamicPO("dmpo", beta=case["beta"])
    losses = objective(scores)
    (slopes,) = torch.autograd.grad(losses.sum(), scores.policy)
    golden = case["DynamicPO"]
    if "error" in golden:
        assert losses.isfinite().all()
        assert slopes.isfinite().all()
        return
    expected, close = golden["index_based_float64"], partial(pytest.approx, **TOLERANCE[dtype])
    expected_slopes = with_chosen(expected, "grad", dtype).tolist()
    betas = objective.betas(scores)[:, 1:]
    for row, own in enumerate(objective.boundary(scores)[:, 1:]):
        selected, top = own.nonzero()[:, 0].tolist(), golden["exact_3means_top"][row]
        if top is not None:
            assert selected == sorted(top)
        if top is None or golden["exact_equals_sklearn"][row]:
            order = expected["selected"][row]
            assert selected == sorted(order)
            assert betas[row, order].tolist() == close(expected["betas"][row])
            assert losses[row].item() == close(expected["losses"][row])
            assert slopes[row].tolist() == close(expected_slopes[row])
