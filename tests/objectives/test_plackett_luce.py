"""pl_dpo: against all orders, against integration in 30 digits, at extremes, by hand."""

import math
from itertools import permutations

import mpmath
import pytest
import torch

from objectives.golden import assert_in_groups
from objectives.handmade import from_weights, one_context
from palate.errors import ConfigError
from palate.objectives import CandidateScores, pl_dpo, s_dpo


def loss_and_gradient(h, k, **options):
    """Of one context, its first k candidates positive."""
    h = torch.as_tensor(h, dtype=torch.float64)[None].requires_grad_()
    levels = (torch.arange(h.shape[1]) < k).long()[None]
    loss = pl_dpo(CandidateScores(h, levels=levels), **options)
    (gradient,) = torch.autograd.grad(loss.sum(), h)
    return loss.item(), gradient[0]


def assert_precise(found, loss, gradient):
    """1e-8 of the loss; 1e-6 of the largest part of the gradient, and of each that is not tiny."""
    assert found[0] == pytest.approx(loss, rel=1e-8, abs=0)
    largest = gradient.abs().max()
    assert ((found[1] - gradient).abs() <= 1e-6 * largest).all()
    torch.testing.assert_close(found[1], gradient, rtol=1e-6, atol=1e-12)


def test_two_levels_by_hand():
    # positives 2 and 3, negatives 1 and 4: 2/10 · 3/8 + 3/10 · 2/7 = 9/56
    scores = from_weights([2.0, 1.0, 3.0, 4.0], [1, 0, 1, 0])
    assert pl_dpo(scores).item() == pytest.approx(-math.log(9 / 56), rel=1e-9)


def test_several_levels_of_one_by_hand():
    # 5 of 5 + 3 + 2, then 3 of 3 + 2
    scores = from_weights([3.0, 5.0, 2.0], [1, 2, 0])
    assert pl_dpo(scores).item() == pytest.approx(-math.log(5 / 10 * 3 / 5), rel=1e-10)


def test_several_levels_of_two_by_hand():
    # 2 and 3 over 1 and 4: 9/56; then 1 over 4: 1/5
    scores = from_weights([2.0, 1.0, 3.0, 4.0], [7, 2, 7, 0])
    assert pl_dpo(scores).item() == pytest.approx(-math.log(9 / 56 / 5), rel=1e-9)


def test_beta_is_an_exponent_of_the_weights():
    # 4 and 9 over 1: 4/14 · 9/10 + 9/14 · 4/5
    scores = from_weights([2.0, 1.0, 3.0], [1, 0, 1])
    expected = 4 / 14 * 9 / 10 + 9 / 14 * 4 / 5
    assert pl_dpo(scores, beta=2.0).item() == pytest.approx(-math.log(expected), rel=1e-9)


def test_mean_positive_divides_each_level_by_its_size():
    scores = from_weights([2.0, 1.0, 3.0, 4.0], [2, 1, 2, 0])
    found = pl_dpo(scores, reduction_per_context="mean_positive")
    assert found.item() == pytest.approx(-math.log(9 / 56) / 2 - math.log(1 / 5), rel=1e-9)


def test_weights_and_log_q_of_negatives_by_hand():
    # 1 and 2 of weights 3 and 0.5 count as 3 and 1: B = 4; 2 and 3 over it: W = 9
    scores = from_weights([2.0, 1.0, 3.0, 2.0], [1, 0, 1, 0], weights=[1.0, 3.0, 1.0, 0.5])
    exact = 2 / 9 * 3 / 7 + 3 / 9 * 2 / 6
    assert pl_dpo(scores).item() == pytest.approx(-math.log(exact), rel=1e-9)
    # drawn with q = 0.2 and 0.05, 5 and 1 count as 2 and 1.6 (see s_dpo): B = 3.6, W = 8.6
    log_q = [0.0, math.log(0.2), 0.0, math.log(0.05)]
    scores = from_weights([2.0, 5.0, 3.0, 1.0], [1, 0, 1, 0], log_q=log_q)
    exact = 2 / 8.6 * 3 / 6.6 + 3 / 8.6 * 2 / 5.6
    assert pl_dpo(scores).item() == pytest.approx(-math.log(exact), rel=1e-7)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_weight_of_a_positive_is_refused(weight):
    scores = from_weights([2.0, 1.0, 3.0], [1, 0, 1], weights=[1.0, 1.0, weight])
    with pytest.raises(ConfigError, match=r"context 0, candidate 2, a positive.* pl_dpo"):
        pl_dpo(scores)
    unchecked = CandidateScores(
        scores.policy.detach().repeat(2, 1),
        levels=scores.levels.repeat(2, 1),
        weights=torch.tensor([[1.0, 1.0, weight], [1.0, 1.0, 1.0]]),
        check=False,
    )
    assert pl_dpo(unchecked).isnan().tolist() == [True, False]


