"""Histories cut into windows: every target once, with enough before it, and room for all."""

import numpy as np
import pytest

from palate.data.contexts import History
from palate.policies import LanguagePolicy, SequencePolicy
from palate.policies.policy import windows


def targets(found):
    return [int(item) for one in found for item in one.items[one.first_target :]]


def test_every_item_is_a_target_once_with_enough_before_it():
    found = windows(History(np.arange(100), 0), longest=21, overlap=7)
    assert targets(found) == list(range(100))
    assert all(one.first_target == 7 for one in found[1:])
    assert all(len(one.items) <= 21 for one in found)
    short = windows(History(np.arange(3), 0), longest=21, overlap=7)
    assert [(one.items.tolist(), one.first_target) for one in short] == [([0, 1, 2], 0)]


def test_what_is_only_looked_back_on_is_no_target():
    found = windows(History(np.arange(30), 26), longest=5, overlap=3)
    assert targets(found) == [26, 27, 28, 29]
    assert [one.items.tolist() for one in found] == [[23, 24, 25, 26, 27], [25, 26, 27, 28, 29]]
    assert windows(History(np.arange(3), 3), longest=5, overlap=3) == []


@pytest.mark.parametrize("room", [1, 2, 3, 9])
def test_a_window_that_has_less_room_still_learns_every_item(room):
    found = windows(History(np.arange(10), 0), 9, 4, fits=lambda items: min(room, len(items)))
    assert targets(found) == list(range(10))
    assert all(len(one.items) <= room for one in found)


def test_a_sequence_policy_reads_its_longest_history_and_never_learns_the_first_item(small_data):
    policy = SequencePolicy.create(small_data.items, max_history=6, hidden=8, inner=8)
    found = policy.history_windows(History(np.arange(20), 0))
    assert targets(found) == list(range(1, 20))
    assert max(len(one.items) - 1 for one in found) == 6
    assert policy.history_windows(History(np.arange(1), 0)) == []


def test_a_language_policy_learns_every_item_of_histories_it_cannot_read_whole(small_data):
    policy = LanguagePolicy.create("tiny", small_data.items, "history", max_history=20, seed=1)
    policy.prompter.max_tokens = 24
    longest = max((one.history for one in small_data.contexts("test")), key=len)
    history = History(longest, 0)
    found = policy.history_windows(history)
    assert len(found) > 1
    assert targets(found) == history.items.tolist()
    batch = policy.collate_histories(found)
    assert batch["targets"] == len(history.items)
    assert batch["input_ids"].shape[1] <= 24
