"""Ranks within a part of the answers, and intervals over users and seeds."""

import numpy as np
import pytest
from scipy import stats

from palate.comparison.pairs import any_seed_interval, spread
from palate.evaluation.ranking import Ranks
from palate.evaluation.significance import user_error


def test_a_part_is_ranked_as_though_no_more_were_held_out():
    # Context 0 has answers at ranks 1 and 30, context 1 one at rank 3.
    table = Ranks(
        group=np.array([0, 0, 1]),
        context_id=np.array([10, 10, 20]),
        user_id=np.array([5, 5, 6]),
        item_id=np.array([7, 8, 9]),
        level=np.ones(3, int),
        rank=np.array([1.0, 30.0, 3.0]),
    )
    values, users = table.values(["recall@10", "ndcg@2"])
    assert values["recall@10"].tolist() == [0.5, 1.0]
    assert values["ndcg@2"] == pytest.approx([1 / (1 + 1 / np.log2(3)), 0.0])
    assert users.tolist() == [5, 6]
    values, users = table.values(["recall@10"], np.array([True, False, False]))
    assert (values["recall@10"].tolist(), users.tolist()) == ([1.0], [5])
    values, users = table.values(["recall@10"], np.array([False, True, True]))
    assert (values["recall@10"].tolist(), users.tolist()) == ([0.0, 1.0], [5, 6])


def test_spread_by_hand():
    assert spread([0.1, 0.3]) == (pytest.approx(0.02**0.5), 0.1, 0.3)
    assert spread([0.1]) == (None, 0.1, 0.1)


def test_any_seed_interval_by_hand():
    # Two users, two seeds: the seeds' means are 1 and 3, the users' 1.5 and 2.5.
    values, users = np.array([0.5, 1.5, 2.5, 3.5]), np.array([0, 1, 0, 1])
    low, high = any_seed_interval(values, users, [1.0, 3.0])
    # Users: sums 3 and 5 of two each, residuals −1 and 1, √(2 · 2) / 4. Seeds: variance 2 of two.
    by_user, by_seed = 0.5**2, 2 / 2
    assert user_error(values, users) ** 2 == pytest.approx(by_user)
    freedom = (by_user + by_seed) ** 2 / (by_user**2 + by_seed**2)
    assert freedom == pytest.approx(1.470588, abs=1e-6)
    assert (low + high) / 2 == pytest.approx(2.0)
    # From tables t is 12.706 at one degree of freedom and 4.303 at two.
    assert 4.303 < (high - low) / 2 / (by_user + by_seed) ** 0.5 < 12.706
    assert any_seed_interval(values, users, [1.0, 3.0], half=20.0) == (-18.0, 22.0)
    assert any_seed_interval(values, users, [2.0]) == (None, None)
    assert any_seed_interval(np.ones(4), users, [1.0, 1.0]) == (1.0, 1.0)


def test_a_wider_interval_over_users_widens_that_of_any_seed():
    users = np.tile(np.arange(200), 2)
    values = np.where(users % 2, 1.0, -1.0) + np.repeat([-0.1, 0.1], 200)
    # t is 1.972 at 199 degrees of freedom; the errors are 0.0709 and 0.1 with nothing given.
    of_users, of_seeds = 0.0709, 0.1
    low, high = any_seed_interval(values, users, [-0.1, 0.1])
    wide, wider = any_seed_interval(values, users, [-0.1, 0.1], half=0.3)
    assert user_error(values, users) == pytest.approx(of_users, abs=1e-4)
    for error, found in ((of_users, high - low), (0.3 / 1.972, wider - wide)):
        freedom = (error**2 + of_seeds**2) ** 2 / (error**4 / 199 + of_seeds**4)
        expected = stats.t.ppf(0.975, freedom) * (error**2 + of_seeds**2) ** 0.5
        assert found / 2 == pytest.approx(expected, rel=1e-2)
        assert found / 2 > 1.972 * error


def test_only_the_interval_of_any_seed_covers_what_other_seeds_would_give():
    """Five seeds whose means scatter about 0 as much as users do."""
    random = np.random.default_rng(0)
    n_users, n_seeds, covered, by_user = 100, 5, 0, 0
    for _ in range(1000):
        of_user = random.normal(size=n_users)
        of_seed = 0.1 * random.normal(size=n_seeds)
        noise = 0.3 * random.normal(size=(n_seeds, n_users))
        values = of_seed[:, None] + of_user + noise
        users = np.tile(np.arange(n_users), n_seeds)
        low, high = any_seed_interval(values.ravel(), users, values.mean(axis=1).tolist())
        covered += low <= 0 <= high
        by_user += abs(values.mean()) <= 1.96 * user_error(values.ravel(), users)
    assert 0.94 <= covered / 1000 <= 0.985
    assert by_user / 1000 < 0.94
