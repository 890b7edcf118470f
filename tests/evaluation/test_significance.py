"""Intervals and paired tests by user: naming of draws, coverage, null p-values, corner cases."""

from math import erfc

import numpy as np
import pytest

from palate.errors import ConfigError, DataError
from palate.evaluation import significance
from palate.evaluation.significance import (
    bootstrap_interval,
    bootstrap_intervals,
    holm,
    paired_difference,
    user_error,
)
from palate.randomness import integers, random_bits


def correlated_table(random, n_users=60):
    """Values whose contexts share their user's effect; the true mean is 0.3."""
    counts = random.integers(1, 9, n_users)
    users = np.repeat(random.permutation(10 * n_users)[:n_users] - 17, counts)
    values = 0.3 + np.repeat(random.normal(size=n_users), counts) + random.normal(size=len(users))
    return values, users


def error_by_hand(sums, counts):
    """Ratio and its linearised standard error, without √(U / (U − 1))."""
    ratio = sum(sums) / sum(counts)
    squares = sum((s - ratio * n) ** 2 for s, n in zip(sums, counts, strict=True))
    return ratio, squares**0.5 / sum(counts)


def test_interval_equals_a_loop_over_named_draws(monkeypatch):
    values = np.array([1.0, 0.0, 4.0, 2.0, 2.0, 7.0, 5.0])
    users = np.array([90, -3, 90, 5, -3, 5, 8])
    # By ascending id: user −3 has (0, 2), user 5 has (2, 7), user 8 has 5, user 90 has (1, 4).
    sums, counts = [2.0, 9.0, 5.0, 5.0], [2, 2, 1, 2]
    mean, error = error_by_hand(sums, counts)
    t = []
    for b in range(50):
        drawn = [int(integers(4, 11, "bootstrap", b, j)) for j in range(4)]
        ratio, of_draw = error_by_hand([sums[u] for u in drawn], [counts[u] for u in drawn])
        t.append(abs(ratio - mean) / max(of_draw, error / 2))
    half = error * np.quantile(t, 0.8)
    expected = (3.0, 3 - half, 3 + half)
    assert bootstrap_interval(values, users, 11, 50, 0.8) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(significance, "_BLOCK", 7)
    assert bootstrap_interval(values, users, 11, 50, 0.8) == pytest.approx(expected, abs=1e-12)


def test_the_statistic_is_a_mean_over_contexts_not_over_users():
    # User 0: three contexts of 1; user 1: one of 0. The mean over users would be 1/2.
    mean, low, high = bootstrap_interval([1, 1, 1, 0], [0, 0, 0, 1], seed=1)
    assert mean == 0.75
    # R = 3/4, s = √(2 · 0.75²) / 4 = 0.2652. A draw of user 0 alone is off by 1/4, of user 1 alone
    # by 3/4, each with the least error s / 2: t = 1.886 and 5.657, as often as a quarter each.
    assert (low, high) == (0, 1)  # 0.75 ± 1.5, within what values there are
    _, low, high = bootstrap_interval([1, 1, 1, 0], [0, 0, 0, 1], seed=1, confidence=0.6)
    assert (low, high) == (pytest.approx(0.25), 1.0)  # 0.75 ± 0.5
    _, low, high = bootstrap_interval([1, 1, 1, 0], [0, 0, 0, 1], seed=1, confidence=0.2)
    assert (low, high) == (0.75, 0.75)  # (0,1) and (1,0) hold the middle half of the draws


def test_an_interval_ends_where_hardly_anyone_differs():
    # 3 hits among 1,000 users. A Poisson count of 3 has the exact 95 % interval 0.62 to 8.77.
    mean, low, high = bootstrap_interval(np.arange(1000) < 3, np.arange(1000), seed=2)
    assert mean == 0.003
    assert 0 <= low < 0.001
    assert 0.006 < high < 0.011


def test_metrics_together_equal_metrics_alone():
    random = np.random.default_rng(3)
    values, users = correlated_table(random)
    table = {"a": values, "b": values**2, "c": np.ones(len(users))}
    together = bootstrap_intervals(table, users, seed=4, draws=100)
    for name, column in table.items():
        assert together[name] == bootstrap_interval(column, users, seed=4, draws=100)
    assert together["c"] == (1.0, 1.0, 1.0)
    assert bootstrap_intervals({}, users, seed=4) == {}