def test_a_positive_of_weight_zero_is_left_out():
    scores = from_weights([2.0, 1.0, 3.0], [1, 0, 1], weights=[1.0, 1.0, 0.0])
    assert pl_dpo(scores).item() == pytest.approx(-math.log(2 / 3), rel=1e-9)


def test_beta_per_pair_of_one_positive_is_s_dpo_with_those_betas():
    scores = one_context([0.5, -1.0, 2.0, 0.0], [1, 0, 0, 0])
    beta = torch.tensor([1.0, 0.3, 0.0, 2.0], dtype=torch.float64).expand(1, 4, 4)
    without = one_context([0.5, -1.0, 2.0, 0.0], [1, 0, -1, 0])
    expected = s_dpo(without, beta=beta[:, 0])
    assert pl_dpo(scores, beta).item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_positive_whose_pairs_are_all_left_out_is_no_condition():
    # 3 over 1 alone is left
    scores = from_weights([2.0, 1.0, 3.0], [1, 0, 1])
    beta = torch.ones(1, 3, 3, dtype=torch.float64)
    beta[0, 0, 1] = 0.0
    assert pl_dpo(scores, beta).item() == pytest.approx(math.log(4 / 3), rel=1e-9)


@pytest.mark.parametrize("nodes", [31, 0, -80, 80.0, True, None])
def test_too_few_nodes_are_refused(nodes):
    with pytest.raises(ConfigError, match=r"nodes is .* at least 32"):
        pl_dpo(from_weights([2.0, 1.0], [1, 0]), nodes=nodes)


def test_an_unknown_reduction_gets_a_hint():
    with pytest.raises(ConfigError, match=r"Did you mean 'mean_positive'"):
        pl_dpo(from_weights([1.0, 2.0], [1, 0]), reduction_per_context="mean_positives")


def test_golden(setwise_case):
    golden = setwise_case["pl_marginal_nll"]
    assert_in_groups(pl_dpo, setwise_case, golden, rel=1e-8, absolute=1e-9)


def over_all_orders(h, k):
    """Loss and gradient by the sum over all k! orders of the first k before the rest."""
    h = torch.as_tensor(h, dtype=torch.float64).requires_grad_()
    orders = h[:k][torch.tensor(list(permutations(range(k))))]  # (k!, k)
    rest = h[k:].logsumexp(dim=0).expand(len(orders), 1)
    left = torch.cat([orders, rest], dim=1).flip(1).logcumsumexp(dim=1).flip(1)[:, :k]
    loss = -(orders - left).sum(dim=1).logsumexp(dim=0)
    (gradient,) = torch.autograd.grad(loss, h)
    return loss.item(), gradient


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("shift", [-8.0, 0.0, 4.0])
def test_all_orders(k, spread, shift):
    generator = torch.Generator().manual_seed(k)
    for negatives in (1, 5):
        h = spread * torch.randn(k + negatives, dtype=torch.float64, generator=generator)
        h[:k] += shift
        assert_precise(loss_and_gradient(h, k), *over_all_orders(h, k))


def in_many_digits(h, k):
    """Loss and gradient by ∫ exp(y − e^y) Π (1 − exp(−a_p e^y)) dy in 30 digits.

    The trapezoid rule on y from −50 to 7 in steps of 1/12: what it leaves out is below 1e-20.
    """
    with mpmath.workdps(30):
        weights = [mpmath.exp(mpmath.mpf(value)) for value in h]
        total = mpmath.fsum(weights[k:])
        a = [weight / total for weight in weights[:k]]
        p, slopes = mpmath.mpf(0), [mpmath.mpf(0)] * k
        for node in range(-50 * 12, 7 * 12):
            t = mpmath.exp(mpmath.mpf(node) / 12)
            late = [mpmath.exp(-one * t) for one in a]
            early = [-mpmath.expm1(-one * t) for one in a]
            density = t * mpmath.exp(-t) * mpmath.fprod(early)
            p += density
            for i in range(k):  # of 1 − exp(−a t) by log a: a t exp(−a t)
                slopes[i] += density * a[i] * t * late[i] / early[i]
        by_log_a = [-slope / p for slope in slopes]
        away = -mpmath.fsum(by_log_a) / total
        gradient = by_log_a + [away * weight for weight in weights[k:]]
        slopes = torch.tensor([float(one) for one in gradient], dtype=torch.float64)
        return float(-mpmath.log(p / 12)), slopes


