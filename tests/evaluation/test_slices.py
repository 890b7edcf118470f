"""Which part of a slice each held-out answer falls into."""

import numpy as np
import pytest

from conftest import log
from palate.data.preparation import Preparation
from palate.data.prepare import prepare
from palate.data.prepared import Prepared
from palate.evaluation.slices import slices_of


def parts(slices, name):
    return {one.part: one.rows.tolist() for one in slices if one.name == name}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three users, the last item of each for the test, the one before for validation."""
    rows = [
        (user, item, when, 5)
        for user, items in {"u": "abcdz", "v": "befghija", "w": "abkl"}.items()
        for when, item in enumerate(items)
    ]
    folder = tmp_path_factory.mktemp("slices")
    prepare(log(rows), folder, Preparation(k_core=1), seed=0)
    return Prepared(folder, window=1)


def test_slices_of_a_log_one_can_count(data):
    contexts = data.contexts("test")
    names = data.items["source_id"].to_pylist()
    answers = np.concatenate([context.positives for context in contexts])
    ids = np.array([context.context_id for context in contexts])
    assert [names[answer] for answer in answers] == ["z", "a", "l"]
    found = slices_of(ids, answers, data)
    # Training: b three times, a twice, six items once. b begins at 0 of 11, a at 3 (both within
    # the first third), the six at 5, what never occurs at 11.
    assert parts(found, "popularity") == {
        "head": [False, True, False],
        "tail": [True, False, True],
    }
    assert parts(found, "answer") == {"cold": [True, False, True], "warm": [False, True, False]}
    # Four, seven and three items before.
    assert parts(found, "history") == {"0–5": [True, False, True], "6–20": [False, True, False]}
    assert parts(found, "positives") == {}  # one each


def test_several_answers_of_a_context(data):
    contexts = data.contexts("test")
    first, second = contexts[0].context_id, contexts[1].context_id
    found = slices_of(np.array([first, first, second]), np.array([0, 1, 2]), data)
    assert parts(found, "positives") == {"1": [False, False, True], "2–3": [True, True, False]}


def test_popularity_parts_are_thirds_of_the_interactions(small_data):
    n_items, counts = small_data.n_items, small_data.popularity
    context = small_data.contexts("test")[0].context_id
    found = slices_of(np.full(n_items, context), np.arange(n_items), small_data)
    masks = {one.part: one.rows for one in found if one.name == "popularity"}
    assert list(masks) == ["head", "middle", "tail"]
    assert np.sum(list(masks.values()), axis=0).tolist() == [1] * n_items
    assert counts[masks["head"]].min() > counts[masks["middle"]].max()
    assert counts[masks["middle"]].min() > counts[masks["tail"]].max()
    # Where a part ends within a third, the items of one count that begin there are still its own.
    total, head = counts.sum(), counts[masks["head"]]
    least = head.min()
    assert head.sum() >= total / 3 > head[head > least].sum()