def test_interval_covers_the_truth_where_contexts_are_correlated():
    random = np.random.default_rng(0)
    by_user = by_context = 0
    for table in range(300):
        values, users = correlated_table(random)
        _, low, high = bootstrap_interval(values, users, seed=table, draws=300)
        by_user += low <= 0.3 <= high
        _, low, high = bootstrap_interval(values, np.arange(len(users)), seed=table, draws=300)
        by_context += low <= 0.3 <= high
    assert 0.90 <= by_user / 300 <= 0.99
    assert by_context / 300 < 0.85  # as if contexts were independent: too sure of itself


def ndcg_table(random, eager_users_come_more_often):
    """(values, users) of one positive per context among ten places; the truth is `ndcg_mean`.

    60 to 150 users; user u finds the positive in the list with probability p_u ~ Beta(0.6, 1.8),
    at any place r = 1 … 10 alike, which is worth 1 / log2(r + 1). 1 + Binomial(7, q) contexts
    each, with q = 1/2 for all or q = p_u.
    """
    n_users = int(random.integers(60, 151))
    p = random.beta(0.6, 1.8, n_users)
    counts = 1 + random.binomial(7, p if eager_users_come_more_often else 0.5, n_users)
    users = np.repeat(np.arange(n_users), counts)
    found = random.random(len(users)) < p[users]
    return found / np.log2(random.integers(1, 11, len(users)) + 1), users


def ndcg_mean(eager_users_come_more_often):
    """E[Σ values of a user] / E[contexts of a user], in closed form.

    With E p = 1/4 and E p² = 1/4 · 1.6/3.4: E[(1 + 7p) p] / E[1 + 7p] where counts follow p.
    """
    first, second = 1 / 4, 1 / 4 * 1.6 / 3.4
    chance = (first + 7 * second) / (1 + 7 * first) if eager_users_come_more_often else first
    return chance * np.mean(1 / np.log2(np.arange(1, 11) + 1))


# Over 2,000 tables the coverage scatters by 0.5 %. Quantiles of the draws' means themselves, the
# percentile method, cover 94.4 % and 93.5 %.
@pytest.mark.slow
@pytest.mark.parametrize("eager_users_come_more_often", [False, True])
def test_interval_covers_the_truth_of_skewed_metrics(eager_users_come_more_often):
    random = np.random.default_rng(11)
    truth, covered, misses = ndcg_mean(eager_users_come_more_often), 0, {"below": 0, "above": 0}
    for table in range(2000):
        values, users = ndcg_table(random, eager_users_come_more_often)
        _, low, high = bootstrap_interval(values, users, seed=table, draws=1000)
        covered += low <= truth <= high
        misses["below"] += truth < low
        misses["above"] += truth > high
    assert 0.94 <= covered / 2000 <= 0.965, misses
    assert max(misses.values()) <= 0.04 * 2000, misses


def test_standard_error_by_hand():
    # User 1: 1 + 3, user 2: 2. R = 2, residuals 4 − 2·2 = 0 and 2 − 2·1 = 0.
    assert user_error([1, 3, 2], [1, 1, 2]) == 0
    # R = 5/3; residuals 4 − 10/3 and 1 − 5/3: √(2 · 2 · (2/3)²) / 3.
    assert user_error([1, 3, 1], [1, 1, 2]) == pytest.approx(2 * (2 / 3) / 3)
    values = np.random.default_rng(0).normal(size=50)
    expected = values.std(ddof=1) / np.sqrt(50)
    assert user_error(values, np.arange(50)) == pytest.approx(expected)
    assert user_error([1, 2, 3], [7, 7, 7]) == 0


def test_holm_by_hand():
    # Ascending: 0.01·4, 0.02·3, 0.03·2 (not below the one before), 0.04·1 (likewise).
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9, 0.7]).tolist() == [1.0, 1.0, 1.0]
    assert holm([0.03]).tolist() == [0.03]
    assert holm([]).tolist() == []


def test_holm_keeps_the_chance_of_any_false_alarm():
    """Ten tests that depend on one another, none with a difference."""
    random = np.random.default_rng(5)
    alarms = corrected = 0
    for _ in range(2000):
        z = (random.normal() + random.normal(size=10)) / 2**0.5
        p = np.array([erfc(abs(one) / 2**0.5) for one in z])
        alarms += p.min() < 0.05
        corrected += holm(p).min() < 0.05
    assert corrected / 2000 <= 0.06
    assert alarms / 2000 > 0.15


def test_one_user_and_one_context():
    assert bootstrap_interval([0.1, 0.7], [5, 5], seed=0) == pytest.approx((0.4, 0.4, 0.4))
    mean, low, high = bootstrap_interval([0.1, 0.7, 0.3], [5, 5, 5], seed=0)
    assert mean == low == high
    found = paired_difference([1.0, 0.5], [0.0, 0.5], [9, 9], seed=0)
    assert found == {"value": 0.5, "low": 0.5, "high": 0.5, "p": 1.0, "n_users": 1}


