"""Contexts are what the prepared log says: histories before, positives after, splits apart."""

import numpy as np
import pytest

from conftest import log
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared, sample_contexts
from palate.errors import CheckpointError, DataError


def prepared(rows, tmp_path, window=1, **choices):
    prepare(log(rows), tmp_path, Preparation(**{"k_core": 1, "window": window, **choices}), 0)
    return Prepared(tmp_path, window)


def test_next_item_contexts(tmp_path):
    ratings = [5.0, 1.0, 5.0, 5.0, 5.0]
    data = prepared([("u", i, 10 * i, r) for i, r in enumerate(ratings)], tmp_path)
    train, validation, test = (data.contexts(s) for s in ("train", "validation", "test"))
    assert [(c.history.tolist(), c.positives.tolist()) for c in train] == [([0, 1], [2])]
    assert [(c.history.tolist(), c.positives.tolist()) for c in validation] == [([0, 1, 2], [3])]
    assert [(c.history.tolist(), c.positives.tolist()) for c in test] == [([0, 1, 2, 3], [4])]
    assert (test[0].timestamp, test[0].times.tolist()) == (40, [0, 10, 20, 30])
    assert [h.times.tolist() for h in data.training_histories] == [[0, 10, 20]]
    assert data.popularity.tolist() == [1, 1, 1, 0, 0]
    assert [d.tolist() for d in data.observed_negatives] == [[1]]
    assert [(h.items.tolist(), h.first_target) for h in data.training_histories] == [([0, 1, 2], 0)]
    asked, targets = data.imitation_contexts()
    assert [(c.history.tolist(), int(targets[i])) for i, c in enumerate(asked)] == [
        ([0], 1),
        ([0, 1], 2),
    ]


def test_window_contexts_hold_all_liked_and_their_levels(tmp_path):
    ratings = [5.0, 4.0, 1.0, 5.0, 1.0, 1.0, 4.0, 5.0, 1.0]
    rows = [("u", i, i, r) for i, r in enumerate(ratings)]
    data = prepared(rows, tmp_path, window=2, levels=(4.0, 5.0))
    train, test = data.contexts("train"), data.contexts("test")
    assert [(c.history.tolist(), c.positives.tolist(), c.levels.tolist()) for c in train] == [
        ([0], [1], [1]),
        ([0, 1, 2], [3], [2]),
    ]
    assert [(c.positives.tolist(), c.levels.tolist()) for c in test] == [([7], [2])]
    assert [c.positives.tolist() for c in data.contexts("validation")] == [[6]]


def test_validation_may_be_held_out_of_some_users_only(tmp_path):
    rows = [(u, (u + i) % 9, i, 5.0) for u in range(80) for i in range(5)]
    tables = log(rows)
    prepare(tables, tmp_path, Preparation(k_core=1, validation_share=0.25), 0)
    data = Prepared(tmp_path, 1)
    held = {c.user_id for c in data.contexts("validation")}
    assert 8 < len(held) < 36
    assert len(data.contexts("test")) == 80
    for user, history in enumerate(data.training_histories):
        assert len(history.items) == (3 if user in held else 4)


def test_no_item_of_the_future_in_any_history(small_data):
    for split in ("train", "validation", "test"):
        for one in small_data.contexts(split):
            assert len(one.history) > 0
            assert len(one.positives) > 0
            assert not set(one.history) & set(one.positives)


def test_splits_share_no_positive(small_data):
    seen = [
        {(c.user_id, int(i)) for c in small_data.contexts(split) for i in c.positives}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_samples_are_seeded_and_in_order(small_data):
    every = small_data.contexts("test")
    sample = sample_contexts(every, 10, 1, "test sample")
    again = sample_contexts(every, 10, 1, "test sample")
    assert sample.begins.tolist() == again.begins.tolist()
    assert len(sample) == 10
    assert (np.diff(sample.begins) > 0).all()
    assert sample_contexts(every, None) is every


def test_an_empty_split_and_a_missing_folder_are_named(tmp_path):
    data = prepared([("u", i, i, 5.0 if i == 1 else 1.0) for i in range(3)], tmp_path)
    with pytest.raises(DataError, match="the test split has no context"):
        data.contexts("test")
    with pytest.raises(CheckpointError, match="holds no prepared data"):
        Prepared(tmp_path / "nowhere", 1)
