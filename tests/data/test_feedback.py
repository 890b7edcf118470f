"""What rows mean: scales of ratings, weights, events, and which of several rows stays."""

import json
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import command, log
from palate.config import parse_config
from palate.config.yaml_text import read_value
from palate.data.prepare import Preparation, prepare
from palate.data.sources.files import files
from palate.errors import ConfigError, DataError, DataWarning

FOUR = "user_id item_id timestamp"


def prepared(tables, folder, **choices):
    """Rows as (user, item, level, disliked) with the ids of the source, in order; the manifest."""
    manifest = prepare(tables, folder, Preparation(**{"k_core": 1, **choices}), seed=0)
    items = pq.read_table(folder / "items.parquet")["source_id"].to_pylist()
    users = pq.read_table(folder / "users.parquet")["source_id"].to_pylist()
    rows = pq.read_table(folder / "interactions.parquet").to_pylist()
    found = [(users[r["user_id"]], items[r["item_id"]], r["level"], r["disliked"]) for r in rows]
    return found, manifest


def levels_of(found):
    return {(user, item): level for user, item, level, _ in found}


def ratings(values):
    return log([("u", number, number, float(value)) for number, value in enumerate(values)])


@pytest.mark.parametrize(
    "values",
    [
        [1000, 500, 333, 250],  # play counts
        [0, 25, 50, 100],
        [-10, -3.5, 0, 9.25],
        [1, 2, 9, 10],
        [0.1, 0.9, 0.35],
        [1, 3.7, 4.2],
        [0, 4, 5],  # 0 often stands for "not rated"
    ],
)
def test_another_scale_than_stars_must_be_described(values, tmp_path):
    with pytest.raises(DataError, match=r"no scale of 0.5 to 5 stars.*data\.levels.*data\.disl"):
        prepared(ratings(values), tmp_path)
    least = sorted(values)[-1]
    with pytest.raises(DataError, match=r"Say up to which one it is disliked"):
        prepared(ratings(values), tmp_path, levels=(least,))
    with pytest.raises(DataError, match=r"Say from which rating an item counts as liked"):
        prepared(ratings(values), tmp_path, disliked=None)
    assert not list(tmp_path.iterdir())
    found, _ = prepared(ratings(values), tmp_path, levels=(least,), disliked=min(values))
    assert [level for _, _, level, _ in found] == [int(value >= least) for value in values]
    assert [disliked for *_, disliked in found] == [value == min(values) for value in values]


@pytest.mark.parametrize("values", [[0.5, 2, 3.5, 4.5], [1, 2, 3, 4, 5], [5, 5], [4.0]])
def test_stars_need_no_description(values, tmp_path):
    found, manifest = prepared(ratings(values), tmp_path)
    assert [level for _, _, level, _ in found] == [int(value >= 4) for value in values]
    assert [disliked for *_, disliked in found] == [value <= 2.5 for value in values]
    how = manifest["preparation"]
    assert (how["levels"], how["disliked"], how["duplicates"]) == ((4.0,), 2.5, "last")


def test_two_or_three_of_the_star_values_draw_a_warning(tmp_path):
    clicks = ratings([1, 5] * 12)
    with pytest.warns(DataWarning, match=r"ratings are 1, 5 only.*'weight'.*data\.events"):
        prepared(clicks, tmp_path / "a")
    prepared(clicks, tmp_path / "b", levels=(5.0,))  # said, so no warning
    prepared(ratings([1, 5, 3, 4] * 6), tmp_path / "c")


def test_disliked_and_liked_do_not_meet_on_stars(tmp_path):
    with pytest.raises(DataError, match=r"data.disliked is 2.5, at or above .* \[2.0\]"):
        prepared(ratings([1, 2, 3, 4]), tmp_path, levels=(2.0,))


