"""The contract all samplers share, and what each one promises."""

from itertools import permutations

import numpy as np
import pytest

from palate.data.contexts import Context
from palate.errors import ConfigError
from palate.negatives import (
    Fixed,
    Mixture,
    Observed,
    Popularity,
    Uniform,
    check_sampler_options,
    mixture,
)

LISTED = 25
"""Items that the file of the contract tests lists for each user."""


def context(history=(), positives=(0,), user=0, name=1):
    liked = np.array(positives)
    return Context(np.array(history, int), liked, np.ones_like(liked), name, user)


@pytest.fixture(scope="module")
def listed(small_data, tmp_path_factory):
    """(file of fixed negatives, item ids of each user)."""
    path = tmp_path_factory.mktemp("negatives") / "listed.csv"
    random = np.random.default_rng(0)
    chosen = [random.permutation(small_data.n_items)[:LISTED] for _ in small_data.users["user_id"]]
    users, items = (
        table["source_id"].to_pylist() for table in (small_data.users, small_data.items)
    )
    lines = [f"{items[i]},{users[user]}" for user, own in enumerate(chosen) for i in own]
    path.write_text("item_id,user_id\n" + "\n".join(lines) + "\n", "utf-8")
    return path, chosen


@pytest.fixture
def make(small_data, listed):
    """(name, count, exclude_history) → a mixture of that sampler alone."""
    options = {"fixed": {"path": str(listed[0])}}

    def made(name, count, exclude_history=True):
        return mixture(
            {name: count},
            small_data,
            exclude_history,
            {name: options[name]} if name in options else None,
        )

    return made


@pytest.fixture
def pool(small_data, listed):
    """(sampler, context) → what it may draw from before anything is left out."""
    by_user = {"observed": small_data.observed_negatives, "fixed": listed[1]}

    def found(name, one):
        own = by_user[name][one.user_id] if name in by_user else range(small_data.n_items)
        return set(map(int, own))

    return found


STATIC = ("uniform", "popularity", "observed", "fixed")  # the live ones: test_live.py
every_sampler = pytest.mark.parametrize("name", STATIC)


@every_sampler
@pytest.mark.parametrize("exclude_history", [True, False])
@pytest.mark.parametrize("count", [1, 8, 100])
def test_contract(name, count, exclude_history, small_data, make, pool):
    """Never a positive, never twice, not the history unless allowed, as many as there are."""
    drawer = make(name, count, exclude_history)
    from_history = drawn_any = False
    for one in small_data.contexts("train")[:60]:
        drawn = drawer.draw(one, (5, 0))
        barred = {*one.positives.tolist()}
        if exclude_history:
            barred |= {*one.history.tolist()}
        allowed = pool(name, one) - barred
        assert drawn.dtype == np.int64
        assert len(set(drawn.tolist())) == len(drawn) == min(count, len(allowed))
        assert set(drawn.tolist()) <= allowed
        from_history |= bool(np.isin(drawn, one.history).any())
        drawn_any |= len(drawn) > 0
    assert drawn_any
    assert from_history == (not exclude_history)


@every_sampler
def test_a_draw_is_a_function_of_its_key(name, small_data, make):
    contexts = small_data.contexts("train")[:60]
    drawer, again = make(name, 4), make(name, 4)
    first = [drawer.draw(one, (5, 0)).tolist() for one in contexts]
    backwards = [again.draw(one, (5, 0)).tolist() for one in reversed(contexts)]
    assert first == backwards[::-1]
    for other in ((5, 1), (6, 0), (5, 0, 0)):
        assert first != [drawer.draw(one, other).tolist() for one in contexts]


@every_sampler
def test_draws_differ_between_contexts_of_one_user(name, small_data, make):
    drawer, one = make(name, 1, exclude_history=False), small_data.contexts("train")[30]
    same = [
        Context(one.history, one.positives, one.levels, number, one.user_id) for number in range(40)
    ]
    assert len({tuple(drawer.draw(each, (5, 0)).tolist()) for each in same}) > 1


def test_mixtures_repeat_nothing(small_data, listed):
    counts = dict.fromkeys(STATIC, 9)
    everything = mixture(counts, small_data, options={"fixed": {"path": listed[0]}})
    assert everything.count == 9 * len(STATIC)
    for one in small_data.contexts("train")[:60]:
        drawn = everything.draw(one, (5, 0)).tolist()
        assert len(set(drawn)) == len(drawn)
        assert not {*drawn} & {*one.positives.tolist(), *one.history.tolist()}


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
    drawn = Uniform(5).draw(context(), 9, np.array([0, 3, 3]), (1,))
    assert sorted(drawn.tolist()) == [1, 2, 4]


