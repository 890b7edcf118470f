"""Intervals hold the truth and tests err as often as they say, on 2,000 pairs of rank tables."""

import numpy as np
import pytest
from benchmarks.rank_tables import World

from palate.evaluation.significance import paired_difference

TABLES = 2000


def differences(world, n_users, seed):
    """low, high and p of NDCG@10 of a − b on each pair of tables."""
    random = np.random.default_rng(seed)
    found = np.empty((TABLES, 3))
    for table in range(TABLES):
        a, b = world.draw(random, n_users)
        one, users = a.values(["ndcg@10"])
        other, _ = b.values(["ndcg@10"])
        tested = paired_difference(
            one["ndcg@10"], other["ndcg@10"], users, table, draws=300, permutations=299
        )
        found[table] = tested["low"], tested["high"], tested["p"]
    return found.T


# Over 2,000 tables a share of 5 % scatters by 0.5 %.
@pytest.mark.slow
@pytest.mark.parametrize("equal", [True, False], ids=["equal counts", "1 to 200 contexts"])
def test_without_a_difference_one_test_in_twenty_says_there_is_one(equal):
    low, high, p = differences(World(equal), 300, seed=1)
    assert 0.04 <= np.mean(p < 0.05) <= 0.065
    assert 0.03 <= np.mean((low > 0) | (high < 0)) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("equal", [True, False], ids=["equal counts", "1 to 200 contexts"])
def test_a_planted_difference_lies_within_its_interval(equal):
    world = World(equal, lift=0.5)
    low, high, p = differences(world, 300, seed=2)
    truth = world.truth()
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97
    assert np.mean(p < 0.05) > 0.5
