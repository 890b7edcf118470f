"""Candidate files and the Last.fm windows."""

import gzip
import json
import shlex
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import shared
from palate.data.sources.candidate_file import candidate_file, read_windows, split_of
from palate.data.sources.lastfm import ALIASES, lastfm
from palate.data.tables import check_tables
from palate.errors import ConfigError, DataError, DataWarning

ROW = {"historyList": "A::B", "itemList": ["C", "A", "D"], "trueSelection": "C"}
OTHER = {"historyList": ["D"], "itemList": "E::B", "trueSelection": "B"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "music-val.json").write_text(json.dumps([ROW, OTHER], indent=1))
    (tmp_path / "music-test.jsonl").write_text(json.dumps(OTHER) + "\n\n" + json.dumps(ROW) + "\n")
    return tmp_path


def test_every_row_is_a_user_with_its_list(folder):
    tables = candidate_file(folder)
    check_tables(tables)
    titles = dict(zip(*tables.items.to_pydict().values(), strict=True))
    assert sorted(titles.values()) == list("ABCDE")
    named = [
        (row["user_id"], titles[row["item_id"]], row["split"])
        for row in tables.interactions.to_pylist()
    ]
    assert named == [
        (0, "A", "history"),
        (0, "B", "history"),
        (0, "C", "validation"),
        (1, "D", "history"),
        (1, "B", "validation"),
        (2, "D", "history"),
        (2, "B", "test"),
        (3, "A", "history"),
        (3, "B", "history"),
        (3, "C", "test"),
    ]
    assert tables.lists is not None
    shown = [(row["user_id"], titles[row["item_id"]]) for row in tables.lists.to_pylist()]
    assert shown[:5] == [(0, "C"), (0, "A"), (0, "D"), (1, "E"), (1, "B")]
    assert set(tables.origin["sha256"]) == {"music-val.json", "music-test.jsonl"}


def test_a_catalogue_with_aliases(folder):
    (folder / "artists.tsv").write_text("artist\nE\nD\nC\nB\nthe A\nF\n")
    tables = candidate_file(folder, items="artists.tsv", aliases={"A": "the A"})
    check_tables(tables)
    assert tables.items["title"].to_pylist() == ["E", "D", "C", "B", "the A", "F"]
    assert tables.interactions["item_id"].to_pylist()[:3] == [4, 3, 2]
    (folder / "titles.csv").write_text("item_id,title\ne,E\nd,D\nc,C\nb,B\na,A\n")
    tables = candidate_file(folder, items="titles.csv")
    assert tables.interactions["item_id"].to_pylist()[:3] == ["a", "b", "c"]


def test_an_unknown_title_comes_with_the_nearest_and_the_option(folder):
    (folder / "titles.csv").write_text("title\nC\nB\nD\nE\nThe Beatles\n")
    row = ROW | {"historyList": "B::Beatles"}
    (folder / "music-test.jsonl").write_text(json.dumps(row))
    message = (
        r"music-test\.jsonl line 1, historyList: .* no item with the title 'Beatles'\. Did you "
        r"mean 'The Beatles'\? .*--set 'data\.aliases=\{\"Beatles\": \"The Beatles\"\}'"
    )
    with pytest.raises(DataError, match=message):
        candidate_file(folder / "music-test.jsonl", items="titles.csv")


def test_one_file_is_the_test_file_unless_its_name_says_otherwise(folder):
    assert set(candidate_file(folder / "music-val.json").interactions["split"].to_pylist()) == {
        "history",
        "validation",
    }
    (folder / "music-val.json").rename(folder / "latest.json")
    assert "test" in candidate_file(folder / "latest.json").interactions["split"].to_pylist()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("lastfm-sft-cans20-val.json", "validation"),
        ("valid.jsonl.gz", "validation"),
        ("validation_data.json", "validation"),
        ("Train.json", "train"),
        ("llara_test.json", "test"),
        ("latest.json", None),
        ("train_val.json", None),
    ],
)
def test_the_name_tells_the_split(name, split):
    assert split_of(name) == split


