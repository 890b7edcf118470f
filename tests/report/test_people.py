"""What moved between two lists, by hand."""

import pyarrow as pa

from palate.evaluation.examples import SCHEMA
from palate.report.people import HeldOut, Listed, people


def item(item_id, **more):
    return {"item_id": item_id, "title": f"Item {item_id}", **more}


def row(stages, felt=("liked", "liked")):
    return {
        "context_id": 9,
        "user": "u7",
        "said": None,
        "history_length": 5,
        "history": [item(place, felt=feeling) for place, feeling in enumerate(felt)],
        "held_out": [item(11), item(99)],
        "stages": [
            {"stage": stage, "items": [item(i) for i in items], "ranks": ranks}
            for stage, (items, ranks) in stages.items()
        ],
    }


def person(*rows):
    return people(pa.Table.from_pylist(list(rows), SCHEMA))[0]


def test_moves_are_told_from_the_earlier_list():
    one = person(row({"sft": ([10, 11, 12], [2.0, 50.0]), "aligned": ([11, 10, 13], [1.0, 80.5])}))
    assert one.before == [
        Listed("Item 10", "", False),
        Listed("Item 11", "", True),
        Listed("Item 12", "out", False),
    ]
    assert one.after == [
        Listed("Item 11", "up 1", True),
        Listed("Item 10", "down 1", False),
        Listed("Item 13", "new", False),
    ]
    assert one.held_out == [HeldOut("Item 11", "2", "1"), HeldOut("Item 99", "50", "80.5")]
    assert (one.change, one.trend) == ("place 2 → 1", "better")
    assert (one.name, one.earlier) == ("u7", 3)


def test_a_loss_and_a_tie_are_called_so():
    worse = person(row({"sft": ([1], [2.0, 9.0]), "aligned": ([1], [3.0, 9.0])}))
    assert (worse.change, worse.trend) == ("place 2 → 3", "worse")
    same = person(row({"sft": ([1], [2.0, 9.0]), "aligned": ([1], [2.0, 8.0])}))
    assert (same.change, same.trend) == ("place 2, as before", "")
    assert same.after == [Listed("Item 1", "", False)]


def test_without_alignment_nothing_moves():
    one = person(row({"sft": ([1, 11], [2.0, 9.0])}))
    assert one.after is None
    assert one.before == [Listed("Item 1", "", False), Listed("Item 11", "", True)]
    assert one.held_out[0] == HeldOut("Item 11", "2", "")
    assert (one.change, one.trend) == ("place 2", "")


def test_feelings_are_shown_where_they_differ():
    stages = {"sft": ([1], [2.0, 9.0])}
    assert person(row(stages)).history == [("Item 0", ""), ("Item 1", "")]
    mixed = person(row(stages, ("liked", "disliked")))
    assert mixed.history == [("Item 0", "liked"), ("Item 1", "disliked")]
