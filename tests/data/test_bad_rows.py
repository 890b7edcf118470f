"""Rows that cannot be read: the first is an error that says how to go on; dropped, they count."""

import json
import shlex
from functools import partial

import pytest

from palate.data.sources import load
from palate.errors import DataError, DataWarning


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def preference_rows(folder, bad):
    good = [
        {"prompt": f"p{n}\n", "chosen": f"a{n}", "rejected": [f"b{n}", f"c{n}"]} for n in range(4)
    ]
    return {"path": str(lines(folder / "rows.jsonl", [*good[:2], *bad, *good[2:]]))}


def candidate_rows(folder, bad):
    good = [
        {"historyList": [f"h{n}"], "itemList": [f"a{n}", f"b{n}"], "trueSelection": f"a{n}"}
        for n in range(4)
    ]
    return {"path": str(lines(folder / "test.jsonl", [*good[:2], *bad, *good[2:]]))}


def dialogue_rows(folder, bad):
    (folder / "items.json").write_text(
        json.dumps({str(n): {"name": f"a{n}", "genre": ["x"]} for n in range(4)})
    )
    good = [
        {"dialog_id": f"d{n}", "turn_id": 1, "context": ["hello"], "rec": [f"a{n}"]}
        for n in range(4)
    ]
    return {"path": str(lines(folder / "rows.jsonl", [*good[:2], *bad, *good[2:]]))}


BAD = [
    ("preferences", preference_rows, {"prompt": "p\n", "chosen": "x", "rejected": "x"}),
    ("preferences", preference_rows, {"prompt": "p\n", "chosen": "", "rejected": "x"}),
    ("preferences", preference_rows, {"prompt": "p\n", "chosen": "x"}),
    ("preferences", preference_rows, {"chosen": "x", "rejected": "y"}),
    (
        "candidate_file",
        candidate_rows,
        {"historyList": ["new"], "itemList": ["x", "y"], "trueSelection": "z"},
    ),
    (
        "candidate_file",
        candidate_rows,
        {"historyList": [], "itemList": ["x"], "trueSelection": "x"},
    ),
    (
        "conversation",
        dialogue_rows,
        {"dialog_id": "d9", "turn_id": 1, "context": ["hello"], "rec": ["nowhere"]},
    ),
    ("conversation", dialogue_rows, {"dialog_id": "d9", "turn_id": "x", "context": [], "rec": []}),
]


@pytest.mark.parametrize(("source", "rows", "bad"), BAD)
def test_bad_rows_are_an_error_that_says_how_many_would_go(source, rows, bad, tmp_path):
    with pytest.raises(DataError, match=r"line 3.* --set data.options.on_bad_rows=drop \(2 rows"):
        load(source, rows(tmp_path, [bad, bad]))


@pytest.mark.parametrize(("source", "rows", "bad"), BAD)
def test_dropped_rows_leave_what_a_file_without_them_gives(source, rows, bad, tmp_path):
    with pytest.warns(DataWarning, match="dropped 1 of 5 rows, which cannot be read. The first: "):
        found = load(source, {**rows(tmp_path, [bad]), "on_bad_rows": "drop"})
    clean = load(source, rows(tmp_path, []))
    for name in ("interactions", "items", "lists", "texts"):
        one, other = getattr(found, name), getattr(clean, name)
        assert one == other if one is None else one.equals(other)
    assert found.origin["rows_dropped"] == 1
    assert clean.origin["rows_dropped"] == 0


@pytest.mark.parametrize("rows", [preference_rows, candidate_rows, dialogue_rows])
def test_a_file_of_bad_rows_alone_is_an_error_though_they_are_dropped(rows, tmp_path):
    source, _, bad = next(one for one in BAD if one[1] is rows)
    given = rows(tmp_path, [])
    lines(tmp_path / given["path"].rpartition("/")[2], [bad, bad])
    with pytest.raises(DataError, match="none of 2 rows can be read"):
        load(source, {**given, "on_bad_rows": "drop"})


def test_a_title_that_a_catalogue_lacks_is_a_bad_row(tmp_path):
    (tmp_path / "items.csv").write_text(
        "title\n" + "".join(f"{kind}{n}\n" for kind in "abc" for n in range(4))
    )
    bad = {"prompt": "p\n", "chosen": "a1", "rejected": "nowhere"}
    given = {**preference_rows(tmp_path, [bad]), "items": "items.csv"}
    run = partial(load, "preferences")
    with pytest.raises(DataError, match=r"nowhere.*on_bad_rows=drop \(1 row would"):
        run(given)
    with pytest.warns(DataWarning, match="dropped 1 of 5 rows"):
        found = run({**given, "on_bad_rows": "drop"})
    assert found.interactions.num_rows == 4


def test_the_flag_that_names_an_unknown_title_stands_last(tmp_path):
    (tmp_path / "items.csv").write_text("title\nh0\nh1\na0\na1\nb0\nb1\nThe Weird Al\n")
    bad = {"historyList": ["h0"], "itemList": ["a0", 'The "Weird" Al'], "trueSelection": "a0"}
    path = lines(tmp_path / "test.jsonl", [bad, bad])
    with pytest.raises(
        DataError, match=r"on_bad_rows=drop \(2 rows would be dropped\)\. "
    ) as error:
        load("candidate_file", {"path": str(path), "items": "items.csv"})
    key, _, value = shlex.split(str(error.value).rpartition("--set ")[2].removesuffix("."))[
        0
    ].partition("=")
    assert key == "data.aliases"
    assert json.loads(value) == {'The "Weird" Al': "The Weird Al"}