def test_weights_grade_and_never_dislike(tmp_path):
    """A click weighs 1, a purchase 5; whoever looks at the order again still has bought."""
    rows = [("u", 1, 1, 1.0), ("u", 1, 2, 5.0), ("u", 1, 3, 1.0), ("u", 2, 4, 1.0)]
    rows += [("u", 3, 5, 0.0)]
    tables = log(rows, f"{FOUR} weight")
    found, manifest = prepared(tables, tmp_path / "a")
    assert found == [("u", 1, 2, False), ("u", 2, 1, False), ("u", 3, 0, False)]
    assert manifest["preparation"]["duplicates"] == "strongest"
    assert manifest["preparation"]["graded_by"] == "weight"
    only, _ = prepared(tables, tmp_path / "b", levels=(5.0,))
    assert levels_of(only) == {("u", 1): 1, ("u", 2): 0, ("u", 3): 0}
    with pytest.raises(DataError, match="grades and never dislikes"):
        prepared(tables, tmp_path / "c", disliked=2.0)
    with pytest.raises(DataError, match=r"a weight is -1. Expected 0 or more"):
        prepared(log([("u", 1, 1, -1.0)], f"{FOUR} weight"), tmp_path / "c")
    with pytest.raises(DataError, match="'weight' holds nothing above 0"):
        prepared(log([("u", 1, 1, 0.0)], f"{FOUR} weight"), tmp_path / "c")
    many = log([("u", item, item, item + 1.0) for item in range(11)], f"{FOUR} weight")
    with pytest.raises(DataError, match=r"11 different weights from 1 to 11, .*data\.levels"):
        prepared(many, tmp_path / "c")


EVENTS = [
    ("u", 1, 1, "click"),
    ("u", 1, 2, "purchase"),
    ("u", 1, 3, "click"),
    ("u", 2, 4, "cart"),
    ("u", 3, 5, "click"),
    ("u", 4, 6, "skip"),
    ("v", 4, 6, "hide"),
    ("v", 1, 7, "look"),
]


def test_events_are_graded_as_said(tmp_path):
    how = {"click": 1, "cart": 2, "purchase": 3, "skip": "shown", "hide": "disliked", "look": 0}
    found, manifest = prepared(log(EVENTS, f"{FOUR} event"), tmp_path, events=how)
    assert found == [
        ("u", 1, 3, False),
        ("u", 2, 2, False),
        ("u", 3, 1, False),
        ("v", 4, 0, True),
        ("v", 1, 0, False),
    ]
    assert manifest["preparation"]["events"] == how
    assert pq.read_table(tmp_path / "shown.parquet").num_rows == 1


def test_events_without_a_meaning_are_refused_and_not_flattened(tmp_path):
    tables = log(EVENTS, f"{FOUR} event")
    with pytest.raises(DataError, match=r"click in 3 rows, cart in 1 rows.*data\.events="):
        prepared(tables, tmp_path)
    with pytest.raises(DataError, match=r"holds hide in 1 rows, look in 1 rows"):
        prepared(tables, tmp_path, events={"click": 1, "cart": 2, "purchase": 3})
    with pytest.raises(DataError, match="no column 'event'"):
        prepared(log([("u", 1, 1)], FOUR), tmp_path, events={"click": 1})
    with pytest.raises(DataError, match=r"data\.events: no row has an event with a level"):
        prepared(log([("u", 1, 1, "a")], f"{FOUR} event"), tmp_path, events={"a": 0})
    empty = log([("u", 1, 1, "buy"), ("u", 2, 2, None)], f"{FOUR} event")
    with pytest.raises(DataError, match=r"\(empty\) in 1 rows, buy in 1 rows"):
        prepared(empty, tmp_path)
    assert not list(tmp_path.iterdir())
    found, _ = prepared(empty, tmp_path, events={"buy": 2, "": 1})
    assert [level for _, _, level, _ in found] == [2, 1]


