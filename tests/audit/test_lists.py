"""Lists as the probes see them, drawn anew, and what rules choose in them."""

import numpy as np
import pytest

from palate.audit import rules
from palate.audit.lists import Lists, persons_of, redrawn
from palate.audit.rules import Known, hits, pairs_won
from palate.data.contexts import Context


def lists(item_ids, place, histories=None, known=None, persons=None, times=None) -> Lists:
    """Lists written by hand."""
    items = np.array(item_ids)
    answers = items[np.arange(len(items)), place]
    return Lists(
        item_ids=items,
        place=np.array(place),
        persons=np.arange(len(items)) if persons is None else np.array(persons),
        histories=[np.array(h, np.int64) for h in histories or [[]] * len(items)],
        positives=list(answers[:, None]),
        known=[np.array(k, np.int64) for k in known or [[]] * len(items)],
        times=None if times is None else np.array(times),
    )


def context(user: int, history: list[int], answer: int) -> Context:
    return Context(np.array(history), np.array([answer]), np.array([1]), user_id=user)


def test_windows_that_slide_on_are_one_person():
    windows = [
        context(5, [1, 2, 3], 4),
        context(6, [1, 2, 3, 4], 9),
        context(7, [2, 3, 4, 9], 8),
        context(8, [2, 3, 4, 9], 7),
        context(9, [7, 7], 1),
    ]
    assert persons_of(windows) == [5, 5, 5, 8, 9]


def test_redrawn_lists_keep_answers_lengths_and_what_is_barred():
    given = lists(
        [[3, 0, 1, 2], [7, 8, 9, -1], [4, 5, -1, -1]],
        [0, 1, 0],
        histories=[[10, 11], [12], [13, 14]],
        known=[[15, 3], [16, 8], [17, 4]],
    )
    for draw in range(50):
        anew = redrawn(given, 20, 1, draw, bars_known=True)
        assert anew.answers.tolist() == given.answers.tolist()
        assert anew.filled.sum(axis=1).tolist() == [4, 3, 2]
        for row, items in enumerate(anew.item_ids):
            real = items[items >= 0]
            assert len(set(real.tolist())) == len(real)
            barred = np.concatenate([given.histories[row], given.known[row]])
            assert not set(set(barred.tolist()) - {anew.answers[row]}) & set(real.tolist())
    one, other = redrawn(given, 20, 1, 0), redrawn(given, 20, 1, 0)
    assert np.array_equal(one.item_ids, other.item_ids)


def test_redrawn_negatives_and_places_are_uniform():
    n, size = 4000, 5
    given = lists([[0, 1, 2, 3, 4]] * n, [0] * n)
    anew = redrawn(given, 11, "test")
    places = np.bincount(anew.place, minlength=size) / n
    counts = np.bincount(anew.item_ids.ravel(), minlength=11)[1:] / n
    assert places == pytest.approx(np.full(size, 1 / size), abs=0.03)
    assert counts == pytest.approx(np.full(10, 4 / 10), abs=0.03)


def test_a_small_catalogue_is_drawn_whole():
    given = lists([[0, 1, 2, 3]] * 3, [0] * 3, histories=[[4], [4], [4]])
    assert all(sorted(row) == [0, 1, 2, 3] for row in redrawn(given, 5, 0).item_ids.tolist())
    short = redrawn(lists([[0, 1, 2, 3]], [0], histories=[[3, 4]]), 5, 0)
    assert sorted(short.item_ids[0].tolist()) == [-1, 0, 1, 2]


def test_hits_share_ties_and_leave_padding_out():
    given = lists([[3, 1, 2], [4, 5, -1]], [0, 1])
    assert hits(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 9.0]]), given).tolist() == [0.5, 0.5]
    assert hits(np.array([[0.0, 1.0, 0.0], [0.0, 2.0, 9.0]]), given).tolist() == [0.0, 1.0]


def test_rules_by_hand():
    fit = lists([[1, 2, 3], [1, 5, 6], [7, 1, 8], [9, 2, 4]], [0, 0, 1, 1], [[2], [5], [7], [4]])
    scored = lists([[9, 1, 2], [1, 5, 2]], [2, 0], [[9], [2]], times=[101, 101])
    known = Known(10, np.array([0, 5, 3, 1, 0, 0, 0, 0, 0, 7]), np.full(10, 100))
    # 2 answers at index 0, 2 at index 1
    assert rules.position(fit, scored, known).tolist() == [[2.0, 2.0, 0.0]] * 2
    # item 1 last stood at index 1, item 2 at index 1
    assert rules.position_of_answer(fit, scored, known).tolist() == [[0, 1, 0], [0, 0, 0]]
    # right of listed, each with one and three more: 1 is right 3 of 3, 2 is 1 of 2, 9 is 0 of 1
    assert rules.seen_as_answer(fit, scored, known)[0] == pytest.approx([1 / 4, 4 / 6, 2 / 5])
    # under 1: its lists {7,1,8}, {1,5,6}, {1,2,3}; under 2: {9,2,4}; each shares the item itself
    assert rules.list_overlap(fit, scored, known).tolist() == [[0, 2, 2], [2, 0, 1]]
    # in the history 0 of 4 were right, outside 4 of 8
    assert rules.history(fit, scored, known)[0] == pytest.approx([1 / 7, 5 / 11, 5 / 11])
    # popularity ranks of the answers 1, 1, 1, 2 are 0, 0, 0, 1
    ranked = rules.popularity(fit, scored, known)
    assert ranked[0].argmax() == 0
    assert ranked[1].argmax() == 0
    early = Known(10, None, np.where(np.arange(10) == 9, 101, 100))  # 9 in that very second
    assert rules.consumed_before(fit, scored, early)[0].tolist() == [0, 1, 1]


def test_popularity_leaves_out_what_the_person_did():
    # person 0: windows that slide on, so answer 1 stands in the next history; person 1 had 5
    fit = lists([[1, 5], [2, 5], [5, 9]], [0, 0, 0], [[7], [7, 1], [8]], persons=[0, 0, 1])
    assert rules._own_counts(fit, 10).tolist() == [[2, 0], [1, 0], [1, 0]]
    scored = lists([[5, 4]], [0], persons=[2])
    # others of 1, 5 and 2, 5: 0 and 1 times, the answer in second place twice; 5 and 9 never: tied
    # first places: 1 right of 4 listed; second: 2 of 2; each with one and two more
    assert rules.popularity(fit, scored, Known(10))[0] == pytest.approx([2 / 6, 3 / 4])


def test_pairs_won_by_hand():
    given = lists([[3, 1, 2], [4, 5, -1]], [0, 1])
    # above one of two and level with the other: 3/4; below the only one: 0
    assert pairs_won(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 9.0]]), given) == 3 / 8


def test_overlap_in_blocks_is_overlap_at_once(monkeypatch):
    random = np.random.default_rng(0)
    rows = [random.choice(30, 6, replace=False) for _ in range(40)]
    fit, scored = lists(rows[:25], [0] * 25), lists(rows[25:], [1] * 15)
    whole = rules.list_overlap(fit, scored, Known(30))
    monkeypatch.setattr(rules, "MOST_FLAGS", 90)
    monkeypatch.setattr(rules, "PAIRS", 4)
    assert np.array_equal(rules.list_overlap(fit, scored, Known(30)), whole)
    expected = np.zeros((15, 6))
    for row, items in enumerate(scored.item_ids):
        for column, item in enumerate(items):
            same = [len({*items} & {*fit.item_ids[f]}) for f in range(25) if fit.answers[f] == item]
            expected[row, column] = max(same[-10:], default=0)
    assert np.array_equal(whole, expected)
