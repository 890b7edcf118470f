"""Users who are copies of one another, counted, and the interval that takes them as one."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.audit import audit, markdown_report
from palate.audit.copies import alike_persons, alike_users
from palate.audit.findings import Audit
from palate.data.contexts import Interactions


def log_of(sequences) -> Interactions:
    """A log of some users' items, in their order."""
    lengths = [len(one) for one in sequences]
    items = np.concatenate([np.array(one, np.int64) for one in sequences])
    return Interactions(
        items=items,
        levels=np.ones(len(items), np.int64),
        disliked=np.zeros(len(items), bool),
        timestamps=None,
        users=np.repeat(np.arange(len(sequences)), lengths),
        first_row=np.concatenate([[0], np.cumsum(lengths)]),
        split_starts={},
    )


def test_copies_have_five_events_or_more_in_the_same_order():
    basket = [3, 1, 4, 1, 5]
    sequences = [basket, [1, 1, 3, 4, 5], basket, [2, 7], [2, 7], basket, [*basket, 9]]
    assert alike_users(log_of(sequences)).tolist() == [0, 1, 0, 3, 4, 0, 6]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_copies_are_those_that_a_dictionary_finds(sequences):
    first, expected = {}, []
    for user, one in enumerate(sequences):
        expected.append(first.setdefault(tuple(one), user) if len(one) >= 5 else user)
    assert alike_users(log_of(sequences)).tolist() == expected


def test_windows_of_one_person_are_compared_together():
    # persons 0 and 2 have two windows each, alike one by one; person 4 has but the first of them
    persons, users = [0, 0, 2, 2, 4], np.array([0, 1, 2, 3, 4])
    alike = np.array([0, 1, 0, 1, 0])
    assert alike_persons(persons, users, alike) == {0: 0, 2: 0, 4: 4}


def test_a_log_with_a_shared_basket_is_counted_and_has_two_intervals(tmp_path):
    random = np.random.default_rng(0)
    baskets = [random.choice(60, 8, replace=False).tolist() for _ in range(120)]
    baskets += [baskets[0]] * 30
    lines = [
        f"u{u},i{i},{1_500_000_000 + 90 * p}"
        for u, b in enumerate(baskets)
        for p, i in enumerate(b)
    ]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    found = audit(path, "files")
    by_name = {one.probe: one for one in found.findings}
    copied = by_name["copied users"]
    assert (copied.verdict, copied.score) == ("caution", 31 / 150)
    assert "the largest group has 31" in copied.found
    later = by_name["popularity"]
    assert later.copies_as_one is not None
    low, high = later.copies_as_one
    assert high - low > later.high - later.low  # a fifth of the rows are one person's
    assert low <= later.score <= high
    assert f"|   copies as one |  | [{low:.4f}, {high:.4f}] |" in markdown_report(found)
    assert Audit.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_an_audit_written_before_copies_were_counted_is_read():
    names = ("probe", "about", "measure", "score", "low", "high", "null", "verdict", "found")
    finding = {**dict.fromkeys(names, 0), "advice": "", "n": 1}
    read = Audit.from_json({"subject": "", "findings": [finding], "skipped": {}, "lists": ""})
    assert read.findings[0].copies_as_one is None
