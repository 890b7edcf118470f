"""Dialogues: contexts, several right answers, leaks."""

import gzip
import json

import pytest

from conftest import shared
from palate.data.sources import check_options
from palate.data.sources.conversation import conversation
from palate.data.tables import check_tables
from palate.errors import DataError, DataWarning

ITEMS = {
    "11": {"name": "Heat (1995)", "genre": ["crime", "drama"], "plot": "…"},
    "12": {"name": "Alien (1979)", "genre": []},
    "13": {"name": "Thor", "genre": ["action"]},
}


def turn(number, context, rec, dialogue="d1"):
    return {"dialog_id": dialogue, "turn_id": number, "context": context, "rec": rec}


FIRST = turn(2, ["", "What do you like?", "Crime  films"], ["Heat (1995)", "Alien (1979)"])
SECOND = turn(
    4,
    [*FIRST["context"], "Try Heat (1995) and Alien (1979)", "More?"],
    ["Thor", "Heat (1995)"],
)
OTHER = turn(1, ["Hi", "Something like thor"], ["Alien (1979)"], "d2")


@pytest.fixture
def written(tmp_path):
    (tmp_path / "items.json").write_text(json.dumps(ITEMS))

    def write(rows, name="dialogues.jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        return tmp_path

    return write


def test_answers_texts_and_catalogue(written):
    with pytest.warns(DataWarning, match=r"dropped 1 of 5 right answers, .* 0 of 3 contexts"):
        tables = conversation(written([SECOND, OTHER, FIRST]))
    check_tables(tables)
    assert tables.interactions.to_pydict() == {
        "user_id": ["d1", "d1", "d1", "d2"],
        "item_id": [11, 12, 13, 12],
        "turn": [2, 2, 4, 1],
    }
    assert tables.texts is not None
    assert tables.texts.to_pylist() == [
        {
            "user_id": "d1",
            "turn": 2,
            "text": "Recommender: What do you like?\nSeeker: Crime films",
        },
        {
            "user_id": "d1",
            "turn": 4,
            "text": "Recommender: What do you like?\nSeeker: Crime films\n"
            "Recommender: Try Heat (1995) and Alien (1979)\nSeeker: More?",
        },
        {"user_id": "d2", "turn": 1, "text": "Recommender: Hi\nSeeker: Something like thor"},
    ]
    assert tables.items.to_pylist()[0] == {
        "item_id": 11,
        "title": "Heat (1995)",
        "genres": "crime|drama",
    }
    assert tables.items.num_rows == 3
    assert set(tables.origin["sha256"]) == {"dialogues.jsonl", "items.json"}


def test_mentioned_answers_are_dropped_and_counted(written):
    named = turn(1, ["I saw THOR, twice"], ["Thor"])
    partly = turn(1, ["Thorough films"], ["Thor"], "d2")
    with pytest.warns(DataWarning, match="1 of 2 contexts are left without one"):
        tables = conversation(written([named, partly]))
    assert tables.interactions["user_id"].to_pylist() == ["d2"]
    assert tables.origin["counts"] == {
        "answers_mentioned_before": 1,
        "answers_repeated": 0,
        "contexts_without_answer": 1,
    }
    kept = conversation(written([named, partly]), mentioned="keep")
    assert kept.interactions["user_id"].to_pylist() == ["d1", "d2"]
    with pytest.raises(DataError, match=r"no context keeps a right answer.*mentioned=keep"):
        conversation(written([named]))


def test_an_item_is_an_answer_once_in_a_dialogue(written):
    tables = conversation(written([FIRST, SECOND]), mentioned="keep")
    assert tables.interactions["item_id"].to_pylist() == [11, 12, 13]
    assert tables.origin["counts"]["answers_repeated"] == 1


def test_speakers_are_left_out_where_somebody_spoke_twice(written):
    rows = [turn(1, ["a"], ["Thor"]), turn(2, ["a", "b"], ["Alien (1979)"])]
    tables = conversation(written(rows))
    assert tables.texts is not None
    assert tables.texts["text"].to_pylist() == ["a", "a\nb"]


@pytest.mark.parametrize(
    ("most", "text"),
    [
        (60, "Recommender: What do you like?\nSeeker: Crime films"),
        (50, "Recommender: What do you like?\nSeeker: Crime films"),
        (49, "Seeker: Crime films"),
        (13, "Seeker: films"),
    ],
)
def test_long_dialogues_are_cut_to_their_last_utterances(written, most, text):
    tables = conversation(written([FIRST]), max_characters=most)
    assert tables.texts is not None
    assert tables.texts["text"].to_pylist() == [text]


def test_files_by_name_give_the_splits(written):
    written([FIRST], "train.jsonl")
    written([OTHER], "valid.jsonl")
    folder = written([turn(1, ["x"], ["Thor"], "d3")], "test.jsonl")
    tables = conversation(folder)
    assert tables.interactions["split"].to_pylist() == ["test", "train", "train", "validation"]
    assert tables.interactions["user_id"].to_pylist() == ["d3", "d1", "d1", "d2"]
    written([turn(1, ["x"], ["Thor"], "d1")], "test.jsonl")
    tables = conversation(folder)
    assert tables.interactions["user_id"].to_pylist()[0] == "test d1"
    written([FIRST], "more.jsonl")
    with pytest.raises(DataError, match=r"several \.jsonl files: more\.jsonl, test\.jsonl"):
        conversation(folder)


def test_one_file_gives_no_split(written):
    folder = written([FIRST], "train.jsonl")
    assert "split" not in conversation(folder).interactions.column_names
    assert "split" not in conversation(folder / "train.jsonl").interactions.column_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("films.csv", "title,genres\nHeat (1995),crime\nAlien (1979),\n"),
        ("films.tsv", "item_id\ttitle\n0\tHeat (1995)\n1\tAlien (1979)\n"),
        ("films.jsonl", '{"title": "Heat (1995)"}\n{"name": "Alien (1979)", "genres": "x|y"}\n'),
        (
            "films.json",
            '[{"item_id": 0, "name": "Heat (1995)"}, {"item_id": 1, "title": "Alien (1979)"}]',
        ),
    ],
)
def test_catalogues_in_other_forms(written, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    tables = conversation(written([FIRST]), items=name)
    check_tables(tables)
    assert tables.interactions["item_id"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"dialog_id": "d"},
            r"dialogues\.jsonl line 2: 'turn_id' is missing; found dialog_id\. Exp",
        ),
        (FIRST | {"rec": ["Haet (1995)"]}, r"title 'Haet \(1995\)'\. Did you mean 'Heat \(1995\)'"),
        (FIRST | {"rec": ["Qqqqqqqqqqqq"]}, r"title 'Qqqqqqqqqqqq'\. Add it to items\.json"),
        (FIRST | {"rec": "Thor"}, "line 2: 'rec' is 'Thor'; expected a list of texts"),
        (FIRST | {"turn_id": "2"}, "'turn_id' is '2'. Expected a whole number"),
        (FIRST | {"context": "hi"}, "'context' is not a list of texts"),
        (FIRST | {"dialog_id": None}, "'dialog_id' holds None; expected a text"),
        (OTHER, r"line 2: turn 1 of dialogue 'd2' was already given in dialogues\.jsonl line 1"),
    ],
)
def test_bad_rows_are_named(written, row, message):
    with pytest.raises(DataError, match=message) as error:
        conversation(written([OTHER, row]))
    assert "\n" not in str(error.value)


