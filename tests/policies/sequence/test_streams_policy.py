"""The policy of several streams: scores, times, losses, files, and items it never saw."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from palate.data.contexts import Context, History
from palate.errors import CheckpointError, ConfigError, DataError
from palate.item_vectors import ItemVectors
from palate.policies import SequencePolicy, load_policy
from palate.policies.policy import Asked
from palate.policies.reference import Cached, Frozen
from palate.recommend import recommend

N_ITEMS = 40
ITEMS = pa.table(
    {
        "item_id": range(N_ITEMS),
        "source_id": [f"s{i}" for i in range(N_ITEMS)],
        "title": [f"Item {i}" for i in range(N_ITEMS)],
        "genres": [f"a{i % 3}|b{i % 5}" if i % 7 else "" for i in range(N_ITEMS)],
    }
)
ALL = {
    "streams": ["id", "text", "image"],
    "interaction_experts": 4,
    "time_experts": 3,
    "absolute_time": True,
}
SMALL = {"max_history": 6, "hidden": 8, "inner": 12, "seed": 1}
MISSING = 3


def given(name, size, n_items=N_ITEMS):
    vectors = np.random.default_rng(size).normal(size=(n_items, size)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    present = np.arange(n_items) != MISSING
    return ItemVectors(name, np.where(present[:, None], vectors, 0), present, "digest")


VECTORS = {"text": given("text", 5), "image": given("image", 7)}


def make(**shape):
    return SequencePolicy.create(ITEMS, vectors=VECTORS, **SMALL, **ALL | shape)


def stirred(policy):
    """Weights large enough that no part of the model is lost in rounding."""
    torch.manual_seed(7)
    for weights in policy.model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    return policy


def context(items, times=None, **fields):
    none = np.empty(0, np.int64)
    times = None if times is None else np.asarray(times)
    return Context(np.asarray(items), positives=none, levels=none, times=times, **fields)


def history(items, seed=0):
    gaps = np.random.default_rng(seed).integers(0, 10**6, len(items))
    return History(np.asarray(items), 0, 1_600_000_000 + np.cumsum(gaps))


@pytest.fixture
def policy():
    return stirred(make())


def test_with_the_ids_alone_nothing_has_changed():
    """Numbers of the id-only model before it had streams."""
    items = pa.table({name: range(300) for name in ("item_id", "source_id", "title")})
    policy = SequencePolicy.create(items, max_history=10, hidden=16, inner=32, seed=3)
    torch.manual_seed(0)
    losses = policy.history_losses(policy.collate_histories([History(np.arange(0, 50, 5), 0)]))
    expected = [5.647363, 5.798281, 5.747835, 5.642793, 5.745520, 5.599599, 5.692577, 5.645446]
    assert losses[:8].tolist() == pytest.approx(expected, abs=2e-6)
    scored = policy.score([context([4, 9, 2])], np.array([[1, 299]])).log_probs
    assert scored[0].tolist() == pytest.approx([-5.682946, -5.816369], abs=2e-6)


def test_a_score_is_the_sum_over_streams(policy):
    """Each stream alone, with the experts taken out of the way, gives its part."""
    policy = stirred(make(interaction_experts=0, time_experts=0, absolute_time=False))
    contexts = [context([4, 9, 2]), context([7, 3])]
    joint = policy.catalogue_log_probs(contexts)
    alone = []
    for name, stream in policy.model.streams.items():
        one = SequencePolicy.create(ITEMS, vectors=VECTORS, **SMALL, streams=[name])
        one.model.streams[name].load_state_dict(stream.state_dict())
        alone.append(one.catalogue_log_probs(contexts))
    expected = torch.stack(alone).sum(dim=0).log_softmax(dim=1)
    torch.testing.assert_close(joint, expected)


def test_a_missing_vector_is_learnt(policy):
    text = policy.model.streams["text"].vectors
    assert torch.equal(text.weight[MISSING], text.missing.weight[0])
    others = np.arange(N_ITEMS) != MISSING
    expected = text.projection(torch.from_numpy(VECTORS["text"].vectors))
    torch.testing.assert_close(text.weight[others], expected[others])
    torch.testing.assert_close(text(torch.tensor([[5, MISSING]]))[0], text.weight[[5, MISSING]])
    trained = {name for name, _ in policy.model.named_parameters()}
    assert not any("given" in name or "present" in name for name in trained)


def test_moments_of_one_history_score_as_alone_with_their_times(policy):
    items, times = np.array([4, 9, 2, 7, 1]), np.array([0, 50, 50, 4000, 10**7])
    moments = [context(items[:end], times[:end], user_id=0) for end in (2, 5, 3, 1)]
    later = context(items[:3], times[:3] * 3, user_id=0)  # same items at other times
    timeless = context(items[:3], user_id=0)
    together = [*moments, later, timeless]
    batch = policy.collate(together, np.zeros((6, 1), np.int64))
    assert batch["history"].shape == (3, 5)
    joint = policy.catalogue_log_probs(together)
    for row, one in enumerate(together):
        torch.testing.assert_close(joint[row], policy.catalogue_log_probs([one])[0])
    assert not torch.allclose(joint[2], joint[4], atol=1e-3)
    assert not torch.allclose(joint[2], joint[5], atol=1e-3)


def test_only_intervals_count_and_days_from_the_first_item_read(policy):
    items, times = np.array([4, 9, 2]), np.array([0, 50, 90_000])
    here, later = (policy.catalogue_log_probs([context(items, times + s)]) for s in (0, 10**9))
    assert torch.equal(here, later)
    longer = context([1, 2, 3, 4, 5, 6, *items], [-9, -8, -7, 1, 2, 3, *(times + 1000)])
    same = context(longer.history[-6:], longer.times[-6:])
    assert torch.equal(*(policy.catalogue_log_probs([one]) for one in (longer, same)))


def test_one_pass_learns_every_item_as_its_own_context(policy):
    one, two = history([4, 9, 2, 7, 1]), history([3, 8, 5], seed=1)
    policy.model.eval()
    losses = policy.history_losses(policy.collate_histories([one, two._replace(first_target=2)]))
    expected = [
        -policy.catalogue_log_probs([context(h.items[:end], h.times[:end])])[0, h.items[end]]
        for h, end in ((one, 1), (one, 2), (one, 3), (one, 4), (two, 2))
    ]
    torch.testing.assert_close(losses.detach(), torch.stack(expected))


def test_windows_carry_their_times(policy):
    long = history(range(20))
    for window in policy.history_windows(long):
        places = [long.items.tolist().index(item) for item in window.items]
        assert window.times.tolist() == long.times[places].tolist()


AUXILIARY = {
    "contrast_weight": {},
    "category_weight": {},
    "placeholder_weight": {},
    "balance_weight": {"experts": 4, "router_z_weight": 0.0},
    "router_z_weight": {"experts": 4, "balance_weight": 0.0},
}


@pytest.mark.parametrize("name", AUXILIARY)
def test_each_auxiliary_loss_counts_by_its_weight_and_in_training_only(name):
    """Twice the weight, twice the difference to no weight; one loss for each target throughout."""
    histories = [history([4, 9, 2, 7, 1]), history([3, 8, 5], seed=1)]
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        policy = make(dropout=0.0, **AUXILIARY[name], **{name: 1.0})
        stirred(policy).model.config.update({name: weight})
        batch = policy.collate_histories(histories)
        policy.model.train()
        torch.manual_seed(0)
        losses[weight] = policy.history_losses(batch).detach()
        assert losses[weight].shape == (6,)
        policy.model.eval()
        plain = policy.history_losses(batch).detach()
    torch.testing.assert_close(losses[0.0], plain)
    first, second = losses[0.5] - losses[0.0], losses[1.0] - losses[0.0]
    assert (first > 0).any()
    torch.testing.assert_close(second, 2 * first, atol=1e-5, rtol=1e-4)


def test_every_weight_gets_a_gradient():
    weights = dict.fromkeys(("contrast_weight", "category_weight", "placeholder_weight"), 0.1)
    policy = stirred(make(experts=4, dropout=0.0, **weights))
    items = [range(7), range(10, 17), range(20, 27), [MISSING, 5, MISSING, 9, 12]]
    policy.model.train()
    torch.manual_seed(0)
    batch = policy.collate_histories([history(one, seed) for seed, one in enumerate(items)])
    policy.history_losses(batch).mean().backward()
    nothing = [
        name
        for name, one in policy.model.named_parameters()
        if one.grad is None or not one.grad.any()
    ]
    assert nothing == []


def test_half_precision_trains_and_stays_near():
    weights = dict.fromkeys(("contrast_weight", "category_weight"), 0.1)
    policy = stirred(make(experts=4, dropout=0.0, **weights))
    policy.model.train()
    batch = policy.collate_histories([history([4, 9, 2, 7, 1]), history([3, 8, 5], seed=1)])
    exact = policy.history_losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = policy.history_losses(batch)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, exact, atol=0.2, rtol=0.05)
    losses.mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.model.parameters())


def test_a_sampled_softmax_trains_alike_twice_and_is_exact_in_evaluation():
    popularity = np.arange(N_ITEMS)
    found = []
    for _ in range(2):
        policy = make(dropout=0.0, sampled_softmax=9, sample_by="popularity", popularity=popularity)
        batch = policy.collate_histories([history([4, 9, 2, 7, 1])])
        policy.model.train()
        found.append(torch.stack([policy.history_losses(batch) for _ in range(3)]).detach())
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])
    policy.model.eval()
    exact = make(dropout=0.0)
    exact.model.load_state_dict(policy.model.state_dict(), strict=False)
    exact.model.eval()
    assert torch.equal(policy.history_losses(batch), exact.history_losses(batch))


def test_saved_and_loaded_it_ranks_alone(tmp_path):
    weights = dict.fromkeys(("contrast_weight", "category_weight", "placeholder_weight"), 0.1)
    policy = stirred(make(experts=4, sampled_softmax=9, **weights))
    policy.save(tmp_path)
    loaded = load_policy(tmp_path)
    contexts = [context([4, 9, 2], [0, 50, 90_000]), context([7])]
    torch.testing.assert_close(
        loaded.catalogue_log_probs(contexts), policy.catalogue_log_probs(contexts)
    )
    assert loaded.rank(contexts, top=3).item_ids.shape == (2, 3)
    for (name, one), (same, other) in zip(
        policy.model.state_dict().items(), loaded.model.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(one, other)


def test_a_checkpoint_without_some_weights_is_refused(policy, tmp_path):
    """transformers would give them random values."""
    policy.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["streams.text.encoder.positions.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"its files lack streams\.text\.encoder\.positions\.weight"
    ):
        load_policy(tmp_path)


def test_a_frozen_copy_scores_alike_after_training(policy):
    frozen = Frozen(policy)
    policy.model.train()
    policy.history_losses(policy.collate_histories([history([4, 9, 2])])).mean().backward()
    batch = policy.collate([context([4, 9], [0, 9])], np.array([[1, 2, -1]]))
    policy.model.eval()
    assert torch.equal(frozen.log_probs(batch), policy.log_probs(batch).log_probs)


def test_the_load_of_experts_by_hand():
    policy = stirred(make(experts=4, experts_per_item=2))
    one = history(range(18))  # three windows
    found = policy.expert_load([one, history([5, 6])])
    assert found.shape == (3, 2, 4)
    np.testing.assert_allclose(found.sum(axis=2), 2)
    for stream in policy.model.streams.values():  # experts 1 and 3 for whatever comes
        for block in stream.encoder.blocks:
            block.feed_forward_norm.bias.data.fill_(5)
            block.attention_norm.bias.data.fill_(100)
            block.feed_forward.router.weight.data = torch.tensor([-1.0, 1, -2, 2])[:, None].expand(
                -1, 8
            )
    np.testing.assert_allclose(policy.expert_load([one]), np.tile([0, 1, 0, 1], (3, 2, 1)))
    with pytest.raises(ConfigError, match="has plain feed-forward layers and no load of experts"):
        make().expert_load([one])


def test_items_that_came_after_training_are_ranked_by_their_vectors(policy):
    """Known items keep their order among each other; a new one stands where its vectors put it."""
    keep = [i for i in range(N_ITEMS) if i not in (0, 11)]
    later = ITEMS.take(keep)
    twin = later.slice(4, 1).set_column(1, "source_id", pa.array(["new"]))
    items = pa.concat_tables([twin, later])
    rows = [keep[4], *keep]
    vectors = {
        name: replace(one, vectors=one.vectors[rows], present=one.present[rows])
        for name, one in VECTORS.items()
    }
    other = policy.on_catalogue(items, vectors)
    asked = np.array([4, 9, 2])
    before = policy.catalogue_log_probs([context(asked)])[0]
    after = other.catalogue_log_probs([context([rows.index(i, 1) for i in asked])])[0]
    torch.testing.assert_close(after[1:] - after[1], before[keep] - before[keep[0]])
    assert after[0] != after[5]
    ids = policy.model.streams["id"].vectors.weight
    torch.testing.assert_close(other.model.streams["id"].vectors.weight[0], ids.mean(dim=0))
    text = other.model.streams["text"].vectors.weight
    torch.testing.assert_close(text[0], text[5])
    assert policy.knows(ITEMS)
    assert not policy.knows(items)
    policy.check_catalogue(items)
    with pytest.raises(ConfigError, match="reads text vectors, which are not given for this cata"):
        policy.on_catalogue(items)
    with pytest.raises(DataError, match=r"text vectors: found 40 items × 5, expected 39 × 5"):
        policy.on_catalogue(items, VECTORS)


def test_known_items_are_known_whether_their_ids_are_numbers_or_text():
    """A source's ids are numbers until one of them is text: a later "x9" makes all of them text."""
    numbered = ITEMS.set_column(1, "source_id", pa.array(range(N_ITEMS)))
    policy = stirred(SequencePolicy.create(numbered, vectors=VECTORS, **SMALL, **ALL))
    as_text = [str(i) for i in range(N_ITEMS)]
    assert policy.knows(ITEMS.set_column(1, "source_id", pa.array(as_text)))
    later = ITEMS.set_column(1, "source_id", pa.array([*as_text[:-1], "x9"]))
    other = policy.on_catalogue(later, VECTORS)
    before, after = (one.model.streams["id"].vectors.weight for one in (policy, other))
    assert torch.equal(after[:-1], before[:-1])
    torch.testing.assert_close(after[-1], before.mean(dim=0))