def test_the_size_of_the_catalogue_costs_nothing():
    # an array of 10^15 items would not fit anywhere
    exclude = np.arange(100)
    drawn = Uniform(10**15).draw(context(), 50, exclude, (1,))
    assert len(set(drawn.tolist())) == 50
    assert drawn.max() > 10**14


COUNTS = np.array([900, 0, 400, 250, 1, 100, 60, 0, 30, 9, 4])


@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
def test_single_draws_follow_popularity(alpha):
    """Chi-square of 20,000 draws over 9 items: below the 99.9 % quantile of χ²(8)."""
    sampler, exclude = Popularity(COUNTS, alpha), np.array([0, 9])
    drawn = np.array([sampler.draw(context(), 1, exclude, (3, e)).item() for e in range(20_000)])
    weights = np.maximum(COUNTS, 1.0) ** alpha  # items never seen count as seen once
    weights[exclude] = 0
    expected = len(drawn) * weights / weights.sum()
    found = np.bincount(drawn, minlength=len(COUNTS))
    assert found[exclude].sum() == 0
    allowed = np.delete(np.arange(len(COUNTS)), exclude)
    assert (((found - expected) ** 2)[allowed] / expected[allowed]).sum() < 26.1


@pytest.mark.parametrize("alpha", [0.75, 1.5, 4.0])
def test_popular_items_are_drawn_without_replacement(alpha):
    """Who is among three, and who comes first, as in drawing one after another by weight.

    With alpha 4 rejection gives up nearly always, so both ways of drawing are seen.
    """
    counts = np.array([60, 40, 25, 12, 6, 3, 100])
    sampler, exclude, n = Popularity(counts, alpha), np.array([6]), 10_000
    weights = np.delete(counts, exclude).astype(float) ** alpha
    included, first = np.zeros(6), np.zeros(6)
    for order in permutations(range(6), 3):
        left, chance = weights.sum(), 1.0
        for item in order:
            chance *= weights[item] / left
            left -= weights[item]
        included[list(order)] += chance
        first[order[0]] += chance
    drawn = np.stack([sampler.draw(context(), 3, exclude, (8, e)) for e in range(n)])
    for expected, items in ((included, drawn.ravel()), (first, drawn[:, 0])):
        found = np.bincount(items, minlength=7)
        assert found[6] == 0
        error = np.sqrt(n * expected * (1 - expected)) + 1
        assert (np.abs(found[:6] - n * expected) < 4 * error).all()


def test_popularity_stays_exact_where_weights_vanish():
    """alpha 400 makes all but one weight 0 in floating point; the order of the rest remains."""
    counts = np.array([10, 1000, 100, 0, 1])
    drawn = Popularity(counts, 400.0).draw(context(), 9, np.array([2]), (1,))
    assert drawn.tolist()[:2] == [1, 0]
    assert sorted(drawn.tolist()[2:]) == [3, 4]


def test_log_probabilities_of_popularity_are_those_of_one_draw():
    found = Popularity(np.array([4, 1, 0]), 0.5).log_probabilities
    np.testing.assert_allclose(np.exp(found), [0.5, 0.25, 0.25], rtol=1e-12)


def test_popularity_counts_training_only(small_data):
    sampler = mixture({"popularity": 3}, small_data, options={"popularity": {"alpha": 1}})
    made = sampler.parts["popularity"][0]
    assert isinstance(made, Popularity)
    log = small_data.interactions
    assert (
        made.counts.sum()
        == sum(log.split_starts["validation"] - log.split_starts["train"])
        < len(log.items)
    )


def test_observed_gives_the_users_own():
    sampler = Observed([np.array([2, 3, 4, 5]), np.array([], int)])
    mine = {tuple(sampler.draw(context(), 2, np.array([3]), (1, e))) for e in range(50)}
    assert mine == {(a, b) for a in (2, 4, 5) for b in (2, 4, 5) if a != b}
    assert len(sampler.draw(context(user=1), 2, np.array([3]), (1,))) == 0


def test_fixed_keeps_the_order_of_the_list():
    sampler = Fixed([np.array([9, 2, 5, 2, 7, 4]), np.array([], int)])
    assert sampler.draw(context(), 4, np.array([5]), (1,)).tolist() == [9, 2, 7, 4]
    assert sampler.draw(context(), 9, np.array([5]), (1,)).tolist() == [9, 2, 7, 4]
    parts = {tuple(sampler.draw(context(), 2, np.array([5]), (1, e))) for e in range(100)}
    assert parts == {(9, 2), (9, 7), (9, 4), (2, 7), (2, 4), (7, 4)}
    assert len(sampler.draw(context(user=1), 2, np.array([5]), (1,))) == 0


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


