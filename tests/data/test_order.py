"""What came first: rows in no order, splits that need none, and equal times, file by file."""

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import command, log
from palate.data.preparation import as_it_is
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.tables import SourceTables
from palate.errors import DataError

PAIRS = "user_id item_id"


def ready(tables, folder, seed=0, **choices):
    manifest = prepare(tables, folder, Preparation(**{"k_core": 1, **choices}), seed)
    return Prepared(folder, choices.get("window", 1)), manifest


def plays(n_users=40, n_items=12):
    """Everybody has had everything; rows stand in the order of the item ids."""
    return log([(user, item) for user in range(n_users) for item in range(n_items)], PAIRS)


def test_leave_one_out_without_an_order_is_refused_with_the_choice(tmp_path):
    for split in (None, "leave_one_out"):
        with pytest.raises(DataError, match="neither timestamps nor positions") as refused:
            ready(plays(), tmp_path, split=split)
        for way_out in ("data.order=rows", "data.split=random", "data.split=by_user"):
            assert way_out in str(refused.value)
    assert not list(tmp_path.iterdir())
    data, manifest = ready(plays(), tmp_path, order="rows")
    assert [c.positives.tolist() for c in data.contexts("test")] == [[11]] * 40
    assert manifest["ties"]["rule"] == "source order; no timestamps"


def test_formats_that_are_sequences_need_not_say_so(tmp_path):
    tables = plays()
    sequences = SourceTables(tables.interactions, tables.items, ordered=True)
    data, _ = ready(sequences, tmp_path)
    assert [c.positives.tolist() for c in data.contexts("test")] == [[11]] * 40


@pytest.mark.parametrize("split", ["random", "by_user"])
def test_without_an_order_no_item_is_everybodys_next(split, tmp_path):
    """In the order of the rows the largest id would be held out of everybody."""
    data, manifest = ready(plays(), tmp_path / "a", split=split, fractions=(0.4, 0.7))
    assert manifest["ties"]["rule"].startswith("no order in the log")
    asked = data.contexts("test")
    answers = Counter(item for context in asked for item in context.positives.tolist())
    assert len(asked) >= 8
    assert max(answers.values()) < len(asked) / 2
    for context in asked:  # all the rest of the person's events is the history
        rest = set(range(12)) - set(context.positives.tolist())
        assert set(context.history.tolist()) == rest
    again, _ = ready(plays(), tmp_path / "b", split=split, fractions=(0.4, 0.7))
    assert [c.positives.tolist() for c in again.contexts("test")] == [
        c.positives.tolist() for c in asked
    ]
    other, _ = ready(plays(), tmp_path / "c", seed=1, split=split, fractions=(0.4, 0.7))
    assert [c.positives.tolist() for c in other.contexts("test")] != [
        c.positives.tolist() for c in asked
    ]


def test_random_holds_out_a_share_of_what_each_person_liked(tmp_path):
    draw = random.Random(3)
    rows = [
        (user, item, draw.choice([1.0, 3.0, 4.0, 5.0]))
        for user in range(30)
        for item in draw.sample(range(60), draw.randrange(1, 50))
    ]
    data, manifest = ready(log(rows, f"{PAIRS} rating"), tmp_path, split="random")
    table = pq.read_table(tmp_path / "interactions.parquet")
    columns = ("user_id", "split", "level", "position")
    by_user: dict = {}
    for user, split, level, position in zip(*(table[c].to_pylist() for c in columns), strict=True):
        by_user.setdefault(user, []).append((position, split, level))
    held = 0
    for user, of_user in by_user.items():
        splits = [split for _, split, _ in sorted(of_user)]
        assert splits == sorted(splits, key=["train", "validation", "test"].index)
        n_liked = sum(level > 0 for *_, level in of_user)
        n_test, n_validation = splits.count("test"), splits.count("validation")
        assert all(level > 0 for _, split, level in of_user if split != "train")
        if n_test:
            wanted = max(1, int(0.1 * n_liked + 0.5 + 1e-6))
            assert (n_validation, n_test) == (wanted, wanted)
            (context,) = [c for c in data.contexts("test") if c.user_id == user]
            assert len(context.positives) == n_test
            assert len(context.history) == len(of_user) - n_test
            held += 1
        else:
            assert n_liked < 2 or len(of_user) < 3
    assert held > 20
    assert manifest["preparation"]["split"] == "random"


