"""The funnel of a prepared log adds up, whatever the log and the choices."""

import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from conftest import command, log
from palate.data.funnel import funnel_lines
from palate.data.prepare import Preparation, prepare

COUNTS = ("rows", "users", "items", "likes", "dislikes")


def by_hand(rows):
    """The five counts of (user, item, rating) rows."""
    return {
        "rows": len(rows),
        "users": len({user for user, *_ in rows}),
        "items": len({item for _, item, *_ in rows}),
        "likes": sum(row[2] >= 4 for row in rows),
        "dislikes": sum(row[2] <= 2.5 for row in rows),
    }


def test_each_step_counts_what_is_left(tmp_path):
    rows = [("u", item, item, 5.0 if item % 2 else 1.0, "view") for item in range(6)]
    rows += [("u", 0, 20, 5.0, "view"), ("v", 1, 1, 3.0, "view")]
    rows += [("u", 9, 3, None, "skip"), ("w", 1, 3, None, "skip")]
    tables = log(rows, "user_id item_id timestamp rating event")
    steps = prepare(tables, tmp_path, Preparation(k_core=1), 0)["funnel"]
    assert [one["step"] for one in steps] == [
        "read", "consumed", "once each", "train", "validation", "test",
    ]  # fmt: skip
    counts = [[one[name] for name in COUNTS] for one in steps]
    assert counts[:3] == [[10, 3, 7, 4, 3], [8, 2, 6, 4, 3], [7, 2, 6, 4, 2]]
    assert [one["removed"] for one in steps[:3]] == [0, 2, 1]
    assert all(one["why"] for one in steps)


def test_a_dropped_row_that_was_a_whole_context_is_not_counted_as_one_event(tmp_path):
    """Rows of a candidate file become several rows of a log each."""
    rows = [
        (user, item, "history" if item < 3 else split)
        for user, split in enumerate(("train", "validation", "test"))
        for item in range(4)
    ]
    tables = replace(log(rows, "user_id item_id split"), origin={"rows_dropped": 2})
    steps = prepare(tables, tmp_path, Preparation(), 0)["funnel"]
    assert steps[0]["step"] == "read"
    assert (steps[0]["rows"], sum(one["rows"] for one in steps if one.get("part"))) == (12, 12)
    assert "2 rows of the files, each a context" in steps[0]["why"]


@pytest.mark.parametrize("seed", range(12))
def test_steps_and_parts_add_up(seed, tmp_path):
    draw = random.Random(seed)
    rows = [
        (draw.randrange(25), draw.randrange(30), draw.randrange(50), draw.choice([1.0, 3, 4, 5]))
        for _ in range(600)
    ]
    how = Preparation(
        k_core=draw.choice([1, 4]),
        split=draw.choice(["leave_one_out", "global_time", "by_user", "random"]),
        duplicates=draw.choice(["strongest", "last", "first", "all"]),
    )
    manifest = prepare(log(rows), tmp_path, how, seed)
    steps = manifest["funnel"]
    whole = [one for one in steps if not one.get("part")]
    parts = [one for one in steps if one.get("part")]
    assert {name: whole[0][name] for name in COUNTS} == by_hand([(u, i, r) for u, i, _, r in rows])
    for before, after in pairwise(whole):
        assert before["rows"] - after["removed"] == after["rows"]
        assert all(before[name] >= after[name] for name in ("rows", "users", "items"))
    for name in ("rows", "likes", "dislikes"):
        assert sum(one[name] for one in parts) == whole[-1][name]
    last = manifest["counts"]
    assert (last["interactions"], last["users"]) == (whole[-1]["rows"], whole[-1]["users"])
    assert (last["items"], last["liked"]) == (whole[-1]["items"], whole[-1]["likes"])
    lines = funnel_lines(steps)
    assert len(lines) == len(steps) + 1
    for line, one in zip(lines[1:], steps, strict=True):
        assert line.split()[: len(one["step"].split()) + 1][-1] == f"{one['rows']:,}"


def test_the_command_prints_the_funnel_and_keeps_it(tmp_path):
    lines = [f"{u},{i},{100 * u + i},{1 + (u + i) % 5}" for u in range(9) for i in range(9)]
    (tmp_path / "log.csv").write_text(
        "\n".join(["user_id,item_id,timestamp,rating", *lines, "1,2,never,3", "1,2,3,4", ""])
    )
    (tmp_path / "empty.yaml").write_text("{}\n")
    given = ["--set", "data.source=files", "--set", "data.path=log.csv"]
    given += ["--set", "data.options.on_bad_rows=drop", "--out", "runs/a"]
    done = command("prepare", "empty.yaml", *given, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = json.loads((tmp_path / "runs/a/data.json").read_text("utf-8"))["funnel"]
    assert [(one["step"], one["rows"]) for one in steps[:4]] == [
        ("in the files", 83),
        ("read", 82),
        ("once each", 81),
        ("5-core", 81),
    ]
    assert steps[1]["removed"] == 1
    for line in funnel_lines(steps):
        assert line in done.stdout