def test_files_can_be_named(folder):
    (folder / "a.json.gz").write_bytes(gzip.compress(json.dumps([ROW]).encode()))
    tables = candidate_file(folder, train="a.json.gz", test="music-test.jsonl")
    assert tables.interactions["split"].to_pylist().count("train") == 1
    assert tables.origin["options"]["files"] == {"train": "a.json.gz", "test": "music-test.jsonl"}
    with pytest.raises(DataError, match=r"b\.json does not exist\. Expected JSON rows"):
        candidate_file(folder, test="b.json")
    with pytest.raises(ConfigError, match=r"data\.options\.test: data\.path .* is a file already"):
        candidate_file(folder / "music-val.json", test="music-test.jsonl")


def test_lists_are_optional(folder):
    (folder / "music-val.json").unlink()
    bare = {key: value for key, value in ROW.items() if key != "itemList"}
    (folder / "music-test.jsonl").write_text(json.dumps(bare))
    tables = candidate_file(folder)
    assert tables.lists is None
    assert tables.items.num_rows == 3


def test_a_title_listed_twice_counts_once(folder):
    (folder / "music-val.json").write_text(json.dumps([ROW | {"itemList": ["C", "A", "C", "D"]}]))
    with pytest.warns(DataWarning, match=r"music-val\.json: 1 of 1 rows list a title twice"):
        tables = candidate_file(folder / "music-val.json")
    assert tables.lists is not None
    assert tables.lists.num_rows == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([ROW, OTHER])[:-30], r"val\.json line 1: not valid JSON .* may be cut off"),
        ("hello\n", r"val\.json line 1: not valid JSON .*one JSON object on each line"),
        ("[]", r"val\.json holds no rows"),
        ("", r"val\.json is empty\. Expected JSON rows of candidates"),
        ("[1]", r"val\.json row 1: expected a JSON object, found 1"),
        (b"\xff\xfe[", r"val\.json is UTF-16|val\.json line 1: byte"),
        ([ROW, {"historyList": "A"}], "row 2: 'itemList' is missing, though other rows have it"),
        ([{"historyList": "A"}], "row 1: 'trueSelection' is missing; found historyList"),
        ([ROW, ROW | {"historyList": ""}], "row 2: 'historyList' is empty. Expected at least one"),
        ([ROW | {"historyList": []}], "row 1: 'historyList' is empty"),
        ([ROW | {"historyList": "A::::B"}], "row 1: 'historyList' holds ''; expected a text"),
        ([ROW | {"historyList": 5}], "'historyList' is 5; expected a list of texts or a text"),
        ([ROW | {"trueSelection": None}], "row 1: 'trueSelection' holds None; expected a text"),
        ([ROW | {"trueSelection": "Z"}], "row 1: 'trueSelection' is 'Z', which 'itemList' does"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(folder, content, message):
    content = json.dumps(content) if isinstance(content, list) else content
    content = content.encode() if isinstance(content, str) else content
    (folder / "music-val.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        candidate_file(folder)
    assert "\n" not in str(error.value)


def test_a_folder_without_such_files(folder):
    (folder / "other-test.json").write_text("[]")
    with pytest.raises(
        DataError, match=r"all look like the test file\. .*data\.options\.test=musi"
    ):
        candidate_file(folder)
    for file in folder.iterdir():
        file.rename(file.with_name(f"x{file.name[-5:]}"))
    with pytest.raises(DataError, match=r"has no \.json or \.jsonl file named .*; found x"):
        candidate_file(folder)
    with pytest.raises(DataError, match=r"does not exist\. Expected a folder of candidate files"):
        candidate_file(folder / "nowhere")


@pytest.fixture
def artists(tmp_path):
    (tmp_path / "items.tsv").write_text('item_id\tartist\n5\tLee "Scratch" Perry\n6\t+44\n7\t"X"\n')
    (tmp_path / "train_sequences.jsonl").write_text(
        '{"user": 0, "items": [5, 6]}\n{"user": 4, "items": [7]}\n'
    )
    for part in ("val", "test"):
        (tmp_path / f"llara_{part}.jsonl").write_text('{"history": [6, 7], "next": 5}\n')
        row = {"historyList": "Plus 44", "itemList": ['"X"', "+44"], "trueSelection": '"X"'}
        (tmp_path / f"sdpo_{part}.json").write_text(json.dumps([row]))
    return tmp_path


def test_lastfm_windows_follow_the_training_users(artists):
    tables = lastfm(artists)
    check_tables(tables)
    assert tables.items["title"].to_pylist() == ['Lee "Scratch" Perry', "+44", '"X"']
    assert tables.interactions.to_pydict() == {
        "user_id": [0, 0, 4, 5, 5, 5, 6, 6, 6],
        "item_id": [5, 6, 7, 6, 7, 5, 6, 7, 5],
        "split": ["train"] * 3 + ["history"] * 2 + ["validation"] + ["history"] * 2 + ["test"],
    }
    assert tables.lists is None
    tables = lastfm(artists, windows="sdpo")
    assert tables.lists is not None
    assert tables.lists.to_pydict() == {"user_id": [5, 5, 6, 6], "item_id": [7, 6, 7, 6]}
    assert tables.interactions["item_id"].to_pylist()[3:] == [6, 7, 6, 7]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "llara_val.jsonl",
            '{"history": [], "next": 5}',
            r"line 1: 'history' is '\[\]'\. Expected",
        ),
        ("llara_val.jsonl", '{"history": [5], "next": "x"}', "'next' is .*x.*Expected item ids"),
        ("llara_test.jsonl", '{"next": 5}', "'history' is missing; found next"),
        ("train_sequences.jsonl", '{"user": 1}', "'items' is missing; found user"),
        ("items.tsv", "item_id\tartist\nx\tA\n", r"items\.tsv line 2: item_id 'x' is not a whole"),
    ],
)
def test_lastfm_names_what_is_wrong(artists, name, text, message):
    (artists / name).write_text(text)
    with pytest.raises(DataError, match=message):
        lastfm(artists)


