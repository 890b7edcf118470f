"""Ranking the catalogue: exact whatever is left unread, and beams that cannot leave the trie."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BloomConfig

from conftest import shared
from palate.data.contexts import Context, History
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources.movielens import movielens
from palate.errors import ConfigError, DataError, DataWarning
from palate.policies import PADDING_ITEM, LanguagePolicy
from palate.policies.language import beam, catalogue
from palate.policies.language.item_trie import ItemTrie, KeptTrie
from policies.architectures import CONFIGS, by_definition, model_of

titles = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=6).map(np.array), min_size=1, max_size=15
)
PARTS = ("token_ids", "parent", "depth", "end", "last")


def alike(one, other):
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in PARTS)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(titles, st.integers(1, 12))
def test_chunks_hold_every_node_once_below_what_stands_above(lists, size):
    trie = ItemTrie.of(lists)
    assert [tuple(path_of(trie, last)) for last in trie.last] == [tuple(t) for t in lists]
    expected = 0
    for start, stop, above in trie.chunks(size):
        assert start == expected < stop
        expected = stop
        assert stop - start == 1 or stop - start + len(above) <= size
        known = {*above.tolist(), *range(start, stop)}
        for node in range(start, stop):
            assert trie.parent[node] in known | {-1}
    assert expected == len(trie)


def path_of(trie, node):
    return trie.token_ids[[*trie.above(node), node]].tolist()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(titles, st.data())
def test_parts_of_a_trie_are_tries(lists, data):
    trie = ItemTrie.of(lists)
    some = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, unique=True))
    assert alike(trie.restricted(np.array(some)), ItemTrie.of([lists[item] for item in some]))
    nodes = np.unique(data.draw(st.lists(st.integers(0, len(trie) - 1), min_size=1)))
    part, names = trie.down_to(nodes)
    paths = [np.array(path_of(trie, node)) for node in nodes]
    assert alike(part, ItemTrie.of(paths))
    assert np.array_equal(names[part.last], nodes)
    child, place = trie.children_of(nodes)
    truth = [(kid, n) for n in nodes for kid in np.flatnonzero(trie.parent == n)]
    assert list(zip(child, nodes[place], strict=True)) == truth


def test_no_items_are_no_trie(small_data, small_policy):
    contexts = small_data.contexts("test")[:2]
    assert small_policy.catalogue_log_probs(contexts, np.empty(0, np.int64)).shape == (2, 0)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 50, 10_000])
def test_chunks_change_nothing(chunk_tokens, small_data, small_policy, monkeypatch):
    contexts = small_data.contexts("test")[:5]
    whole = small_policy.catalogue_log_probs(contexts)
    monkeypatch.setattr(catalogue, "CHUNK_TOKENS", chunk_tokens)
    monkeypatch.setattr(catalogue, "READ_TOGETHER", 1)
    chunked = small_policy.catalogue_log_probs(contexts)
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)


@pytest.fixture(params=CONFIGS)
def any_policy(request, small_data, small_policy):
    """Of every architecture; windows are shorter than the prompts. It tells titles apart, and
    repeats some: items 3 and 4 have the title of item 2, that of item 5 goes on behind it."""
    names = small_data.titles()
    names[3:6] = [names[2], names[2], f"{names[2]} {names[6]}"]
    with pytest.warns(DataWarning, match=r"3 of \d+ items have the same tokens as another one"):
        return LanguagePolicy(
            model_of(CONFIGS[request.param]),
            small_policy.tokenizer,
            pa.table({"title": names}),
            small_policy.prompts,
            max_history=5,
            engine="tree",
        )


def test_every_architecture_ranks_the_catalogue_alike(any_policy, small_data, monkeypatch):
    policy, contexts = any_policy, small_data.contexts("test")[:3]
    monkeypatch.setattr(catalogue, "CHUNK_TOKENS", 30)  # several chunks
    monkeypatch.setattr(catalogue, "READ_TOGETHER", 1)
    scores = policy.catalogue_log_probs(contexts)
    for row, context in enumerate(contexts):
        prompt = policy.prompt_tokens(context)
        for item in (0, 3, 5, 7, policy.items.num_rows - 1):
            title = policy.prompter.title_tokens[item]
            truth = by_definition(policy.model, prompt, title, policy.prompter.end)
            assert float(scores[row, item]) == pytest.approx(truth, abs=1e-4, rel=1e-5)
    assert torch.equal(scores[:, 2], scores[:, 3])

    # as many beams as titles find all of them; fewer give what they find its own score
    count = policy.items.num_rows
    everything = policy.rank(contexts, count, method="beam", width=count, exclude_history=False)
    best = scores.sort(dim=1, descending=True)
    np.testing.assert_allclose(everything.scores, best.values, atol=1e-4, rtol=1e-5)
    assert_scored(everything, scores)
    assert (np.sort(everything.item_ids, axis=1) == np.arange(count)).all()
    assert_scored(policy.rank(contexts, 3, method="beam", width=3, exclude_history=False), scores)

    # what the bound leaves unread does not belong to the best
    monkeypatch.setattr(catalogue, "WORTH", 100.0)
    bounded = policy.rank(contexts, top=5, exclude_history=False)
    np.testing.assert_allclose(bounded.scores, best.values[:, :5], atol=1e-4, rtol=1e-5)
    assert_scored(bounded, scores)


def assert_scored(ranking, scores):
    own = np.take_along_axis(scores.numpy(), ranking.item_ids, axis=1)
    np.testing.assert_allclose(ranking.scores, own, atol=1e-4, rtol=1e-5)


def tokens_fed(policy, run):
    """(calls, tokens per row) of the model while something runs."""
    fed = []
    handle = policy.model.register_forward_pre_hook(
        lambda _, arguments, named: fed.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    run()
    handle.remove()
    return len(fed), sum(fed)


def taught(policy, item):
    """A policy that has learnt to answer one item whatever came before."""
    policy.start_stage("sft")
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=3e-3)
    batch = policy.collate_histories([History(np.array([first, item]), 1) for first in range(8)])
    for _ in range(15):
        policy.history_losses(batch).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    policy.model.eval()
    return policy


def test_the_bound_leaves_most_of_the_catalogue_unread(small_data, small_policy, monkeypatch):
    policy, contexts = taught(small_policy, 7), small_data.contexts("test")[:1]
    monkeypatch.setattr(catalogue, "WORTH", 100.0)
    trie = ItemTrie.of(policy.prompter.title_tokens)
    scores = policy.catalogue_log_probs(contexts)
    floor = scores.max(dim=1).values
    arguments = ([policy.prompt_tokens(contexts[0])], trie, policy.prompter.end, policy.pad)
    found = []

    def run():
        with torch.no_grad():
            found.append(
                catalogue.catalogue_log_probs(
                    policy.model, *arguments, policy.device, at_least=floor
                )
            )

    _, fed = tokens_fed(policy, run)
    assert fed < len(arguments[0][0]) + len(trie) // 2
    assert int(found[0].isneginf().sum()) > 20
    assert float(found[0].max()) == pytest.approx(float(floor), abs=1e-4)
    monkeypatch.setattr(catalogue, "WORTH", 0.0)  # not worth it: all is read
    run()
    torch.testing.assert_close(found[1], scores, atol=1e-5, rtol=1e-5)


def test_a_step_is_one_pass_for_all_beams_of_all_prompts(small_data, small_policy, monkeypatch):
    contexts = small_data.contexts("test")[:4]
    longest = max(map(len, small_policy.prompter.title_tokens))
    rankings = []

    def run():
        rankings.append(small_policy.rank(contexts, top=5, method="beam", width=8))

    run()  # before it first ranks, a policy looks whether the model can be asked like this
    calls, fed = tokens_fed(small_policy, run)
    assert calls <= 1 + longest
    prompts = max(len(small_policy.prompt_tokens(context)) for context in contexts)
    assert fed <= prompts + 8 * longest
    monkeypatch.setattr(beam, "MOST_LOGITS", 2 * 8 * small_policy.model.config.vocab_size)
    # two prompts at a time
    more_calls, _ = tokens_fed(small_policy, run)
    assert more_calls > calls
    np.testing.assert_allclose(rankings[0].scores, rankings[1].scores, atol=1e-4)
    assert np.array_equal(rankings[0].item_ids, rankings[1].item_ids)


@pytest.mark.parametrize("method", ["exact", "beam"])
def test_only_what_is_allowed_and_unseen_is_ranked(method, small_data, small_policy):
    contexts = small_data.contexts("test")[:6]
    n_items = small_data.items.num_rows
    scores = small_policy.catalogue_log_probs(contexts).numpy()
    generator = np.random.default_rng(0)
    each = generator.random((6, n_items)) < 0.3
    each[:, 0] = True
    each[5] = False
    each[5, contexts[5].history[0]] = True  # all that is allowed has been seen
    lists = [np.flatnonzero(row) for row in each]
    for allowed, mask in ((each[0], np.tile(each[0], (6, 1))), (each, each), (lists, each)):
        for exclude in (True, False):
            ranking = small_policy.rank(
                contexts, 10, method=method, width=n_items, exclude_history=exclude, allowed=allowed
            )
            for row, context in enumerate(contexts):
                legal = mask[row].copy()
                if exclude:
                    legal[context.history] = False
                truth = sorted(np.flatnonzero(legal), key=lambda item: -scores[row, item])[:10]
                given_out = ranking.item_ids[row]
                assert given_out[: len(truth)].tolist() == truth
                assert (given_out[len(truth) :] == PADDING_ITEM).all()
                assert np.isneginf(ranking.scores[row, len(truth) :]).all()
    narrow = small_policy.rank(contexts, 3, method=method, width=3, allowed=lists)
    for row, context in enumerate(contexts):
        found = set(narrow.item_ids[row].tolist()) - {PADDING_ITEM}
        assert found <= set(lists[row].tolist()) - set(context.history.tolist())


def test_a_single_beam_finds_the_only_allowed_item(small_data, small_policy):
    """However unlikely: no beam is spent on a beginning that leads to nothing allowed."""
    contexts = small_data.contexts("test")[:6]
    worst = small_policy.catalogue_log_probs(contexts).argsort(dim=1)[:, :6].diagonal()
    found = small_policy.rank(
        contexts, 1, method="beam", width=1, exclude_history=False, allowed=list(worst[:, None])
    )
    assert found.item_ids[:, 0].tolist() == worst.tolist()


def test_what_cannot_be_ranked_is_said(small_data, small_policy):
    contexts = small_data.contexts("test")[:2]

    def refuses(error, message, **options):
        with pytest.raises(error, match=message):
            small_policy.rank(contexts, **options)

    refuses(ConfigError, r"method='beams'.* Did you mean 'beam'\?", method="beams")
    refuses(ConfigError, "width=9 is less than top=10", method="beam", width=9)
    nothing = np.zeros((2, small_data.items.num_rows), bool)
    nothing[0] = True
    name = contexts[1].context_id
    refuses(DataError, rf"context {name} \(row 1\) may be given no item", allowed=nothing)
    refuses(DataError, r"of int64 of shape \(3,\)\. Expected", allowed=np.array([1, 2, 3]))
    refuses(DataError, "1 arrays of item ids for 2 contexts", allowed=[np.array([1])])
    refuses(DataError, "item id 4000 is not in", allowed=[np.array([4000]), np.array([1])])
    policy = LanguagePolicy(
        model_of(BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=2048)),
        small_policy.tokenizer,
        small_data.items,
        small_policy.prompts,
        engine="plain",
    )
    with pytest.raises(ConfigError, match="method='beam' needs an engine that reads trees"):
        policy.rank(contexts, method="beam")


def test_a_model_that_reads_no_trees_takes_filters_too(small_data, small_policy):
    contexts = small_data.contexts("test")[:2]
    allowed = np.arange(small_data.items.num_rows) < 9
    tree = small_policy.rank(contexts, 3, allowed=allowed)
    small_policy.engine = "plain"
    plain = small_policy.rank(contexts, 3, allowed=allowed)
    assert np.array_equal(tree.item_ids, plain.item_ids)
    np.testing.assert_allclose(tree.scores, plain.scores, atol=1e-4)


def test_a_trie_is_made_once_and_again_when_a_title_changes(small_policy):
    lists, kept = list(small_policy.prompter.title_tokens), KeptTrie()
    trie = kept.of(lists)
    assert kept.of(list(lists)) is trie
    lists[4] = lists[5]
    assert kept.of(lists).last[4] == kept.of(lists).last[5]
    assert kept.of(lists[:7]).last.shape == (7,)


@pytest.mark.slow
def test_every_film_of_movielens_is_scored_as_it_is_alone(tmp_path):
    folder = shared("data/ml-latest-small")
    prepare(movielens(folder), tmp_path, Preparation(k_core=1), seed=0)
    data = Prepared(tmp_path, window=1)
    with pytest.warns(DataWarning, match="10 of 9,724 items have the same tokens"):
        policy = LanguagePolicy.create("tiny", data.items, "history", max_history=10, seed=0)
    users = data.contexts("test")[:2]
    contexts = [replace(users[0], history=users[0].history[-3:]), users[1]]  # ragged
    scores = policy.catalogue_log_probs(contexts)
    assert scores.shape == (2, data.items.num_rows)
    some = np.random.default_rng(0).choice(data.items.num_rows, 50, replace=False)
    policy.engine = "plain"
    alone = policy.catalogue_log_probs(contexts, some)
    torch.testing.assert_close(scores[:, some], alone, atol=1e-4, rtol=0)


def test_an_empty_history_is_ranked(small_policy):
    nothing = np.empty(0, np.int64)
    assert small_policy.rank([Context(nothing, nothing, nothing)], method="beam").scores.max() < 0