def test_bad_files_are_refused_in_one_sentence(written, tmp_path):
    with pytest.raises(DataError, match=r"has no \.jsonl file of dialogues; found "):
        conversation(tmp_path)
    with pytest.raises(DataError, match=r"does not exist\. Expected a \.jsonl file of dialogues"):
        conversation(tmp_path / "nowhere")
    path = written([FIRST] * 50) / "dialogues.jsonl"
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(path.read_bytes())[:-30])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz is not a complete gzip file"):
        conversation(tmp_path / "cut.jsonl.gz")
    path.write_text("")
    with pytest.raises(DataError, match=r"dialogues\.jsonl is empty\. Expected JSON lines"):
        conversation(path)
    path.write_text(json.dumps(FIRST) + "\n" + json.dumps(SECOND)[:40])
    with pytest.raises(DataError, match=r"dialogues\.jsonl line 2: not valid JSON .* cut off"):
        conversation(path)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("{}", r"items\.json holds no items"),
        ('{"1": {"name": "A"', r"items\.json line 1: not valid JSON"),
        ('{"1": "A"}', r"items\.json: item '1' is 'A'. Expected an object"),
        ('{"1": {"nom": "A"}}', r"items\.json item '1': 'name' is missing; found nom"),
    ],
)
def test_bad_catalogues(written, tmp_path, items, message):
    (tmp_path / "items.json").write_text(items)
    with pytest.raises(DataError, match=message):
        conversation(written([FIRST]))


def test_options_are_checked():
    (problem,) = check_options("conversation", {"path": "x", "max_characters": 0})
    assert problem.startswith("data.options.max_characters: input should be greater than 0")


def test_redial():
    with pytest.warns(DataWarning) as warned:
        tables = conversation(shared("data/redial"))
    messages = [str(warning.message) for warning in warned]
    assert "7 of 6576 titles belong to several items" in messages[0]
    assert "dropped 285 of 3595 right answers" in messages[1]
    check_tables(tables)
    assert tables.items.num_rows == 6583
    assert tables.texts is not None
    kept = {(row["user_id"], row["turn"]) for row in tables.interactions.to_pylist()}
    assert tables.texts.num_rows == len(kept)
    assert max(len(text) for text in tables.texts["text"].to_pylist()) <= 2000
