"""Both protocols against hand-worked lists, baselines against counting, oracles against chance."""

import numpy as np
import pytest
import torch

from conftest import log
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation
from palate.data.tables import SourceTables
from palate.errors import CheckpointError
from palate.evaluation.baselines import Markov, Oracle, Popularity, Random, TasteOracle
from palate.evaluation.candidates import draw_candidates, load_candidates, save_candidates
from palate.evaluation.ranking import rank_candidates, rank_catalogue, summarise
from palate.evaluation.stages import catalogue_scorer
from palate.policies import LanguagePolicy, SequencePolicy


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_not_ranked(value, small_data):
    policy = SequencePolicy.create(small_data.items, 5, seed=1, hidden=8, inner=8)
    contexts = small_data.contexts("test")
    assert catalogue_scorer(policy)(contexts[:2]).shape == (2, small_data.n_items)
    with torch.no_grad():
        next(iter(policy.model.parameters())).view(-1)[-1] = value
    with pytest.raises(CheckpointError, match="are not finite numbers, so there is nothing to"):
        catalogue_scorer(policy)(contexts[:2])
    lists = draw_candidates(contexts, small_data.n_items, 5, seed=1)
    with pytest.raises(CheckpointError, match="are not finite numbers"):
        rank_candidates(policy, contexts, lists)


def test_catalogue_ranks_by_hand(tmp_path):
    """History 0, 1, 2; held out 3. Scores 9 8 7 2 2 5: items 4 and 3 tie, 5 is above them."""
    rows = [("u", i, i, 5.0) for i in range(5)] + [
        ("v", i, t, 5.0) for t, i in enumerate((5, 1, 2, 0))
    ]
    prepare(log(rows), tmp_path, Preparation(k_core=1), 0)
    contexts = Prepared(tmp_path, 1).contexts("test")
    assert contexts[0].positives.tolist() == [4]
    scores = np.array([9.0, 8.0, 7.0, 6.0, 2.0, 2.0])
    ranks = rank_catalogue(lambda batch: np.tile(scores, (len(batch), 1)), contexts)["catalogue"]
    # u: 0–3 are history, 4 and 5 tie: 1 + 0 + 1/2; v: 5, 1, 2 are history, 0 is best of the rest
    assert ranks.rank.tolist() == [1.5, 1.0]
    shown = rank_catalogue(
        lambda batch: np.tile(scores, (len(batch), 1)), contexts, exclude_history=False
    )["catalogue"]
    assert shown.rank.tolist() == [5.5, 1.0]


def test_candidate_ranks_come_from_the_listed_items_only(small_data):
    contexts = small_data.contexts("test")
    lists = draw_candidates(contexts, small_data.n_items, 10, seed=1)
    scorer = Random(small_data, 5)
    ranks = rank_catalogue(scorer, contexts, candidates=lists, batch_size=7)["candidates"]
    for line in range(len(lists.row)):
        scores = scorer([contexts[int(lists.row[line])]])[0][lists.item_ids[line]]
        assert ranks.rank[line] == 1 + (scores > scores[lists.place[line]]).sum()
        assert ranks.item_id[line] == lists.item_ids[line][lists.place[line]]


def test_candidate_lists_keep_their_promises(small_data, tmp_path):
    contexts = small_data.contexts("test")
    lists = draw_candidates(contexts, small_data.n_items, 10, seed=1)
    for line, row in enumerate(lists.row):
        context, items = contexts[int(row)], lists.item_ids[line].tolist()
        assert len(set(items)) == 10
        assert set(items) & set(context.positives.tolist()) == {items[lists.place[line]]}
        assert not set(items) & set(context.history.tolist())
    sha = save_candidates(lists, tmp_path / "c.parquet")
    again = draw_candidates(contexts, small_data.n_items, 10, seed=1)
    assert save_candidates(again, tmp_path / "d.parquet") == sha
    loaded = load_candidates(tmp_path / "c.parquet")
    assert all(np.array_equal(value, vars(lists)[name]) for name, value in vars(loaded).items())


