"""The language policy: one score however it is computed, and the same one after saving."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig

from conftest import shared
from palate.data.contexts import History
from palate.errors import CheckpointError, ConfigError, DataError, DataWarning
from palate.policies import PADDING_ITEM, LanguagePolicy, load_policy
from policies.architectures import by_definition, model_of


def test_packed_lone_and_catalogue_scores_are_the_definition(small_data, small_policy):
    contexts = small_data.contexts("test")[:4]
    ids = np.array([[0, 5, 9], [3, 3, 1], [7, PADDING_ITEM, 2], [8, 9, PADDING_ITEM]])
    packed = small_policy.score(contexts, ids)
    small_policy.engine = "plain"
    alone = small_policy.score(contexts, ids)
    lone_catalogue = small_policy.catalogue_log_probs(contexts, np.arange(10))
    small_policy.engine = "tree"
    full = small_policy.catalogue_log_probs(contexts)
    for row, context in enumerate(contexts):
        for column, item in enumerate(ids[row]):
            if item == PADDING_ITEM:
                assert packed.log_probs[row, column] == 0
                assert packed.lengths[row, column] == 0
                continue
            truth = by_definition(
                small_policy.model,
                small_policy.prompt_tokens(context),
                small_policy.prompter.title_tokens[item],
                small_policy.prompter.end,
            )
            for value in (packed.log_probs, alone.log_probs):
                assert float(value[row, column]) == pytest.approx(truth, abs=1e-5, rel=1e-5)
            assert float(full[row, item]) == pytest.approx(truth, abs=1e-5, rel=1e-5)
            assert packed.lengths[row, column] == len(small_policy.prompter.title_tokens[item]) + 1
    torch.testing.assert_close(full[:, :10], lone_catalogue, atol=1e-5, rtol=1e-5)


def test_packed_gradients_are_those_of_lone_scoring(small_data, small_policy):
    contexts = small_data.contexts("test")[:3]
    ids = np.array([[0, 5, 9], [3, 4, 1], [7, 8, 2]])
    gradients = []
    for engine in ("tree", "plain"):
        small_policy.engine = engine
        small_policy.model.zero_grad()
        small_policy.log_probs(
            small_policy.collate(contexts, ids)
        ).log_probs.square().sum().backward()
        gradients.append([p.grad.clone() for p in small_policy.model.parameters()])
    for packed, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, alone, atol=2e-3, rtol=1e-4)


def test_a_history_in_one_pass_scores_each_item_as_its_own_context(small_data, small_policy):
    items = small_data.contexts("test")[0].history[:6]
    batch = small_policy.collate_histories([History(items, 1)])
    losses = small_policy.history_losses(batch).tolist()
    opening = small_policy.prompter.opening(items)
    for place in range(1, len(items)):
        parts = [opening]
        for item in items[:place]:
            parts += [small_policy.prompter.title_tokens[item], small_policy.prompter.break_tokens]
        title = small_policy.prompter.title_tokens[items[place]]
        alone = small_policy._score_batch(small_policy._lay([np.concatenate(parts)], [[title]]))
        assert losses[place - 1] == pytest.approx(-float(alone.log_probs), rel=1e-5)


def test_saved_and_loaded_it_is_the_same(small_data, small_policy, tmp_path):
    contexts, ids = small_data.contexts("test")[:4], np.arange(12).reshape(4, 3)
    small_policy.save(tmp_path)
    loaded = load_policy(tmp_path)
    before, after = small_policy.score(contexts, ids), loaded.score(contexts, ids)
    assert torch.equal(before.log_probs, after.log_probs)
    assert loaded.rank(contexts, top=3).item_ids.tolist() == (
        small_policy.rank(contexts, top=3).item_ids.tolist()
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "items.parquet", "prompts.txt", "palate.json"} <= names


def test_rank_leaves_the_history_out(small_data, small_policy):
    contexts = small_data.contexts("test")[:6]
    ranking = small_policy.rank(contexts, top=10)
    for context, items in zip(contexts, ranking.item_ids, strict=True):
        assert not set(items.tolist()) & set(context.history.tolist())
    assert (np.diff(ranking.scores, axis=1) <= 0).all()


def test_text_scores_agree_with_item_scores(small_data, small_policy):
    context = small_data.contexts("test")[0]
    prompt = small_policy.tokenizer.decode(small_policy.prompt_tokens(context)[1:])
    titles = [small_data.titles()[item] for item in (3, 8)]
    by_text = small_policy.score_texts([prompt, prompt], [titles, titles[:1]])
    by_item = small_policy.score([context], np.array([[3, 8]]))
    torch.testing.assert_close(by_text.log_probs[0], by_item.log_probs[0], atol=1e-5, rtol=1e-5)
    assert by_text.lengths.tolist()[1][1] == 0


def test_an_unknown_item_is_named(small_data, small_policy):
    with pytest.raises(DataError, match="item id 4000 is not in the catalogue; expected 0 to"):
        small_policy.score(small_data.contexts("test")[:1], np.array([[4000]]))


def test_prompts_that_list_candidates_refuse_the_catalogue(small_data):
    policy = LanguagePolicy.create("tiny", small_data.items, "history_and_candidates", 5, 0)
    contexts = small_data.contexts("test")[:2]
    assert policy.score(contexts, np.array([[0, 1], [2, 3]])).log_probs.isfinite().all()
    assert not policy.learns_whole_histories
    with pytest.raises(ConfigError, match="cannot rank the whole catalogue"):
        policy.catalogue_log_probs(contexts)


def test_a_model_that_reads_no_trees_ranks_the_catalogue_alone(small_data, small_policy):
    bloom = model_of(BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=2048))
    with pytest.warns(DataWarning, match="each title is scored alone"):
        policy = LanguagePolicy(
            bloom, small_policy.tokenizer, small_data.items, small_policy.prompts, max_history=5
        )
    contexts = small_data.contexts("test")[:2]
    scores = policy.catalogue_log_probs(contexts, np.array([4, 2]))
    prompt, title = policy.prompt_tokens(contexts[1]), policy.prompter.title_tokens[2]
    truth = by_definition(bloom, prompt, title, policy.prompter.end)
    assert float(scores[1, 1]) == pytest.approx(truth, abs=1e-5, rel=1e-5)


def test_a_cut_folder_and_a_missing_catalogue_are_named(small_policy, small_data, tmp_path):
    small_policy.save(tmp_path)
    (tmp_path / "prompts.txt").unlink()
    with pytest.raises(CheckpointError, match="holds no whole policy"):
        load_policy(tmp_path)
    small_policy.items = None
    with pytest.raises(DataError, match="has no catalogue"):
        small_policy.rank(small_data.contexts("test")[:1])


def test_a_real_pretrained_model(small_data):
    """stories260K continues its own story better than another's."""
    folder = shared("data/tiny-lm-stories260k/hf")
    policy = load_policy(folder)
    assert policy.engine == "tree"
    scored = policy.score_texts(
        ["Once upon a time, there was a little"], [["girl named Lily.", "quarterly tax audit."]]
    )
    assert scored.log_probs[0, 0] > scored.log_probs[0, 1] + 10
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    assert sum(p.numel() for p in model.parameters()) == 260_032
    own = LanguagePolicy(model, tokenizer, small_data.items, policy.prompts, max_history=3)
    contexts = small_data.contexts("test")[:2]
    assert own.catalogue_log_probs(contexts).isfinite().all()


def test_a_folder_without_a_policy_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither palate\.json nor config\.json"):
        load_policy(tmp_path)


def test_sizes_are_what_their_names_say(small_data):
    tiny = LanguagePolicy.create("tiny", small_data.items, "history", 5, 0)
    small = LanguagePolicy.create("small", small_data.items, "history", 5, 0)
    count = [sum(p.numel() for p in policy.model.parameters()) for policy in (tiny, small)]
    assert 0.7e6 < count[0] < 1.2e6
    assert 8e6 < count[1] < 12e6
