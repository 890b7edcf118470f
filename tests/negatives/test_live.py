"""Samplers that ask the policy or look at the batch: their contract, and what each promises."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from palate.data.contexts import Context
from palate.errors import ConfigError
from palate.negatives import (
    SAMPLERS,
    Hard,
    InBatch,
    LiveSampler,
    Mixture,
    SelfPlay,
    StochasticTopK,
    Uniform,
    mixture,
)
from palate.negatives.live import Visit
from palate.negatives.noise import gumbel_noise
from palate.negatives.pool import Pool
from palate.policies import SequencePolicy
from palate.randomness import gumbel

LIVE = {
    "in_batch": {},
    "hard": {},
    "stochastic_topk": {"k": 12},
    "stochastic_topk by score": {"k": 12, "temperature": 0.5},
    "self_play": {"temperature": 2.0},
}
every_live = pytest.mark.parametrize("name", LIVE)


def context(history=(), positives=(0,), user=0, name=1):
    liked = np.array(positives)
    return Context(np.array(history, int), liked, np.ones_like(liked), name, user)


@pytest.fixture(scope="module")
def policy(small_data):
    return SequencePolicy.create(small_data.items, 8, hidden=16, inner=16, seed=1)


def catalogue(scores):
    scores = torch.as_tensor(scores, dtype=torch.float32)
    return Pool(scores, torch.arange(scores.shape[1]))


def made(name, data, count, exclude_history=True):
    sampler = name.split()[0]
    options = {sampler: LIVE[name]} if LIVE[name] else None
    return mixture({sampler: count}, data, exclude_history, options)


def drawn_for(contexts, negatives, policy, key=(5, 0), batch=None):
    """Negatives of some contexts, as training draws them."""
    contexts = list(contexts)
    bars = [negatives.excluded(one) for one in contexts]
    fixed = [negatives.draw(one, key) for one in contexts]
    excludes = [np.append(*both) for both in zip(bars, fixed, strict=True)]
    keys = [(*key, one.context_id) for one in contexts]
    pool = catalogue(policy.catalogue_log_probs(contexts)).without(excludes)
    visit = Visit(contexts, excludes, keys, batch or contexts, pool)
    live = negatives.draw_live(visit)
    return [np.append(*both) for both in zip(fixed, live, strict=True)]


def test_every_sampler_that_is_live_is_tried_here(small_data):
    found = {name for name in SAMPLERS if name != "fixed" and mixture({name: 1}, small_data).live}
    assert found == {name.split()[0] for name in LIVE}


@every_live
@pytest.mark.parametrize("exclude_history", [True, False])
@pytest.mark.parametrize("count", [1, 8, 100])
def test_contract(name, count, exclude_history, small_data, policy):
    """Never a positive, never twice, not the history unless allowed, as many as there are."""
    most = {"stochastic_topk": 12}.get(name.split()[0], 1000)
    count = min(count, most)
    negatives = made(name, small_data, count, exclude_history)
    contexts = small_data.contexts("train")[:60]
    everyone = {item for one in contexts for item in one.positives.tolist()}
    own = {one.user_id: set() for one in contexts}
    for one in contexts:
        own[one.user_id] |= set(one.positives.tolist())
    from_history = False
    for one, drawn in zip(contexts, drawn_for(contexts, negatives, policy), strict=True):
        allowed = set(range(small_data.n_items)) - set(one.positives.tolist())
        if exclude_history:
            allowed -= set(one.history.tolist())
        if name == "in_batch":
            allowed &= everyone - own[one.user_id]
        assert drawn.dtype == np.int64
        assert len(set(drawn.tolist())) == len(drawn) == min(count, len(allowed), most)
        assert set(drawn.tolist()) <= allowed
        from_history |= bool(np.isin(drawn, one.history).any())
    assert from_history == (not exclude_history)


@every_live
def test_a_draw_is_a_function_of_its_key_and_of_the_scores(name, small_data, policy):
    contexts = list(small_data.contexts("train")[:60])
    negatives, again = made(name, small_data, 4), made(name, small_data, 4)
    first = [row.tolist() for row in drawn_for(contexts, negatives, policy)]
    backwards = drawn_for(contexts[::-1], again, policy)
    assert first == [row.tolist() for row in backwards[::-1]]
    halves = [
        row.tolist()
        for half in (contexts[:20], contexts[20:])
        for row in drawn_for(half, again, policy, batch=contexts)
    ]
    assert first == halves
    for other in ((5, 1), (6, 0)):
        changed = [row.tolist() for row in drawn_for(contexts, negatives, policy, other)]
        assert (first == changed) == (name == "hard")


def test_mixtures_of_static_and_live_repeat_nothing(small_data, policy):
    counts = {"hard": 3, "uniform": 5, "stochastic_topk": 4, "self_play": 4, "in_batch": 3}
    negatives = mixture(counts, small_data)
    contexts = small_data.contexts("train")[:40]
    for one, drawn in zip(contexts, drawn_for(contexts, negatives, policy), strict=True):
        assert len(set(drawn.tolist())) == len(drawn) == negatives.count
        assert not set(drawn.tolist()) & {*one.positives.tolist(), *one.history.tolist()}


def test_one_sampler_leaves_the_best_to_the_next():
    """hard takes 4 and 3; the best two left are 2 and 1; self_play gets what remains."""
    parts = {"hard": (Hard(), 2), "topk": (StochasticTopK(k=2), 2), "self": (SelfPlay(), 9)}
    pool = catalogue([[0.0, 1.0, 2.0, 3.0, 4.0, -1.0]]).without([np.array([5])])
    visit = Visit([context()], [np.array([5])], [(1,)], [context()], pool)
    (drawn,) = Mixture(parts).draw_live(visit)
    assert drawn[:2].tolist() == [4, 3]
    assert set(drawn[2:4].tolist()) == {1, 2}
    assert drawn[4:].tolist() == [0]


SCORES = np.log([0.25, 0.02, 0.18, 0.05, 0.3, 0.2])


def many(sampler, count, scores=SCORES, n=20_000, exclude=()):
    """(n, count) draws for n contexts with the same scores."""
    bar = np.array(exclude, int)
    visit = Visit(
        [context(name=i) for i in range(n)],
        [bar] * n,
        [(7, i) for i in range(n)],
        [],
        catalogue(np.tile(scores, (n, 1))).without([bar] * n),
    )
    return np.stack(sampler.draw_batch(visit, count))


@pytest.mark.parametrize("temperature", [None, 0.5, 1.0, 3.0])
def test_single_draws_among_the_best_are_as_documented(temperature):
    """Without item 4 the best four are 0, 5, 2, 3."""
    drawn = many(StochasticTopK(4, temperature), 1, exclude=[4])[:, 0]
    best = [0, 5, 2, 3]
    weight = np.ones(4) if temperature is None else np.exp(SCORES[best] / temperature)
    counts = np.bincount(drawn, minlength=6)
    assert counts[[1, 4]].sum() == 0
    assert chisquare(counts[best], len(drawn) * weight / weight.sum()).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_self_play_draws_from_the_policy(temperature):
    drawn = many(SelfPlay(temperature), 1, exclude=[2])[:, 0]
    weight = np.delete(np.exp(SCORES / temperature), 2)
    counts = np.bincount(drawn, minlength=6)
    assert counts[2] == 0
    assert chisquare(np.delete(counts, 2), len(drawn) * weight / weight.sum()).pvalue > 1e-3


@pytest.mark.parametrize("proposals", [4, 1])  # with one each, repeats leave a rest to rank
def test_self_play_draws_pairs_one_after_another_without_replacement(proposals, monkeypatch):
    monkeypatch.setattr("palate.negatives.successive.PROPOSALS", proposals)
    drawn = many(SelfPlay(), 2)
    probability = np.exp(SCORES)
    expected = {
        (a, b): probability[a] * probability[b] / (1 - probability[a])
        for a, b in permutations(range(6), 2)
    }
    found = dict.fromkeys(expected, 0)
    for pair in drawn.tolist():
        found[tuple(pair)] += 1
    chances = np.array(list(expected.values()))
    assert chances.sum() == pytest.approx(1)
    assert chisquare(list(found.values()), len(drawn) * chances).pvalue > 1e-3


def test_self_play_stays_exact_where_weights_vanish():
    """At this temperature all but one weight are 0 in floating point; the order remains."""
    drawn = many(SelfPlay(1e-4), 9, n=3, exclude=[4])
    assert drawn.tolist() == [[0, 5, 2, 3, 1]] * 3


def test_a_context_without_anything_left_gets_nothing():
    for sampler in (Hard(), SelfPlay(), StochasticTopK(3)):
        assert many(sampler, 2, n=2, exclude=range(6)).shape == (2, 0)


def test_the_batchs_positives_are_equally_likely_however_often_liked():
    """Items 1 (liked by three), 2 and 3 by others; 4 and 5 are the user's own, now or later."""
    liked = [(4,), (5,), (1,), (1, 2), (1, 3)]
    batch = [context((), items, user) for items, user in zip(liked, (0, 0, 1, 2, 3), strict=True)]
    n = 9_000
    one = batch[0]
    visit = Visit([one] * n, [one.positives] * n, [(3, i) for i in range(n)], batch)
    counts = np.bincount(np.concatenate(InBatch(9).draw_batch(visit, 1)), minlength=9)
    assert counts[[0, 4, 5, 6, 7, 8]].sum() == 0
    assert chisquare(counts[1:4]).pvalue > 1e-3