def test_identical_runs_differ_by_nothing():
    values, users = correlated_table(np.random.default_rng(1))
    found = paired_difference(values, values, users, seed=0, permutations=100)
    assert found == {"value": 0, "low": 0, "high": 0, "p": 1.0, "n_users": 60}


def test_p_by_hand():
    users = [3, 1, 2]
    # D = 1, 2, 3: of the 8 sign patterns only +++ and −−− reach |sum| 6: 2/8.
    found = paired_difference([1, 2, 3], [0, 0, 0], users, seed=5)
    assert found["p"] == pytest.approx(2 / 8, abs=0.02)
    assert found["value"] == 2
    # D = 0.1, 0.1, 0.1, −0.1: |sum| ≥ 0.2 in all patterns but the 6 with two of each: 10/16.
    # Its additions round differently; without a tolerance some of the equal sums would be lost.
    found = paired_difference([0.1, 0.1, 0.1, 0.0], [0, 0, 0, 0.1], [1, 2, 3, 4], seed=5)
    assert found["p"] == pytest.approx(10 / 16, abs=0.02)


@pytest.mark.parametrize("block", [10, 1 << 18])
def test_p_equals_a_loop_over_named_signs(monkeypatch, block):
    monkeypatch.setattr(significance, "_BLOCK", block)
    difference = np.random.default_rng(2).normal(0.1, 1, 70)
    count = 0
    for t in range(40):
        words = [int(random_bits(8, "sign flip", t, w)) for w in range(2)]
        signs = [1 if words[u // 64] >> (u % 64) & 1 else -1 for u in range(70)]
        count += abs(np.dot(signs, difference)) >= abs(difference.sum())
    found = paired_difference(
        difference, np.zeros(70), np.arange(70), seed=8, draws=5, permutations=40
    )
    assert found["p"] == (1 + count) / 41


def test_null_p_values_are_uniform_and_effects_are_found():
    random = np.random.default_rng(7)
    p_values = []
    for table in range(300):
        values, users = correlated_table(random, n_users=40)
        values -= 0.3
        found = paired_difference(
            values, np.zeros(len(users)), users, seed=table, draws=1, permutations=199
        )
        p_values.append(found["p"])
    # Binomial standard deviations at 300 tables: 0.013, 0.025 and 0.029.
    for level, slack in ((0.05, 0.04), (0.25, 0.075), (0.5, 0.09)):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=slack)
    values, users = correlated_table(random)
    found = paired_difference(values + 2, np.zeros(len(users)), users, seed=0, permutations=999)
    assert found["p"] == 1 / 1000
    assert found["low"] > 0


def test_same_seed_same_numbers_whatever_the_order_of_contexts():
    values, users = correlated_table(np.random.default_rng(4))
    order = np.random.default_rng(5).permutation(len(users))
    found = paired_difference(values, np.zeros(len(users)), users, seed=6)
    again = paired_difference(values, np.zeros(len(users)), users, seed=6)
    moved = paired_difference(values[order], np.zeros(len(users)), users[order], seed=6)
    other = paired_difference(values, np.zeros(len(users)), users, seed=7)
    assert found == again
    assert moved == pytest.approx(dict(found), abs=1e-12)
    assert (found["low"], found["p"]) != (other["low"], other["p"])
    swapped = paired_difference(np.zeros(len(users)), values, users, seed=6)
    assert swapped["p"] == found["p"]
    assert swapped["low"] == pytest.approx(-found["high"], abs=1e-12)


def test_bad_input_is_named():
    with pytest.raises(DataError, match=r"a has shape \(2,\) and b \(3,\)"):
        paired_difference([1, 2], [1, 2, 3], [0, 1], seed=0)
    with pytest.raises(DataError, match=r"shape \(2,\) and users \(3,\)"):
        bootstrap_interval([1, 2], [1, 2, 3], seed=0)
    with pytest.raises(DataError, match="empty"):
        bootstrap_interval([], [], seed=0)
    with pytest.raises(DataError, match="context 1 is nan"):
        bootstrap_interval([1, np.nan], [0, 1], seed=0)
    with pytest.raises(ConfigError, match="draws"):
        bootstrap_interval([1], [0], seed=0, draws=0)
    with pytest.raises(ConfigError, match="confidence"):
        bootstrap_interval([1], [0], seed=0, confidence=95)
    with pytest.raises(ConfigError, match="permutations"):
        paired_difference([1], [0], [0], seed=0, permutations=0)