def test_an_event_may_leave_it_to_the_rating(tmp_path):
    """One kind of event says nothing by itself; of several, some may be rated."""
    rows = [("u", 1, 1, "rate", 2.0), ("u", 2, 2, "rate", 5.0), ("u", 3, 3, "buy", None)]
    rows += [("u", 4, 4, "rate", 1.0), ("u", 5, 5, "rate", 4.0)]
    tables = log(rows, f"{FOUR} event rating")
    found, _ = prepared(tables, tmp_path / "a", events={"rate": "rated", "buy": 3})
    assert [(level, no) for _, _, level, no in found] == [
        (0, True),
        (1, False),
        (3, False),
        (0, True),
        (1, False),
    ]
    with pytest.raises(DataError, match="1 ratings are empty"):
        prepared(tables, tmp_path / "b", events={"rate": 1, "buy": "rated"})
    alone = log([row[:4] for row in rows if row[3] == "rate"], f"{FOUR} event")
    assert {level for _, _, level, _ in prepared(alone, tmp_path / "c")[0]} == {1}
    with pytest.raises(DataError, match="'rated' needs a column"):
        prepared(alone, tmp_path / "d", events={"rate": "rated"})


@pytest.mark.parametrize(
    ("keep", "kept"),
    [("strongest", [4]), ("last", [6]), ("first", [1]), ("all", [1, 3, 4, 6])],
)
def test_which_of_several_rows_stays(keep, kept, tmp_path):
    """Of equals the latest: of the two of 5 stars the one at 4."""
    tables = log([("u", 1, 1, 4.0), ("u", 1, 6, 2.0), ("u", 1, 3, 5.0), ("u", 1, 4, 5.0)])
    prepared(tables, tmp_path, duplicates=keep, levels=(4.0, 5.0))
    rows = pq.read_table(tmp_path / "interactions.parquet")
    assert rows["timestamp"].to_pylist() == kept
    assert rows["position"].to_pylist() == list(range(len(kept)))


def test_ratings_keep_the_last_and_events_the_strongest(tmp_path):
    lowered = log([("u", 1, 1, 5.0), ("u", 1, 2, 1.0), ("u", 2, 3, 4.0)])
    assert levels_of(prepared(lowered, tmp_path / "a")[0]) == {("u", 1): 0, ("u", 2): 1}
    rows = [("u", 1, 1, "buy"), ("u", 1, 2, "look"), ("u", 2, 3, "look")]
    bought = log(rows, f"{FOUR} event")
    found, _ = prepared(bought, tmp_path / "b", events={"look": 1, "buy": 2})
    assert levels_of(found) == {("u", 1): 2, ("u", 2): 1}


def test_dislikes_that_are_lost_to_clicks_are_told(tmp_path):
    """A hide after a click counts only if what came last does."""
    rows = [("u", n, 2 * n, "click") for n in range(1, 6)]
    hidden = [("u", n, 2 * n + 1, "hide") for n in range(1, 4)]
    tables, events = log(rows + hidden, f"{FOUR} event"), {"click": 1, "hide": "disliked"}
    with pytest.warns(DataWarning, match=r"3 of 3 dislikes are lost.* --set data\.duplicates=last"):
        found, _ = prepared(tables, tmp_path / "a", events=events)
    assert not any(disliked for *_, disliked in found)
    found, _ = prepared(tables, tmp_path / "b", events=events, duplicates="last")
    assert [disliked for *_, disliked in found] == [True, True, True, False, False]
    prepared(tables, tmp_path / "c", events=events, duplicates="strongest")
    others = [("u", n, n + 20, "hide") for n in (6, 7, 8)]
    kept = log(rows + hidden + others, f"{FOUR} event")
    prepared(kept, tmp_path / "d", events=events)