@pytest.mark.parametrize(
    ("k", "negatives", "odds", "spread"),
    [
        (1, 3, 1e6, 0.0),
        (2, 500, 1e6, 1.0),
        (3, 1, 1e-6, 3.0),
        (8, 20, 1.0, 4.0),
        (12, 500, 1e4, 0.5),
        (20, 4, 30.0, 2.0),
        (50, 500, 1e-6, 1.0),
        (50, 30, 1e6, 2.0),
        (50, 2, 200.0, 0.0),
    ],
)
def test_thirty_digits(k, negatives, odds, spread):
    generator = torch.Generator().manual_seed(k)
    h = spread * torch.randn(k + negatives, dtype=torch.float64, generator=generator)
    h[:k] += math.log(odds) + h[k:].logsumexp(dim=0) - h[:k].logsumexp(dim=0)
    assert_precise(loss_and_gradient(h, k), *in_many_digits(h.tolist(), k))


@pytest.mark.parametrize(("k", "a"), [(10, 1e-3), (50, 0.5), (200, 200.0), (500, 3e3), (5, 1e9)])
def test_equal_positives_have_a_closed_form(k, a):
    # p = ∫ (1 − u^a)^k du = Γ(1 + 1/a) k! / Γ(k + 1 + 1/a)
    found, gradient = loss_and_gradient([math.log(a)] * k + [0.0], k)
    with mpmath.workdps(40):
        lower, other = 1 / mpmath.mpf(a), mpmath.mpf(k + 1)
        log_p = mpmath.loggamma(1 + lower) + mpmath.loggamma(other)
        log_p -= mpmath.loggamma(other + lower)
        # dL/d log a of all positives together
        slope = (mpmath.digamma(1 + lower) - mpmath.digamma(other + lower)) * lower
    assert found == pytest.approx(float(-log_p), rel=1e-8)
    assert gradient[k].item() == pytest.approx(float(-slope), rel=1e-6)
    assert gradient[:k].tolist() == pytest.approx([float(slope / k)] * k, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_mixed_extremes(dtype):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([0.0, 1e-3, 1.0, 30.0, 700.0, 1e4])
    drawn = sizes[torch.randint(6, (300, 12), generator=generator)]
    signs = torch.randint(2, (300, 12), generator=generator) * 2 - 1
    policy = (drawn * signs).to(dtype).requires_grad_()
    levels = torch.randint(-1, 4, (300, 12), generator=generator)
    levels[:, 0], levels[:, 1] = 1, 0
    loss = pl_dpo(CandidateScores(policy, levels=levels))
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert loss.dtype == dtype
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    assert (loss >= 0).all()


def test_the_loss_goes_to_zero_as_the_positives_rise():
    rises = [0.0, 5.0, 10.0, 20.0, 40.0, 80.0]
    losses = [loss_and_gradient([rise, rise + 1, rise, 0.0, 0.5], 3)[0] for rise in rises]
    assert losses == sorted(losses, reverse=True)
    # far up 1 − p = ∫ 1 − Π (1 − exp(−a_p t)) dt, with a = x, e x, x for x = e^20 / (1 + e^0.5)
    late = 2 + 1 / math.e - (1 / 2 + 2 / (1 + math.e)) + 1 / (2 + math.e)
    late *= (1 + math.exp(0.5)) * math.exp(-20)
    assert losses[3] == pytest.approx(late, rel=1e-6)
    assert 0 < losses[5] < 1e-30


def test_a_positive_far_ahead_is_the_same_beside_a_larger_context():
    h = torch.tensor([[200.0, 0.0, 0.0], [1.0, 2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = pl_dpo(CandidateScores(h, levels=torch.tensor([[1, -1, 0], [1, 1, 0]])))
    assert loss[0].item() == pytest.approx(math.exp(-200), rel=1e-8, abs=0)
    (gradient,) = torch.autograd.grad(loss[0], h)
    slope = math.exp(-200)
    assert gradient[0].tolist() == pytest.approx([-slope, 0.0, slope], rel=1e-6, abs=0)


def test_the_loss_and_its_gradient_do_not_depend_on_the_nodes():
    h = [1.0, -0.5, 3.0, 0.0, 0.7, -2.0]
    loss, gradient = loss_and_gradient(h, 3)
    finer, gradient_finer = loss_and_gradient(h, 3, nodes=400)
    assert loss == pytest.approx(finer, rel=1e-11)
    torch.testing.assert_close(gradient, gradient_finer, rtol=1e-10, atol=1e-14)
    assert loss_and_gradient(h, 3, nodes=48)[0] == pytest.approx(finer, rel=1e-6)


def test_float32_is_integrated_in_float64():
    h = torch.tensor([[2000.25, 2000.0, 1999.5, 2000.0]], requires_grad=True)
    levels = torch.tensor([[1, 1, 0, 0]])
    loss = pl_dpo(CandidateScores(h, levels=levels))
    exact = pl_dpo(CandidateScores(h.double(), levels=levels))
    assert loss.item() == exact.float().item()
