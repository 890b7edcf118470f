"""Cleaning, thinning, ordering, grading and splitting, against hand-worked and brute-force logs."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import log, shared
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources.movielens import movielens
from palate.data.tables import SourceTables
from palate.errors import DataError
from palate.randomness import integers


def rows_of(tables, tmp_path, seed=0, **choices):
    """Prepared rows with source ids: {user: [(item, level, split), …] in order}, manifest."""
    manifest = prepare(tables, tmp_path, Preparation(**{"k_core": 1, **choices}), seed)
    items = pq.read_table(tmp_path / "items.parquet")["source_id"].to_pylist()
    users = pq.read_table(tmp_path / "users.parquet")["source_id"].to_pylist()
    found: dict = {}
    for row in pq.read_table(tmp_path / "interactions.parquet").to_pylist():
        assert row["position"] == len(found.get(users[row["user_id"]], []))
        entry = (items[row["item_id"]], row["level"], row["split"])
        found.setdefault(users[row["user_id"]], []).append(entry)
    return found, manifest


def test_duplicates_keep_the_last_or_first(tmp_path):
    tables = log([("u", 1, 10, 2.0), ("u", 2, 20, 5.0), ("u", 1, 30, 5.0), ("u", 3, 40, 5.0)])
    last, _ = rows_of(tables, tmp_path / "a")
    first, _ = rows_of(tables, tmp_path / "b", duplicates="first")
    assert [(i, level) for i, level, _ in last["u"]] == [(2, 1), (1, 1), (3, 1)]
    assert [(i, level) for i, level, _ in first["u"]] == [(1, 0), (2, 1), (3, 1)]


def test_k_core_equals_brute_force(tmp_path):
    pairs = {(int(integers(25, 1, n)), int(integers(20, 2, n) ** 2 // 20)) for n in range(170)}
    kept = set(pairs)
    while True:
        users, items = Counter(u for u, _ in kept), Counter(i for _, i in kept)
        smaller = {(u, i) for u, i in kept if users[u] >= 4 and items[i] >= 4}
        if smaller == kept:
            break
        kept = smaller
    assert 0 < len(kept) < len(pairs)
    tables = log([(u, i, 100 * u + i, 5.0) for u, i in sorted(pairs)])
    found, manifest = rows_of(tables, tmp_path, k_core=4)
    assert {(u, row[0]) for u, rows in found.items() for row in rows} == kept
    assert manifest["counts"]["interactions"] == len(kept)


def test_leave_one_out_holds_out_the_last_liked(tmp_path):
    ratings = [5.0, 1.0, 5.0, 3.0, 5.0, 2.0]
    tables = log([("u", i, i, r) for i, r in enumerate(ratings)])
    found, _ = rows_of(tables, tmp_path)
    assert [split for _, _, split in found["u"]] == [
        "train",
        "train",
        "validation",  # the last liked but one
        "validation",
        "test",  # the last liked
        "test",
    ]


def test_a_user_with_one_liked_item_is_all_training(tmp_path):
    rows = [("a", i, i, 5.0) for i in range(4)] + [
        ("b", i, i, 5.0 if i == 2 else 1.0) for i in (1, 2)
    ]
    found, _ = rows_of(log(rows), tmp_path)
    assert {split for _, _, split in found["b"]} == {"train"}


def test_windows_hold_out_the_last_interactions(tmp_path):
    tables = log([("u", i, i, 5.0) for i in range(10)])
    found, _ = rows_of(tables, tmp_path, window=3)
    assert [s for _, _, s in found["u"]] == ["train"] * 4 + ["validation"] * 3 + ["test"] * 3


def test_global_time_cuts_everyone_at_the_same_moment(tmp_path):
    tables = log([(user, i, 10 * i + user, 5.0) for user in range(5) for i in range(10)])
    found, _ = rows_of(tables, tmp_path, split="global_time", fractions=(0.6, 0.8))
    for rows in found.values():
        assert [s for _, _, s in rows] == ["train"] * 6 + ["validation"] * 2 + ["test"] * 2


def test_levels_count_the_thresholds_reached(tmp_path):
    tables = log([("u", i, i, r) for i, r in enumerate([2.0, 3.5, 4.0, 4.5, 5.0])])
    found, _ = rows_of(tables, tmp_path, levels=(3.5, 4.5))
    assert [level for _, level, _ in found["u"]] == [0, 1, 1, 2, 2]
    disliked = pq.read_table(tmp_path / "interactions.parquet")["disliked"].to_pylist()
    assert disliked == [True, False, False, False, False]


def test_without_ratings_and_clock_everything_is_liked_in_source_order(tmp_path):
    tables = log([("u", i) for i in (3, 1, 2)], "user_id item_id")
    found, manifest = rows_of(tables, tmp_path, order="rows")
    assert [(i, level) for i, level, _ in found["u"]] == [(3, 1), (1, 1), (2, 1)]
    assert manifest["ties"]["rule"] == "source order; no timestamps"


def test_ties_keep_an_informative_source_order(tmp_path):
    tables = log([("u", item, 7, 5.0) for item in (4, 1, 3, 2)])
    found, manifest = rows_of(tables, tmp_path)
    assert [i for i, _, _ in found["u"]] == [4, 1, 3, 2]
    assert manifest["ties"] == {
        "rule": "source order",
        "tied_groups": 1,
        "tied_interactions": 4,
        "share_in_item_id_order": 0.0,
    }


def test_ties_in_item_id_order_are_broken_by_a_hash_of_the_seed(tmp_path):
    tables = log([(user, item, 7, 5.0) for user in range(20) for item in range(6)])
    found, manifest = rows_of(tables, tmp_path / "a", seed=1)
    again, _ = rows_of(tables, tmp_path / "b", seed=1)
    other, _ = rows_of(tables, tmp_path / "c", seed=2)
    orders = [tuple(i for i, _, _ in rows) for rows in found.values()]
    assert manifest["ties"]["rule"].startswith("hash")
    assert len(set(orders)) > 10
    assert found == again
    assert found != other


def test_shown_and_skipped_items_are_kept_apart(tmp_path):
    rows = [("u", i, i, 5.0, "view") for i in range(4)]
    rows += [("u", 0, 2, None, "skip"), ("u", 9, 2, None, "skip"), ("v", 9, 1, 5.0, "view")]
    found, _ = rows_of(log(rows, "user_id item_id timestamp rating event"), tmp_path)
    assert [i for i, _, _ in found["u"]] == [0, 1, 2, 3]
    shown = pq.read_table(tmp_path / "shown.parquet").to_pylist()
    assert [(row["user_id"], row["item_id"]) for row in shown] == [(0, 0), (0, 4)]


def test_observed_negatives_know_nothing_of_what_was_held_out(tmp_path):
    """Skipped 1, 3 and 9; 1 was consumed in training, 3 is the test item, 9 never was."""
    rows = [("u", i, 10 * i, 5.0, "view") for i in range(4)]
    rows += [("u", item, 5, None, "skip") for item in (1, 3, 9)] + [("v", 9, 1, 5.0, "view")]
    rows_of(log(rows, "user_id item_id timestamp rating event"), tmp_path)
    (mine, _) = Prepared(tmp_path, 1).observed_negatives
    assert mine.tolist() == [3, 4]  # item ids of 3 and 9


def test_manifest_names_what_was_written(tmp_path):
    _, manifest = rows_of(log([("u", i, i, 5.0) for i in range(4)]), tmp_path)
    assert set(manifest["sha256"]) == {p.name for p in tmp_path.iterdir()}
    json.dumps(manifest)


@pytest.mark.parametrize(
    ("rows", "choices", "sentence"),
    [
        ([("u", 1, 1, 5.0)], {"k_core": 5}, "data.k_core: no interactions are left of 1"),
        ([("u", 1, 1, 2.0)], {}, "no rating reaches 4.0"),
        (
            [("u", 1, 1, float("nan"))],
            {},
            "1 ratings are empty, NaN or infinite, the first in row 1",
        ),
        ([("u", 1, None, 5.0)], {}, "'timestamp' has 1 empty values"),
        ([(None, 1, 1, 5.0)], {}, "'user_id' has 1 empty values"),
    ],
)
def test_bad_logs_are_refused_in_a_sentence(rows, choices, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence):
        rows_of(log(rows), tmp_path / "out", **choices)
    assert not (tmp_path / "out").exists()


def test_what_was_shown_needs_timestamps(tmp_path):
    rows = [("u", 1, "view"), ("u", 2, "skip")]
    with pytest.raises(DataError, match="event 'skip' needs a column 'timestamp'"):
        rows_of(log(rows, "user_id item_id event"), tmp_path, order="rows")
    assert len(rows_of(log(rows[:1], "user_id item_id event"), tmp_path, order="rows")[0]["u"]) == 1


def test_what_was_shown_in_the_test_period_is_no_training_negative(tmp_path):
    """Item 7 is passed over before the held-out moments, 8 between them, 9 after them: a policy
    that is trained to avoid 8 and 9 has seen what it is judged by."""
    rows = [("u", i, 10 * i, 5.0, "view") for i in range(5)]
    rows += [("u", 7, 15, None, "skip"), ("u", 8, 35, None, "skip"), ("u", 9, 45, None, "skip")]
    rows += [("v", i, 0, 5.0, "view") for i in (7, 8, 9)]
    rows_of(log(rows, "user_id item_id timestamp rating event"), tmp_path)
    shown = pq.read_table(tmp_path / "shown.parquet")
    assert shown.num_rows == 3
    data = Prepared(tmp_path, 1)
    assert data.users["source_id"].to_pylist()[0] == "u"
    named = data.items["source_id"].to_pylist()
    assert [named[item] for item in data.observed_negatives[0]] == [7]


def test_a_blank_title_becomes_the_source_id(tmp_path):
    tables = log([("u", i, i, 5.0) for i in range(4)])
    blank = tables.items.set_column(1, "title", pa.array(["A", " ", "C", ""]))
    rows_of(SourceTables(tables.interactions, blank), tmp_path)
    titles = pq.read_table(tmp_path / "items.parquet")["title"].to_pylist()
    assert titles == ["A", "item 1", "C", "item 3"]


def test_global_time_needs_timestamps(tmp_path):
    with pytest.raises(DataError, match="needs a timestamp column"):
        rows_of(log([("u", 1)], "user_id item_id"), tmp_path, split="global_time")


def test_movielens_counts_and_tie_rule(tmp_path):
    manifest = prepare(movielens(shared("data/ml-latest-small")), tmp_path, Preparation(), 0)
    assert manifest["counts"]["interactions_read"] == 100_836
    assert (manifest["counts"]["users"], manifest["counts"]["items"]) == (610, 3_650)
    assert manifest["ties"]["rule"].startswith("hash")
    assert manifest["ties"]["share_in_item_id_order"] == 1.0


def test_given_positions_decide_among_equal_times(tmp_path):
    """Items come in the order of their ids throughout, which without positions a hash replaces."""
    rows = [(u, i, 1, 5.0, i) for u in range(20) for i in range(6)]
    tables = log(rows, "user_id item_id timestamp rating position")
    manifest = prepare(tables, tmp_path, Preparation(k_core=1), 0)
    assert manifest["ties"]["rule"] == "source order"
    table = pq.read_table(tmp_path / "interactions.parquet")
    assert table["item_id"].to_pylist() == list(range(6)) * 20


def test_at_random_all_rows_of_an_item_stay_together(tmp_path):
    """With every repetition kept, what is held out of a person is not in the history too."""
    rows = [(u, i, 100 * n + i, 5.0) for u in range(12) for n in range(3) for i in range(u, u + 6)]
    how = Preparation(k_core=1, split="random", duplicates="all")
    prepare(log(rows), tmp_path, how, seed=0)
    parts: dict[tuple[int, int], set[str]] = {}
    for row in pq.read_table(tmp_path / "interactions.parquet").to_pylist():
        parts.setdefault((row["user_id"], row["item_id"]), set()).add(row["split"])
    assert all(len(found) == 1 for found in parts.values())
    assert {one for found in parts.values() for one in found} == {"train", "validation", "test"}
