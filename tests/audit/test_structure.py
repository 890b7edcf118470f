"""Shares that the structural probes count."""

import time

import numpy as np
import pytest

from audit.test_lists import lists
from conftest import log
from palate.audit import structure
from palate.data.contexts import ContextSet, Interactions
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared


def prepared(tmp_path, rows, columns, **how) -> Prepared:
    prepare(log(rows, columns), tmp_path, Preparation(k_core=1, **how), seed=0)
    return Prepared(tmp_path, window=1)


def test_titles():
    titles = ["The Wall", "the  wall!", "Wall", "Wallpaper", "???"]
    assert structure.duplicate_titles(titles).tolist() == [True, True, False, False, False]
    given = lists([[2, 3], [2, 0], [3, 4]], [0, 0, 0])
    assert structure.nested_titles(given, titles).tolist() == [False, True, False]


def test_liked_negatives_are_neither_answer_nor_history():
    given = lists(
        [[1, 2, 3], [1, 2, 3], [1, 2, -1]],
        [0, 0, 0],
        histories=[[2], [4], [5]],
        known=[[1, 2, 9], [1, 2], [1, 5]],
    )
    assert structure.liked_negatives(given).tolist() == [False, True, False]


def test_history_among_negatives_by_hand():
    given = lists([[1, 2, 3], [1, 2, 3], [1, 2, -1]], [0, 0, 0], histories=[[2, 9], [1, 4], [5]])
    assert structure.history_negatives(given).tolist() == [True, False, False]
    assert structure.answers_in_history(given).tolist() == [False, True, False]


def test_shared_windows_are_of_another_user_and_whole(tmp_path):
    rows = [(0, item, "train") for item in (1, 2, 3, 4, 5)]
    rows += [(1, item, "history") for item in (1, 2, 3)] + [(1, 4, "test")]
    rows += [(2, item, "history") for item in (9, 2, 3)] + [(2, 4, "test")]
    rows += [(3, item, "history") for item in (2, 3, 4)] + [(3, 6, "test")]
    data = prepared(tmp_path, rows, "user_id item_id split")
    contexts, earlier = data.contexts("test"), np.arange(5)
    assert structure.shared_windows(contexts, earlier).tolist() == [True, False, False]
    assert structure.shared_histories(contexts, earlier).tolist() == [True, False, True]


def test_shared_windows_of_copied_users_take_no_longer_than_others():
    n, length = 30_000, 20
    random = np.random.default_rng(0)
    items = np.tile(random.integers(0, 5000, n // 2 * length), 2)
    rows = len(items)
    log_ = Interactions(
        items=items,
        levels=np.ones(rows, np.int64),
        disliked=np.zeros(rows, bool),
        timestamps=None,
        users=np.repeat(np.arange(n), length),
        first_row=np.arange(n + 1) * length,
        split_starts={},
    )
    ends = np.arange(1, n // 2 + 1) * length
    training = np.arange(rows // 2, rows)
    began = time.process_time()
    flags = structure.shared_windows(ContextSet(log_, ends - 1, ends), training)
    seconds = time.process_time() - began
    assert flags.all()  # the copy of each has the same window in training
    assert not structure.shared_windows(ContextSet(log_, ends - 1, ends), ends - 1).any()
    assert seconds < 3  # 0.2 s; a search through all rows for each window takes 10 s


def test_time(tmp_path):
    rows = [(0, 1, 10), (0, 2, 20), (0, 3, 30), (1, 1, 25), (1, 2, 25), (1, 3, 40)]
    rows += [(2, 1, 5), (2, 2, 5), (2, 3, 5)]
    data = prepared(tmp_path, rows, "user_id item_id timestamp", validation_share=0.0)
    log_ = data.interactions
    flags = structure.tied(log_)
    assert flags is not None
    assert flags.tolist() == [False] * 3 + [True, True, False] + [True] * 3
    assert structure.degenerate_users(log_).tolist() == [False, False, True]
    contexts = data.contexts("test")
    training = np.array([0, 1, 3, 4, 6])  # at 10, 20, 25, 25 and 5
    later = structure.later_training(contexts, training)
    # moments at 30, 40 and 5
    assert later == pytest.approx([0.0, 0.0, 4 / 5])