def test_a_batch_of_one_user_gets_one_uniform_item():
    one = context((1, 2), (0,))
    visit = Visit([one], [np.array([0, 1, 2])], [(3, 1)], [one])
    (drawn,) = InBatch(5).draw_batch(visit, 4)
    assert len(drawn) == 1
    assert drawn[0] in (3, 4)


def test_noise_on_the_device_is_that_of_the_house():
    keys, items = [(0, 3, 17, 2), (2**31 - 1, 0, 10**12, 0)], np.arange(500)
    noise = gumbel_noise(keys, torch.from_numpy(items))
    expected = np.stack([gumbel(*key, items) for key in keys])
    np.testing.assert_allclose(noise.numpy(), expected, rtol=1e-6, atol=1e-6)
    each = gumbel_noise(keys, torch.tensor([[4, 9], [7, 0]]))
    assert torch.equal(each, torch.stack([noise[0, [4, 9]], noise[1, [7, 0]]]))


def test_candidate_sets_leave_out_items_row_by_row():
    scores = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, -torch.inf]])
    pool = Pool(scores, torch.tensor([[4, 1, 7], [7, 4, -1]]))  # −1: the second has two items
    left = pool.without([np.array([7, 99]), np.array([4])])
    assert torch.isinf(left.log_probs).tolist() == [[False, False, True], [False, True, True]]
    assert torch.isinf(pool.log_probs).sum() == 1
    assert [row.tolist() for row in left.taken(left.log_probs, 2)] == [[1, 4], [7]]


def test_mean_rank_counts_what_is_likelier():
    pool = catalogue([[0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]]).without(
        [np.array([0]), np.array([], int)]
    )
    drawn = [np.array([3, 1]), np.array([3])]  # second and third of three; first of four
    assert float(pool.mean_rank(drawn)) == pytest.approx((2 + 3 + 1) / 3)


def test_more_than_the_best_hold_is_refused(small_data):
    options = {"stochastic_topk": {"k": 3}}
    with pytest.raises(ConfigError, match=r"stochastic_topk: 5 negatives .* the best 3"):
        mixture({"stochastic_topk": 5}, small_data, options=options)


def test_live_and_static_are_told_apart():
    assert isinstance(Hard(), LiveSampler)
    assert not isinstance(Uniform(3), LiveSampler)