def test_the_place_of_the_answer_tells_nothing(tmp_path):
    """Over 2,000 contexts with the same answer its place is uniform (χ²(9), 99.9 % quantile)."""
    rows = [(u, i, t, 5.0) for u in range(2000) for t, i in enumerate((u % 7 + 2, 1, 0))]
    rows += [(9999, i, i, 5.0) for i in range(40)]
    prepare(log(rows), tmp_path, Preparation(k_core=1), 0)
    data = Prepared(tmp_path, 1)
    lists = draw_candidates(data.contexts("test"), data.n_items, 10, seed=1)
    counts = np.bincount(lists.place, minlength=10)
    expected = counts.sum() / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9
    same_answer = lists.item_ids[lists.item_ids[np.arange(len(lists.place)), lists.place] == 0]
    assert len({tuple(sorted(row)) for row in same_answer.tolist()}) > 0.9 * len(same_answer)


def test_a_small_catalogue_gives_shorter_lists(small_data):
    contexts = small_data.contexts("test")
    lists = draw_candidates(contexts, small_data.n_items, 100, seed=1)
    ranks = rank_catalogue(Popularity(small_data), contexts, candidates=lists)
    full, listed = ranks["catalogue"].rank, ranks["candidates"].rank
    assert (lists.item_ids == -1).any()
    assert np.array_equal(full, listed)  # all items outside the history are listed


def test_candidates_in_the_prompt(small_data):
    policy = LanguagePolicy.create("tiny", small_data.items, "history_and_candidates", 4, 0)
    contexts = small_data.contexts("test").subset(np.arange(5))
    lists = draw_candidates(contexts, small_data.n_items, 5, seed=1)
    ranks = rank_candidates(policy, contexts, lists, batch_size=2)
    assert set(ranks) == {"candidates"}
    assert ((ranks["candidates"].rank >= 1) & (ranks["candidates"].rank <= 5)).all()
    assert 0 <= ranks["candidates"].per_group([1, 5])[0]["hr@1"].mean() <= 1


def test_popularity_and_markov_count(tmp_path):
    rows = [(u, i, t, 5.0) for u in range(4) for t, i in enumerate((0, 1, 2, 3))]
    rows += [(9, i, t, 5.0) for t, i in enumerate((0, 2, 1, 3, 4))]
    prepare(log(rows), tmp_path, Preparation(k_core=1), 0)
    data = Prepared(tmp_path, 1)
    # training: four times (0, 1) and once (0, 2, 1)
    assert data.popularity.tolist() == [5, 5, 1, 0, 0]
    context = data.contexts("validation")[0]
    assert context.history.tolist() == [0, 1]
    assert Popularity(data)([context])[0].tolist() == [5, 5, 1, 0, 0]
    after_zero = Markov(data)([type(context)(np.array([0]), context.positives, context.levels)])[0]
    assert after_zero.argmax() == 1
    assert after_zero[1] == pytest.approx(4 + 5 / 12)
    assert after_zero[2] == pytest.approx(1 + 1 / 12)


def test_oracles_know_more_than_popularity_and_chance(tmp_path):
    world = Simulation(n_users=150, n_items=80, seed=2, visits=24)
    prepare(SourceTables(world.interactions(), world.items()), tmp_path, Preparation(k_core=3), 0)
    data = Prepared(tmp_path, 1)
    contexts = data.contexts("test")
    scorers = {
        "random": Random(data, 0),
        "popularity": Popularity(data),
        "taste": TasteOracle(data, world),
        "oracle": Oracle(data, world, liked=4.0),
    }
    ndcg = {
        name: rank_catalogue(scorer, contexts)["catalogue"].per_group([10])[0]["ndcg@10"].mean()
        for name, scorer in scorers.items()
    }
    assert ndcg["random"] < ndcg["popularity"] < ndcg["oracle"]
    assert ndcg["random"] < ndcg["taste"] < ndcg["oracle"]


def test_summaries_have_intervals_and_list_metrics(small_data):
    contexts = small_data.contexts("test")
    ranks = rank_catalogue(Popularity(small_data), contexts)["catalogue"]
    summary = summarise(ranks, [5, 10], 0, 200, small_data.popularity)
    ndcg = summary["ndcg@10"]
    assert ndcg["low"] <= ndcg["value"] <= ndcg["high"]
    assert 0 < summary["coverage@10"]["value"] <= 1
    names = ["stage", "protocol", "context_id", "user_id", "item_id", "level", "rank"]
    assert ranks.table("popularity", "catalogue").column_names == names