def test_vectors_on_axes_of_another_catalogue_are_refused(policy):
    keep = np.arange(N_ITEMS) != 5
    later = ITEMS.filter(pa.array(keep))
    vectors = {
        name: replace(one, vectors=one.vectors[keep], present=one.present[keep])
        for name, one in VECTORS.items()
    }
    vectors["text"] = replace(vectors["text"], own_axes=True)
    with pytest.raises(ConfigError, match=r"text vectors .* fitted to this catalogue alone"):
        policy.on_catalogue(later, vectors)


def test_ids_alone_refuse_items_that_came_after_training():
    policy = SequencePolicy.create(ITEMS, **SMALL)
    later = ITEMS.set_column(1, "source_id", pa.array(["new", *ITEMS["source_id"].to_pylist()[1:]]))
    with pytest.raises(CheckpointError, match=r"has 40, such as item new\. It knows items by thei"):
        policy.on_catalogue(later)
    with pytest.raises(CheckpointError, match="but the data has 40, in another order"):
        policy.check_catalogue(ITEMS.take(list(range(N_ITEMS))[::-1]))


def test_recommendations_for_a_log_read_its_times(policy, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\nu,s4,0\nu,s9,50\nu,s2,90000\n")
    lists = recommend(policy, log, {}, top=3)
    timed, untimed = (
        policy.rank([context([4, 9, 2], times)], top=3) for times in ([0, 50, 90_000], None)
    )
    np.testing.assert_allclose(lists["score"].to_numpy(), timed.scores[0], rtol=1e-5)
    assert not np.allclose(timed.scores, untimed.scores, rtol=1e-3)


def test_a_cached_reference_tells_times_apart(policy):
    one, other = context([4, 9, 2], [0, 50, 90]), context([4, 9, 2], [0, 50, 10**6])
    cached, frozen = Cached(policy), Frozen(policy)
    ids = np.array([[1, 2]])
    for asked in (one, other, one):
        batch = {**policy.collate([asked], ids), "asked": Asked([asked], ids)}
        torch.testing.assert_close(cached.log_probs(batch), frozen.log_probs(batch))
    assert cached.computed == 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"hiden": 8}, "sequence shape: 'hiden' is unknown. Did you mean 'hidden'?"),
        ({"n_items": 8}, "sequence shape: 'n_items' is unknown"),
        ({"streams": ["id", "txt"]}, "sequence stream 'txt' is unknown. Did you mean 'text'?"),
        ({"streams": ["text"]}, "'text' needs text vectors of the items. Set policy.vectors.text"),
        ({"streams": []}, "sequence shape: streams: list should have at least 1 item"),
        ({"heads": 3}, "sequence shape: hidden is 64, which 3 heads do not divide"),
        ({"absolute_time": True}, "sequence shape: absolute_time is set, but nothing reads times"),
        ({"experts": 1}, "sequence shape: experts_per_item is 2 of 1 experts"),
        ({"placeholder_weight": 0.1}, "there is neither text nor image to hide"),
        ({"sampled_softmax": 4, "sample_by": "popularity"}, "'popularity' needs how often each"),
    ],
)
def test_a_shape_that_is_none_is_refused(shape, message):
    with pytest.raises(ConfigError) as error:
        SequencePolicy.create(ITEMS, **shape)
    assert message in str(error.value)


def test_what_does_not_fit_the_catalogue_is_refused():
    with pytest.raises(DataError, match=r"text vectors: found 9 items × 5, expected 40 × 5"):
        SequencePolicy.create(ITEMS, vectors={"text": given("text", 5, 9)}, streams=["text"])
    with pytest.raises(DataError, match="no column 'genres' with categories"):
        SequencePolicy.create(ITEMS.drop_columns("genres"), category_weight=0.1)
    by_count = {"sampled_softmax": 4, "sample_by": "popularity"}
    with pytest.raises(DataError, match=r"popularity: found 39 counts, expected 40"):
        SequencePolicy.create(ITEMS, popularity=np.arange(39), **by_count)