def test_a_file_with_weights_and_one_with_both(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp,weight\n1,7,1,1\n1,8,2,-1\n")
    with pytest.raises(DataError, match=r"log\.csv line 3: weight '-1' is no weight"):
        files(path)
    path.write_text("user_id,item_id,timestamp,rating,weight\n1,7,1,4,0.3\n")
    with pytest.warns(DataWarning, match="'rating' does, and 'weight' is not read"):
        assert "weight" not in files(path).interactions.column_names
    assert "rating" in files(path, columns={"weight": None}).interactions.column_names
    weighed = files(path, columns={"weight": "weight"}).interactions
    assert weighed.column_names == ["user_id", "item_id", "timestamp", "weight"]
    with pytest.raises(ConfigError, match="both named, and only one can grade"):
        files(path, columns={"weight": "weight", "rating": "rating"})
    with pytest.raises(ConfigError, match=r"columns\.user_id: found null"):
        files(path, columns={"user_id": None})


def test_events_that_are_graded_need_no_rating_in_a_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp,event,rating\n1,7,1,buy,\n1,8,2,rate,4\n")
    read = files(path).interactions
    assert read["rating"].to_pylist() == [None, 4.0]
    path.write_text("user_id,item_id,timestamp,event,rating\n1,7,1,rate,x\n1,8,2,buy,\n")
    with pytest.raises(DataError, match=r"line 2: rating 'x' is not a number"):
        files(path)
    path.write_text("user_id,item_id,timestamp,event,rating\n1,7,1,rate,\n1,8,2,skip,\n")
    with pytest.raises(DataError, match=r"line 2: rating is empty"):
        files(path)


def test_what_events_mean_is_checked_when_the_configuration_is_read():
    config = parse_config({"data": {"events": {"click": 1, 2: "shown", "no way": "disliked"}}})
    assert config.data.events == {"click": 1, "2": "shown", "no way": "disliked"}
    for wrong in (-1, 21, True, 1.5, "skip", None):
        with pytest.raises(ConfigError, match="expected a level from 0 to 20, shown, disliked or"):
            parse_config({"data": {"events": {"click": wrong}}})


def test_the_command_says_what_to_type(tmp_path):
    """A click, a purchase and another click of each item, as a shop writes them."""
    rows = [
        (user, f"i{item}", 1_700_000_000 + 1000 * user + 10 * item + later, worth)
        for user in range(8)
        for item in range(8)
        for later, worth in ((0, 1), (1, 5), (2, 1))
    ]
    names = ("user_id", "item_id", "timestamp", "weight")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    pq.write_table(pa.table(columns), tmp_path / "shop.parquet")
    (tmp_path / "empty.yaml").write_text("{}\n")
    given = ["--set", "data.source=files", "--set", "data.path=shop.parquet"]
    done = command("prepare", "empty.yaml", *given, "--out", "runs/a", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "runs/a/data.json").read_text("utf-8"))
    assert manifest["counts"]["liked"] == 64
    disliked = pq.read_table(tmp_path / "runs/a/data/interactions.parquet")["disliked"]
    assert not any(disliked.to_pylist())
    named = ["--set", "data.options.columns={rating: weight}"]
    done = command("prepare", "empty.yaml", *given, *named, "--out", "runs/b", folder=tmp_path)
    assert "'weight'" in done.stderr
    assert "data.events" in done.stderr


@pytest.mark.parametrize(
    "kinds",
    [
        ["", "buy"],
        ["true", "false", "null", "Yes", "off"],
        ["it's", 'a "b"', "a: b", "{x}", "#1", "a,b", "- a", "a #b", "~", "é", "$x `y`", "a\\b"],
        ["1", "2", "3", "4", "1.0", "007", "1_000"],
        [f"kind {number}" for number in range(25)],
    ],
)
def test_the_proposed_meaning_of_events_can_be_pasted(kinds, tmp_path):
    rows = [(0, item, item, kind) for item, kind in enumerate(kinds)]
    table = log(rows + [(1, *row[1:]) for row in rows], f"{FOUR} event")
    said = {kinds[0]: 3}
    for meanings, known in ((None, {}), (said, said)):
        with pytest.raises(DataError, match="nothing says") as raised:
            prepared(table, tmp_path, events=meanings)
        command = str(raised.value).partition(" as in ")[2].partition(", or shown, disliked")[0]
        _, flag = shlex.split(command)
        events = parse_config({"data": {"events": read_value(flag.partition("=")[2])}}).data.events
        assert set(events) == set(kinds)
        assert known.items() <= events.items()
        prepared(table, tmp_path, events=events)
