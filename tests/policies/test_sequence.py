"""The sequence policy: each moment as if read alone, a history in one pass, and its files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.data.contexts import Context, History
from palate.errors import CheckpointError, DataError
from palate.policies import PADDING_ITEM, SequencePolicy, load_policy
from palate.training.preference_sets import PreferenceSets, collate_sets


@pytest.fixture
def policy(small_data):
    return SequencePolicy.create(small_data.items, max_history=6, hidden=16, inner=32, seed=1)


def context(history, **fields):
    none = np.empty(0, np.int64)
    return Context(np.asarray(history), positives=none, levels=none, **fields)


def test_log_probs_are_a_softmax_over_the_catalogue(policy, small_data):
    contexts = small_data.contexts("test")[:5]
    everything = policy.catalogue_log_probs(contexts)
    assert everything.shape == (5, small_data.n_items)
    torch.testing.assert_close(everything.exp().sum(dim=1), torch.ones(5))
    ids = np.array([[3, 0, PADDING_ITEM]] * 5)
    scored = policy.score(contexts, ids)
    torch.testing.assert_close(scored.log_probs[:, :2], everything[:, [3, 0]])
    assert (scored.log_probs[:, 2] == 0).all()
    assert scored.lengths is None
    torch.testing.assert_close(
        policy.catalogue_log_probs(contexts, np.array([7, 2])), everything[:, [7, 2]]
    )


def test_moments_of_one_history_are_read_once_and_score_as_alone(policy):
    items = np.array([4, 9, 2, 7, 1, 8, 3, 5])
    moments = [context(items[:end], user_id=0) for end in (3, 5, 1, 8, 6)]
    other = context([4, 9, 2, 30], user_id=0)  # same user, another history: a row of its own
    stranger = context([4, 9], user_id=1)
    together = [*moments, other, stranger]
    batch = policy.collate(together, np.tile(np.arange(12), (7, 1)))
    # items 2 to 7 for the moment after 8, items 0 to 5 shared by four moments
    assert batch["history"].shape == (4, 6)
    joint = policy.catalogue_log_probs(together)
    for row, one in enumerate(together):
        torch.testing.assert_close(joint[row], policy.catalogue_log_probs([one])[0])


def test_all_moments_of_a_user_come_in_one_example(policy, small_data):
    class Nothing:
        def draw(self, context, key):
            return np.array([(int(context.positives[0]) + 1) % small_data.n_items])

    contexts = small_data.contexts("train")
    sets = PreferenceSets(contexts, Nothing(), seed=0, policy=policy)
    users = [{one.context.user_id for one in sets[0, i]} for i in range(len(sets))]
    assert all(len(found) == 1 for found in users)
    assert sum(len(sets[0, i]) for i in range(len(sets))) == len(contexts)
    batch = collate_sets(policy, [sets[0, 0], sets[0, 1]])
    assert batch["contexts"] == len(sets[0, 0]) + len(sets[0, 1])
    short = [i for i in range(len(sets)) if max(sets.sizes[i : i + 1]) <= policy.max_history]
    one = collate_sets(policy, [sets[0, short[0]]])
    assert len(one["history"]) == 1


def test_one_pass_learns_every_item_as_its_own_context(policy):
    items = np.array([4, 9, 2, 7, 1])
    batch = policy.collate_histories([History(items, 0), History(items[:3], 2)])
    policy.model.eval()
    losses = policy.history_losses(batch)
    assert batch["targets"] == len(losses) == 5
    expected = [
        -policy.catalogue_log_probs([context(items[:end])])[0, items[end]]
        for end in (1, 2, 3, 4, 2)
    ]
    torch.testing.assert_close(losses.detach(), torch.stack(expected))


def test_no_moment_sees_what_comes_after(policy):
    policy.model.eval()
    items = torch.tensor([[4, 9, 2, 7, 1]])
    changed = items.clone()
    changed[0, 3:] = 0
    rows, columns = torch.zeros(3, dtype=torch.long), torch.arange(3)
    torch.testing.assert_close(
        policy.model(items, rows, columns), policy.model(changed, rows, columns)
    )


def test_saved_and_loaded_it_is_the_same(policy, small_data, tmp_path):
    contexts = small_data.contexts("test")[:4]
    policy.save(tmp_path)
    loaded = load_policy(tmp_path)
    assert torch.equal(loaded.catalogue_log_probs(contexts), policy.catalogue_log_probs(contexts))
    ranking = loaded.rank(contexts, top=3)
    assert ranking.item_ids.shape == (4, 3)
    for row, one in enumerate(contexts):
        assert not set(ranking.item_ids[row]) & set(one.history)


def test_same_seed_same_weights(small_data):
    one, again, other = (
        SequencePolicy.create(small_data.items, hidden=8, inner=8, seed=seed) for seed in (1, 1, 2)
    )
    first = next(one.model.parameters())
    assert torch.equal(first, next(again.model.parameters()))
    assert not torch.equal(first, next(other.model.parameters()))


def test_an_empty_history_is_refused_in_a_sentence(policy):
    with pytest.raises(DataError, match="context 5 has an empty history; a sequence policy needs"):
        policy.rank([context([1, 2]), replace(context([]), context_id=5)])


def test_an_unknown_item_is_refused(policy):
    with pytest.raises(DataError, match="item id 99 is not in the catalogue; expected 0 to"):
        policy.score([context([1])], np.array([[99]]))


def test_a_checkpoint_of_another_catalogue_is_refused(policy, small_data, tmp_path):
    fewer = small_data.items.slice(0, 5)
    with pytest.raises(CheckpointError, match="the saved sequence policy knows a catalogue of"):
        policy.check_catalogue(fewer)
    with pytest.raises(CheckpointError, match="but the catalogue has 5"):
        SequencePolicy(policy.model, fewer)
    policy.check_catalogue(small_data.items)


def test_a_cut_checkpoint_is_refused(policy, tmp_path):
    policy.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="holds no whole policy"):
        load_policy(tmp_path)