def test_each_part_of_a_mixture_draws_under_a_name_of_its_own():
    names = []

    class Recorder:
        def draw(self, context, count, exclude, key):
            names.append(key)
            return np.empty(0, np.int64)

    both = Mixture({"one": (Recorder(), 1), "other": (Recorder(), 1)})
    for number in (3, 4):
        both.draw(context(name=number), (5, 0))
    assert len(set(names)) == 4


PINNED = {
    "uniform, few of many": (Uniform(12_000), 5, [11685, 6070, 5551, 6801, 441]),
    "uniform, most of few": (Uniform(12), 5, [7, 9, 8, 11, 5]),
    "observed": (Observed([np.array([8, 3, 1, 5, 9])]), 3, [8, 5, 9]),
    "popularity, few of many": (Popularity(np.arange(50) ** 2), 5, [49, 38, 36, 39, 13]),
    "popularity, most of few": (Popularity(np.array([9, 0, 5, 1, 2, 3])), 3, [5, 2, 1]),
    "fixed": (Fixed([np.array([8, 3, 1, 5, 9, 2])]), 3, [1, 5, 2]),
}


@pytest.mark.parametrize(("sampler", "count", "expected"), PINNED.values(), ids=PINNED)
def test_draws_that_published_runs_rest_on_do_not_move(sampler, count, expected):
    one = context(history=(3, 4), name=9)
    assert Mixture({"only": (sampler, count)}).draw(one, (2, 1)).tolist() == expected


def test_unknown_sampler_is_named(small_data):
    with pytest.raises(ConfigError, match=r"no sampler 'unifrom'\. Did you mean 'uniform'"):
        mixture({"unifrom": 3}, small_data)
    (problem,) = check_sampler_options("popularty", {"alpha": 1})
    assert problem.endswith("no sampler 'popularty'. Did you mean 'popularity'?")


WRONG_OPTIONS = {
    "unknown": ({"popularity": {"alhpa": 1}}, r"popularity\.alhpa: .* Did you mean 'alpha'"),
    "not a number": ({"popularity": {"alpha": "high"}}, r"popularity\.alpha: .*found 'high'"),
    "below zero": ({"popularity": {"alpha": -1}}, r"alpha: .*greater than or equal to 0.*-1"),
    "not finite": ({"popularity": {"alpha": float("inf")}}, r"alpha: .*finite.*inf"),
    "takes none": ({"uniform": {"alpha": 1}}, r"'uniform' has no such option\. It has none"),
    "not options": ({"popularity": 0.5}, r"popularity: expected options .* found 0\.5"),
    "not drawn from": ({"fixed": {"path": "x.csv"}}, "draws nothing from 'fixed'"),
}


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_wrong_options_are_named(options, message, small_data):
    with pytest.raises(ConfigError, match=r"align\.sampler_options\." + ".*" + message):
        mixture({"popularity": 3, "uniform": 3}, small_data, options=options)


def test_all_wrong_options_are_named_at_once(small_data):
    options = {"popularity": {"alpha": -1, "beta": 2}, "uniform": {"n": 1}}
    with pytest.raises(ConfigError, match=r"(?s)alpha.*popularity\.beta.*uniform\.n"):
        mixture({"popularity": 3, "uniform": 3}, small_data, options=options)
    assert len(check_sampler_options("popularity", options["popularity"])) == 2
    assert check_sampler_options("popularity", {"alpha": 0.5}) == []
    assert check_sampler_options("fixed", {"path": "negatives.csv"}) == []


def test_skipped_items_become_observed_negatives(tmp_path):
    from palate.data.prepare import Preparation, prepare
    from palate.data.prepared import Prepared
    from palate.data.sources import load

    tables = load("simulate", {"n_users": 30, "n_items": 40, "impressions": True, "visits": 16})
    prepare(tables, tmp_path, Preparation(k_core=2), 0)
    data = Prepared(tmp_path, 1)
    log = data.interactions
    with_skips = sum(map(len, data.observed_negatives))
    assert with_skips > 2 * log.disliked.sum()
    (tmp_path / "shown.parquet").unlink()
    assert sum(map(len, Prepared(tmp_path, 1).observed_negatives)) <= log.disliked.sum()