def test_real_lastfm():
    tables = lastfm(shared("data/lastfm"))
    check_tables(tables)
    splits = tables.interactions["split"].to_pylist()
    counts = {name: splits.count(name) for name in ("train", "validation", "test")}
    assert counts == {"train": 50_800, "validation": 122, "test": 122}
    assert len(tables.interactions["user_id"].unique()) == 976 + 122 + 122


def test_real_s_dpo_windows():
    folder = shared("data/lastfm")
    tables = lastfm(folder, windows="sdpo")
    check_tables(tables)
    assert tables.lists is not None
    assert tables.lists.num_rows == 20 * (2767 + 2495)
    alone = candidate_file(
        folder,
        validation="sdpo_val.json.gz",
        test="sdpo_test.json.gz",
        items="items.tsv",
        aliases=ALIASES,
    )
    assert alone.lists is not None
    assert alone.lists["item_id"].equals(tables.lists["item_id"])
    with pytest.raises(DataError, match="Did you mean 'Florence \\+ the Machine'"):
        candidate_file(folder / "sdpo_test.json.gz", items="items.tsv")


def test_windows_are_read_by_title_alone(folder):
    from palate.data.reading import read_file
    from palate.data.sources.titles import Titles

    titles = Titles(grows=True)
    windows = read_windows(read_file(folder / "music-val.json", "rows"), titles)
    assert titles.ids == {"C": 0, "A": 1, "B": 2, "D": 3, "E": 4}
    assert (windows[0].history, windows[0].answer, windows[0].candidates) == ([1, 2], 0, [0, 1, 3])


def catalogued(
    folder, *, listed="Blur", catalogue="artist\nAbba\nBlur\n", name="artists.tsv", **options
):
    """A candidate file with one listed title, and a catalogue."""
    (folder / name).write_text(catalogue)
    row = {"historyList": ["Abba"], "itemList": ["Abba", listed], "trueSelection": "Abba"}
    (folder / "rows.json").write_text(json.dumps([row]))
    return candidate_file(folder / "rows.json", items=name, **options)


