"""The contract all samplers share, and what each one promises."""

import numpy as np
import pytest

from palate.data.contexts import Context
from palate.errors import ConfigError
from palate.negatives import SAMPLERS, Mixture, Observed, Uniform, mixture


def context(history=(), positives=(0,), user=0, name=1):
    liked = np.array(positives)
    return Context(np.array(history, int), liked, np.ones_like(liked), name, user)


@pytest.mark.parametrize("name", SAMPLERS)
def test_contract(name, small_data):
    """Never a positive, never twice, never the history unless allowed, a function of the key."""
    contexts = small_data.contexts("train")[:60]
    strict = mixture({name: 8}, small_data)
    drawn_any = False
    for one in contexts:
        drawn = strict.draw(one, (5, 0))
        drawn_any |= len(drawn) > 0
        assert len(set(drawn.tolist())) == len(drawn) <= 8
        assert not set(drawn.tolist()) & {*one.positives.tolist(), *one.history.tolist()}
        assert drawn.tolist() == strict.draw(one, (5, 0)).tolist()
    assert drawn_any
    loose = mixture({name: 30}, small_data, exclude_history=False)
    in_history = [np.isin(loose.draw(one, (5, 0)), one.history).any() for one in contexts]
    assert any(in_history)


def test_uniform_is_uniform():
    """Chi-square of 20,000 draws over 17 allowed items: below the 99.9 % quantile of χ²(16)."""
    sampler, one = Uniform(20), context(positives=(1,))
    exclude = np.array([1, 5, 9])
    drawn = np.concatenate([sampler.draw(one, 2, exclude, (3, e)) for e in range(10_000)])
    counts = np.bincount(drawn, minlength=20)
    assert counts[exclude].sum() == 0
    expected = len(drawn) / 17
    chi_square = ((np.delete(counts, exclude) - expected) ** 2 / expected).sum()
    assert chi_square < 39.3


def test_uniform_gives_all_there_is_and_no_more():
    drawn = Uniform(5).draw(context(), 9, np.array([0, 3]), (1,))
    assert sorted(drawn.tolist()) == [1, 2, 4]


def test_observed_gives_the_users_own():
    sampler = Observed([np.array([2, 3, 4, 5]), np.array([], int)])
    mine = {tuple(sampler.draw(context(), 2, np.array([3]), (1, e))) for e in range(50)}
    assert mine == {(a, b) for a in (2, 4, 5) for b in (2, 4, 5) if a != b}
    assert len(sampler.draw(context(user=1), 2, np.array([3]), (1,))) == 0


def test_a_mixture_keeps_its_counts_and_repeats_nothing():
    both = Mixture({"observed": (Observed([np.arange(1, 9)]), 3), "uniform": (Uniform(12), 4)})
    drawn = both.draw(context(history=(9, 10)), (1, 2))
    assert both.count == 7
    assert len(set(drawn.tolist())) == 7
    assert set(drawn[:3].tolist()) <= set(range(1, 9))


def test_draws_change_with_epoch_and_context():
    sampler = Mixture({"uniform": (Uniform(1000), 5)})
    draws = {tuple(sampler.draw(context(name=n), (0, e))) for n in range(3) for e in range(3)}
    assert len(draws) == 9


def test_unknown_sampler_is_named(small_data):
    with pytest.raises(ConfigError, match=r"no sampler 'unifrom'\. Did you mean 'uniform'"):
        mixture({"unifrom": 3}, small_data)


def test_skipped_items_become_observed_negatives(tmp_path):
    from palate.data.contexts import Prepared
    from palate.data.prepare import Preparation, prepare
    from palate.data.sources import load

    tables = load("simulate", {"n_users": 30, "n_items": 40, "impressions": True, "visits": 16})
    prepare(tables, tmp_path, Preparation(k_core=2), 0)
    data = Prepared(tmp_path, 1)
    log = data.interactions
    with_skips = sum(map(len, data.observed_negatives))
    assert with_skips > 2 * log.disliked.sum()
    (tmp_path / "shown.parquet").unlink()
    assert sum(map(len, Prepared(tmp_path, 1).observed_negatives)) <= log.disliked.sum()
