"""The token tree: its structure, and that every architecture scores in it as it scores alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BloomConfig

from palate.errors import ConfigError, DataWarning
from palate.policies import LanguagePolicy, SequencePolicy, load_policy
from palate.policies.language import layouts
from palate.policies.language.adapters import Adapter
from palate.policies.language.token_tree import TokenTree
from policies.architectures import CONFIGS, by_definition, model_of

sequences = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12)


def tree_of(*lists):
    return TokenTree.of([np.array(tokens) for tokens in lists])


def test_a_tree_by_hand():
    # 5 6 is shared; 7 and 8 part; the third is a prefix of the first; 9 is alone
    tree = tree_of([5, 6, 7], [5, 6, 8, 7], [5, 6], [9])
    assert tree.token_ids.tolist() == [5, 6, 7, 8, 7, 9]
    assert tree.parent.tolist() == [-1, 0, 1, 1, 3, -1]
    assert tree.depth.tolist() == [0, 1, 2, 2, 3, 0]
    assert tree.end.tolist() == [5, 5, 3, 5, 5, 6]
    assert tree.nodes.tolist() == [[0, 1, 2, -1], [0, 1, 3, 4], [0, 1, -1, -1], [5, -1, -1, -1]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(sequences)
def test_every_tree_is_the_trie_of_its_sequences(lists):
    tree = tree_of(*lists)
    prefixes = {tuple(tokens[: n + 1]) for tokens in lists for n in range(len(tokens))}
    assert len(tree) == len(prefixes)  # no node twice, none too many
    for tokens, path in zip(lists, tree.nodes, strict=True):
        nodes = path[: len(tokens)]
        assert tree.token_ids[nodes].tolist() == tokens
        assert (path[len(tokens) :] == -1).all()
        assert tree.depth[nodes].tolist() == list(range(len(tokens)))
        assert tree.parent[nodes].tolist() == [-1, *nodes[:-1].tolist()]
        seen = [k for k in range(len(tree)) if k <= nodes[-1] < tree.end[k]]
        assert seen == nodes.tolist()  # ancestors and itself, in order of depth


def test_thousands_of_titles_are_a_tree_of_their_shared_beginnings():
    generator = np.random.default_rng(0)
    titles = [generator.integers(0, 50, generator.integers(1, 30)) for _ in range(5000)]
    tree = TokenTree.of(titles)
    assert len(tree) == len({tuple(title[: n + 1]) for title in titles for n in range(len(title))})


@pytest.fixture(scope="module")
def cases():
    """Ragged prompts; titles of 1 and of 60 tokens, twice the same, prefixes of one another."""
    generator = np.random.default_rng(1)

    def tokens(count):
        return generator.integers(3, 200, count)

    long, middle, one = tokens(60), tokens(7), tokens(1)
    forked = np.concatenate([middle[:4], tokens(3)])
    answers = [
        [long, middle, one, forked],
        [middle, middle, middle[:3], None],
        [one, long[:20], None, long],
    ]
    return [tokens(40), tokens(12), tokens(25)], answers


def scored(policy, lay, cases):
    """(B, K) log-probabilities and the gradient of a function of them."""
    prompts, answers = cases
    policy.model.zero_grad()
    found = policy.log_probs(lay(prompts, answers, policy.prompter.end, policy.pad))
    weights = torch.linspace(-1, 2, found.log_probs.numel()).view_as(found.log_probs)
    (weights * found.log_probs).sum().backward()
    trained = [w for w in policy.model.parameters() if w.requires_grad]
    gradient = torch.cat([w.grad.flatten() for w in trained if w.grad is not None])
    return found.log_probs.detach(), found.lengths, gradient


@pytest.mark.parametrize("adapter", [None, Adapter(rank=2)], ids=["whole", "lora"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_tree_scores_as_lone_titles_are_scored(name, adapter, small_policy, cases):
    policy = LanguagePolicy(
        model_of(CONFIGS[name]),
        small_policy.tokenizer,
        None,
        small_policy.prompts,
        adapter=adapter if name != "gpt2" else adapter and Adapter(rank=2, targets=["c_attn"]),
        engine="tree",  # no fallback
    )
    policy.start_stage("align")
    policy.model.eval()
    if adapter is not None:  # fresh adapters change nothing and half of them have no gradient
        with torch.no_grad():
            for weights in policy.model.parameters():
                if weights.requires_grad:
                    weights.add_(0.05 * torch.randn_like(weights))
    tree, lengths, tree_gradient = scored(policy, layouts.lay_trees, cases)
    alone, lone_lengths, lone_gradient = scored(policy, layouts.lay_alone, cases)
    assert torch.equal(lengths, lone_lengths)
    assert alone[lengths > 0].std() > 1  # scores that differ, or nothing would be shown
    torch.testing.assert_close(tree, alone, atol=1e-4, rtol=0)
    scale = lone_gradient.abs().max()
    assert float((tree_gradient - lone_gradient).abs().max() / scale) < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_lone_scoring_is_the_definition(name, small_policy, cases):
    model = model_of(CONFIGS[name])
    policy = LanguagePolicy(
        model, small_policy.tokenizer, None, small_policy.prompts, engine="plain"
    )
    prompts, answers = cases
    with torch.no_grad():
        found = policy.log_probs(layouts.lay_alone(prompts, answers, 2, 0)).log_probs
    for row, titles in enumerate(answers):
        for slot, title in enumerate(titles):
            truth = 0.0 if title is None else by_definition(model, prompts[row], title, 2)
            assert float(found[row, slot]) == pytest.approx(truth, rel=1e-5, abs=1e-5)


def test_padding_on_the_left_changes_nothing(small_policy, cases):
    """Row by row without any padding, or among longer rows: the same scores."""
    prompts, answers = cases
    together = small_policy._score_batch(layouts.lay_trees(prompts, answers, 2, 0)).log_probs
    for row in range(len(prompts)):
        alone = layouts.lay_trees(prompts[row : row + 1], answers[row : row + 1], 2, 0)
        torch.testing.assert_close(
            small_policy._score_batch(alone).log_probs[0], together[row], atol=1e-5, rtol=1e-5
        )


def test_a_tree_feeds_each_shared_token_once(cases):
    prompts, answers = cases
    batch = layouts.lay_trees(prompts, answers, 2, 0)
    fed = (batch["subtree_end"] > 0).sum(dim=1).tolist()
    paths = {
        row: {
            tuple(np.concatenate([prompts[row], title])[: n + 1])
            for title in titles
            if title is not None
            for n in range(len(prompts[row]) + len(title))
        }
        for row, titles in enumerate(answers)
    }
    assert fed == [max(map(len, paths.values()))] * 3
    # the head runs once where several tokens are read
    assert len(batch["read_row"]) < len(batch["scored_target"])
    read = set(zip(batch["read_row"].tolist(), batch["read_column"].tolist(), strict=True))
    assert len(read) == len(batch["read_row"])


def test_many_logits_are_made_in_parts(small_policy, cases, monkeypatch):
    whole = scored(small_policy, layouts.lay_trees, cases)
    monkeypatch.setattr("palate.policies.language.reading.MOST_LOGITS", 7 * 2048)
    parts = scored(small_policy, layouts.lay_trees, cases)
    torch.testing.assert_close(parts[0], whole[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts[2], whole[2], atol=1e-5, rtol=1e-4)


def test_a_model_without_positions_falls_back_and_says_so(small_policy, cases):
    config = BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=600)  # ALiBi
    arguments = (model_of(config), small_policy.tokenizer, None, small_policy.prompts)
    with pytest.warns(DataWarning, match=r"Bloom.* each title is scored alone, which is slower"):
        policy = LanguagePolicy(*arguments)
    assert policy.engine == "plain"
    with pytest.raises(ConfigError, match="engine='tree': BloomForCausalLM"):
        LanguagePolicy(*arguments, engine="tree")
    prompts, answers = cases
    batch = policy._lay(prompts, answers)
    found = policy._score_batch(batch).log_probs
    truth = by_definition(policy.model, prompts[0], answers[0][1], policy.prompter.end)
    assert float(found[0, 1]) == pytest.approx(truth, abs=1e-4)


def test_load_policy_takes_an_engine(small_policy, small_data, tmp_path):
    small_policy.save(tmp_path / "language")
    for engine, used in ((None, "tree"), ("tree", "tree"), ("plain", "plain")):
        assert load_policy(tmp_path / "language", engine=engine).engine == used
    with pytest.raises(ConfigError, match=r"engine='trie' is unknown\. Did you mean 'tree'"):
        load_policy(tmp_path / "language", engine="trie")
    (tmp_path / "ids").mkdir()
    SequencePolicy.create(small_data.items, 8, hidden=8, inner=8, seed=0).save(tmp_path / "ids")
    with pytest.raises(ConfigError, match=r"is a sequence policy\. Leave engine out"):
        load_policy(tmp_path / "ids", engine="plain")