def test_names_with_marks_are_found_in_a_tsv_catalogue(tmp_path):
    names = ['"Weird Al" Yankovic', '"Heroes', "Abba"]
    tables = catalogued(tmp_path, listed=names[0], catalogue="artist\n" + "\n".join(names) + "\n")
    assert tables.items["title"].to_pylist() == names
    assert tables.origin["quotation_marks"] == {"artists.tsv": "text"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_letter_and_its_accent_may_be_one_character_or_two(tmp_path, forms):
    one, two, other = (normalize(form, "Beyoncé") for form in (*forms, forms[1]))
    catalogue = f"artist\nAbba\n{one}\n"
    assert one != two
    assert catalogued(tmp_path, listed=two, catalogue=catalogue).lists["item_id"].to_pylist() == [
        0,
        1,
    ]
    aliases = {normalize(forms[0], "Beyoncé Knowles"): other}
    tables = catalogued(
        tmp_path,
        listed=normalize(forms[1], "Beyoncé Knowles"),
        catalogue=catalogue,
        aliases=aliases,
    )
    assert tables.lists["item_id"].to_pylist() == [0, 1]
    row = {"historyList": [one], "itemList": ["Abba", two], "trueSelection": "Abba"}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    assert candidate_file(tmp_path / "rows.json").items.num_rows == 2


def test_the_alias_that_is_proposed_can_be_typed(tmp_path):
    listed = 'The "Weird Al\'s" Band'
    with pytest.raises(DataError, match="--set") as error:
        catalogued(tmp_path, listed=listed, catalogue="artist\nAbba\nThe Weird Al Band\n")
    (flag,) = shlex.split(str(error.value).rpartition("--set ")[2].removesuffix("."))
    key, _, value = flag.partition("=")
    assert key == "data.aliases"
    assert yaml.safe_load(value) == {listed: "The Weird Al Band"}


def test_a_parquet_catalogue_may_call_its_titles_artist(tmp_path):
    pq.write_table(pa.table({"artist": ["Abba", "Blur"]}), tmp_path / "artists.parquet")
    row = {"historyList": ["Abba"], "itemList": ["Abba", "Blur"], "trueSelection": "Abba"}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    tables = candidate_file(tmp_path / "rows.json", items="artists.parquet")
    assert tables.items["title"].to_pylist() == ["Abba", "Blur"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1, "b": 2, "a": 3}]', r"rows\.json: the key 'a' stands twice in one object"),
        ('{"a": 1, "a": 3}', r"rows\.json line 1: the key 'a' stands twice"),
        (
            '{"historyList": ["A"], "trueSelection": "\\ud83d"}',
            r"rows\.json line 1: 'trueSelection' holds half a character",
        ),
    ],
)
def test_json_that_would_lose_something_is_refused(tmp_path, content, message):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(DataError, match=message):
        candidate_file(tmp_path / "rows.json")


@pytest.mark.parametrize("write", [str, json.dumps, lambda titles: json.dumps(titles, indent=1)])
def test_a_list_written_as_text_is_a_list(tmp_path, write):
    titles = ["A, B", "It's", 'The "C"', "D::E", "Ünï\\"]
    row = {"historyList": write(titles), "itemList": ["F", "[REC]"], "trueSelection": "F"}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    found = candidate_file(tmp_path / "rows.json")
    assert set(found.items["title"].to_pylist()) == {*titles, "F", "[REC]"}


@pytest.mark.parametrize(
    "text", ["['A' 'B']", "['A'\n 'B', 'C']", "['A', 3, 'B']", "['A'] + ['B']"]
)
def test_a_list_that_is_written_otherwise_is_refused(tmp_path, text):
    row = {"historyList": text, "itemList": ["F", "G"], "trueSelection": "F"}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"row 1: 'historyList' holds .* a list written as text"):
        candidate_file(tmp_path / "rows.json")
    row["historyList"] = "[REC]::['Til Tuesday]"
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    found = candidate_file(tmp_path / "rows.json").items["title"].to_pylist()
    assert {"[REC]", "['Til Tuesday]"} < set(found)