def test_random_with_times_keeps_the_history_in_time(tmp_path):
    rows = [(user, (7 * item) % 20, item, 5.0) for user in range(5) for item in range(20)]
    data, _ = ready(log(rows), tmp_path, split="random")
    log_ = data.interactions
    assert log_.timestamps is not None
    for user in range(5):
        train = slice(log_.split_starts["train"][user], log_.split_starts["validation"][user])
        assert (np.diff(log_.timestamps[train]) > 0).all()
        assert train.stop - train.start == 16


def test_the_command_refuses_before_it_writes(tmp_path):
    (tmp_path / "plays.csv").write_text(
        "user_id,item_id\n" + "".join(f"{u},{i}\n" for u in range(6) for i in range(6))
    )
    (tmp_path / "empty.yaml").write_text("{}\n")
    given = ["--set", "data.source=files", "--set", "data.path=plays.csv", "--out", "runs/a"]
    done = command("prepare", "empty.yaml", *given, folder=tmp_path)
    assert done.returncode == 2
    assert "data.order=rows" in done.stderr
    assert not (tmp_path / "runs/a").exists()
    done = command("prepare", "empty.yaml", *given, "--set", "data.order=rows", folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([(u, i, 1000 // (i + 1)) for u in range(9) for i in range(9)], f"{PAIRS} rating"),
        ([(u, i, i + 0.5) for u in range(9) for i in range(15)], f"{PAIRS} weight"),
        ([(u, i, "ab"[i % 2]) for u in range(9) for i in range(9)], f"{PAIRS} event"),
        ([(u, i, 1 + 4.0 * (i % 2)) for u in range(9) for i in range(9)], f"{PAIRS} rating"),
    ],
)
def test_a_log_that_says_little_can_still_be_looked_at(rows, columns, tmp_path):
    """An audit grades nothing, so it asks for no scale, no order and no meaning of events."""
    tables = log(rows, columns)
    prepare(tables, tmp_path, as_it_is(tables), 0)
    data = Prepared(tmp_path, 1)
    assert len(data.contexts("test")) == 9
    assert len(data.interactions.items) == len(rows)


# --- equal times ---


def tied(groups, file=None, ids: Callable[[int], int | str] = int):
    """A log of one user for each group of tied items, in that order."""
    rows = [(user, ids(item), 7) for user, group in enumerate(groups) for item in group]
    tables = log(rows, "user_id item_id timestamp")
    if file is None:
        return tables
    names = [file(user) for user, group in enumerate(groups) for _ in group]
    return SourceTables(
        tables.interactions.append_column("file", pa.array(names)), tables.items, tables.origin
    )


def ties_of(tables, folder, **choices):
    return ready(tables, folder, **choices)[1]["ties"]


UP, DOWN = (1, 2), (2, 1)


@pytest.mark.parametrize(
    ("groups", "by_hash", "share"),
    [
        # pairs are in id order half the time by chance; groups of three or more are not
        ([(1, 2, 3)] * 30 + [UP] * 35 + [DOWN] * 35, True, 0.65),
        ([(1, 2, 3)] * 28 + [(3, 1, 2)] * 2 + [UP] * 35 + [DOWN] * 35, False, 0.63),
        ([UP] * 65 + [DOWN] * 35, False, 0.65),
        ([UP] * 95 + [DOWN] * 5, True, 0.95),
        ([UP] * 94 + [DOWN] * 6, False, 0.94),
        ([(1, 2, 3, 4)] * 19 + [(4, 3, 2, 1)], True, 0.95),
        ([(1, 2, 3, 4)] * 18 + [(4, 3, 2, 1)] * 2, False, 0.9),
        # one larger group among pairs may be one appended row: it switches nothing
        ([UP] * 100 + [(3, 1, 2)], True, round(100 / 101, 4)),
        ([UP] * 50 + [DOWN] * 50 + [(1, 2, 3)], False, round(51 / 101, 4)),
    ],
)
def test_groups_of_three_or_more_decide(groups, by_hash, share, tmp_path):
    ties = ties_of(tied(groups), tmp_path)
    assert ties["rule"] == ("hash of (seed, user, item)" if by_hash else "source order")
    assert ties["tied_groups"] == len(groups)
    assert ties["share_in_item_id_order"] == share


def test_rows_of_one_item_tell_nothing_of_an_order(tmp_path):
    """The same event written twice is no tie between items, and hides no order of others."""
    ties = ties_of(tied([(1, 1)] * 30 + [(1, 1, 2, 3)] * 20), tmp_path)
    assert ties["rule"].startswith("hash")
    assert (ties["tied_groups"], ties["tied_interactions"]) == (20, 80)


@pytest.mark.parametrize("ids", [int, lambda item: f"SKU-{item}", lambda item: f"{item:03d}"])
def test_item_ids_in_order_as_numbers_or_as_text(ids, tmp_path):
    """One id that is no number makes text of all of them, and 10 then stands before 9."""
    groups = [(8, 9, 10, 11, 100)] * 10
    assert ties_of(tied(groups, ids=ids), tmp_path / "a")["rule"].startswith("hash")
    as_text = [sorted(group, key=str) for group in groups]
    assert ties_of(tied(as_text, ids=ids), tmp_path / "b")["rule"].startswith("hash") == (
        ids(1) != "001"
    )
    other = [(9, 8, 100, 11, 10)] * 10
    assert ties_of(tied(other, ids=ids), tmp_path / "c")["rule"] == "source order"


def test_one_appended_row_with_another_kind_of_id_switches_nothing(tmp_path):
    groups = [(8, 9, 10, 11)] * 10
    tables = tied(groups, ids=str)
    more = pa.table({"user_id": [99], "item_id": ["bonus"], "timestamp": [1]})
    items = pa.table({"item_id": ["bonus"], "title": ["Bonus"]})
    appended = SourceTables(
        pa.concat_tables([tables.interactions, more]), pa.concat_tables([tables.items, items])
    )
    for number, one in enumerate((tables, appended)):
        assert ties_of(one, tmp_path / str(number))["rule"].startswith("hash")


def test_each_input_file_is_decided_on_its_own_ties(tmp_path):
    """An export sorted by id beside one in the order of events: neither speaks for the other."""
    draw = random.Random(5)
    groups = [tuple(range(6))] * 20 + [tuple(draw.sample(range(6), 6)) for _ in range(30)]
    tables = tied(groups, file=lambda user: "old.csv" if user < 20 else "new.csv")
    _, manifest = ready(tables, tmp_path)
    ties = manifest["ties"]
    assert [(one["file"], one["rule"]) for one in ties["files"]] == [
        ("new.csv", "source order"),
        ("old.csv", "hash of (seed, user, item)"),
    ]
    assert "1 of 2 files" in ties["rule"]
    rows = pq.read_table(tmp_path / "interactions.parquet")["item_id"].to_numpy().reshape(50, 6)
    assert rows[20:].tolist() == [list(group) for group in groups[20:]]
    assert len({tuple(row) for row in rows[:20].tolist()}) > 10
    assert ties_of(tied(groups), tmp_path / "whole")["rule"] == "source order"


def test_rows_that_are_said_to_stand_in_order_do_so_within_a_second_too(tmp_path):
    tables = tied([tuple(range(6))] * 20)
    assert ties_of(tables, tmp_path / "a", order="rows")["rule"] == "source order"
    assert ties_of(tables, tmp_path / "b")["rule"].startswith("hash")
