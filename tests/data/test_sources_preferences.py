"""Preference rows of TRL and LLaMA-Factory."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources import check_options, load
from palate.data.sources.preferences import preferences
from palate.data.tables import check_tables
from palate.errors import DataError, DataWarning
from palate.negatives import mixture
from palate.policies import LanguagePolicy

ASKED = "Chosen so far:\nAlien\nWhat next?"
TRL = {"prompt": ASKED, "chosen": " Heat", "rejected": ["Thor", "Up"]}


def user(words):
    return {"role": "user", "content": words}


def human(words):
    return {"from": "human", "value": words}


def answer(title):
    return {"role": "assistant", "content": title}


def gpt(title):
    return {"from": "gpt", "value": title}


@pytest.fixture
def written(tmp_path):
    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def by_title(tables):
    """(text, right answers, others) of each user, by title; the titles are sorted."""
    check_tables(tables)
    titles = dict(zip(*tables.items.select(["item_id", "title"]).to_pydict().values(), strict=True))
    texts = {row["user_id"]: row["text"] for row in tables.texts.to_pylist()}
    found = {user: (text, [], []) for user, text in texts.items()}
    for row in tables.interactions.to_pylist():
        found[row["user_id"]][1].append(titles[row["item_id"]])
    for row in tables.lists.to_pylist():
        title = titles[row["item_id"]]
        if title not in found[row["user_id"]][1]:
            found[row["user_id"]][2].append(title)
    return [(text, sorted(right), sorted(other)) for text, right, other in found.values()]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (TRL, ASKED),
        (TRL | {"prompt": ASKED + "\n"}, ASKED),
        (
            {
                "prompt": [user(ASKED)],
                "chosen": [answer("Heat")],
                "rejected": [[answer("Thor")], [answer("Up")]],
            },
            ASKED,
        ),
        (
            {
                "prompt": [user("Hi"), answer("Hello"), user("A film?")],
                "chosen": answer("Heat"),
                "rejected": [answer("Thor"), answer("Up")],
            },
            "User: Hi\nAssistant: Hello\nUser: A film?",
        ),
        (
            {
                "instruction": "Pick one.",
                "input": "Alien",
                "system": "You know films.",
                "chosen": "Heat",
                "rejected": ["Up", "Thor", "Up"],
            },
            "You know films.\nPick one.\nAlien",
        ),
        (
            {
                "instruction": "And now?",
                "input": "",
                "history": [["One film?", "Alien"]],
                "chosen": "Heat",
                "rejected": ["Up", "Thor"],
                "system": None,
            },
            "User: One film?\nAssistant: Alien\nUser: And now?",
        ),
        (
            {
                "conversations": [human("Hi"), gpt("Hello"), human("A film?")],
                "chosen": gpt("Heat"),
                "rejected": [gpt("Thor"), gpt("Up")],
            },
            "User: Hi\nAssistant: Hello\nUser: A film?",
        ),
    ],
)
def test_every_form_gives_prompt_answer_and_rejected_titles(written, row, text):
    assert by_title(preferences(written([row]))) == [(text, ["Heat"], ["Thor", "Up"])]


def test_every_row_is_a_user_with_one_turn(written):
    other = {"prompt": "Two?", "chosen": ["Up", "Heat"], "rejected": "Thor"}
    tables = preferences(written([TRL, other]))
    assert by_title(tables)[1] == ("Two?", ["Heat", "Up"], ["Thor"])
    assert tables.interactions["user_id"].to_pylist() == [0, 1, 1]
    assert tables.interactions["turn"].to_pylist() == [0, 0, 0]
    assert "split" not in tables.interactions.column_names
    assert tables.origin["counts"] == {"rows": 2, "contexts": 2, "titles_repeated": 0}


def test_the_order_of_a_list_does_not_give_the_answer_away(written):
    n, size = 600, 4
    rows = [
        {"prompt": f"{i}?", "chosen": f"c{i}", "rejected": [f"r{i} {j}" for j in range(size - 1)]}
        for i in range(n)
    ]
    tables = preferences(written(rows))
    assert tables.lists is not None
    right = set(tables.interactions["item_id"].to_pylist())
    listed = tables.lists["item_id"].to_pylist()
    places = [i % size for i, item in enumerate(listed) if item in right]
    counts = [places.count(place) for place in range(size)]
    # 150 each, with a standard deviation of 10.6
    assert len(places) == n
    assert all(110 < count < 190 for count in counts)
    again = preferences(written(rows))
    assert again.lists is not None
    assert again.lists.equals(tables.lists)


def test_a_run_reads_the_prompt_verbatim_and_draws_what_was_rejected(written, tmp_path):
    rows = [TRL | {"prompt": f"{ASKED} ({i})\n"} for i in range(40)]
    prepare(preferences(written(rows)), tmp_path / "data", Preparation(), seed=0)
    data = Prepared(tmp_path / "data", window=1)
    policy = LanguagePolicy.create("tiny", data.items, "prompt", max_history=5, seed=0)
    titles, negatives = data.titles(), mixture({"fixed": 5}, data)
    assert sum(len(data.contexts(split)) for split in ("train", "validation", "test")) == 40
    for context in data.contexts("train"):
        read = policy.tokenizer.decode(policy.prompt_tokens(context), skip_special_tokens=True)
        assert read == rows[context.user_id]["prompt"]
        assert [titles[item] for item in context.positives] == ["Heat"]
        assert {titles[item] for item in negatives.draw(context, (0, 0))} == {"Thor", "Up"}


def test_files_by_name_give_the_splits(written, tmp_path):
    pq.write_table(pa.Table.from_pylist([TRL]), tmp_path / "train-00000-of-00002.parquet")
    second = TRL | {"chosen": "Jaws"}
    pq.write_table(pa.Table.from_pylist([second]), tmp_path / "train-00001-of-00002.parquet")
    written([TRL], "val.jsonl")
    (tmp_path / "test.json.gz").write_bytes(gzip.compress(json.dumps([TRL]).encode()))
    (tmp_path / "dataset_info.json").write_text("{}")
    tables = preferences(tmp_path)
    assert tables.interactions["split"].to_pylist() == ["train", "train", "validation", "test"]
    assert len(tables.origin["sha256"]) == 4
    written([TRL], "train.jsonl")
    with pytest.raises(DataError, match=r"train-00000.*, train\.jsonl all look like the train fi"):
        preferences(tmp_path)


def test_parquet_with_messages_and_absent_keys(tmp_path):
    rows = [
        {"conversations": [human("One?")], "chosen": gpt("Heat"), "rejected": gpt("Up")},
        {"conversations": [human("Two?")], "chosen": gpt("Up"), "rejected": gpt("Heat")},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    expected = [("One?", ["Heat"], ["Up"]), ("Two?", ["Up"], ["Heat"])]
    assert by_title(preferences(tmp_path / "rows.parquet")) == expected
    assert by_title(preferences(tmp_path)) == expected


def test_a_catalogue_of_its_own(written, tmp_path):
    (tmp_path / "films.csv").write_text("item_id,title\nh,Heat\nt,Thor\nu,Up\nx,Unseen\n")
    tables = preferences(written([TRL]), items="films.csv")
    assert by_title(tables) == [(ASKED, ["Heat"], ["Thor", "Up"])]
    assert tables.interactions["item_id"].to_pylist() == ["h"]
    assert tables.items.num_rows == 4
    with pytest.raises(DataError, match=r"line 1, chosen: .* title 'Haet'\. Did you mean 'Heat'"):
        preferences(written([TRL | {"chosen": "Haet"}]), items="films.csv")


def test_rows_of_one_prompt_are_told_of_or_put_together(written):
    pairs = [{"prompt": ASKED, "chosen": "Heat", "rejected": title} for title in ("Up", "Thor")]
    with pytest.warns(DataWarning, match="1 of 2 rows repeat the prompt of another row"):
        assert len(by_title(preferences(written(pairs)))) == 2
    together = preferences(written(pairs), same_prompt="together")
    assert by_title(together) == [(ASKED, ["Heat"], ["Thor", "Up"])]
    torn = {"prompt": ASKED, "chosen": "Up", "rejected": "Heat"}
    with pytest.warns(DataWarning, match="2 titles are rejected in one row and chosen in another"):
        together = preferences(written([*pairs, torn]), same_prompt="together")
    assert by_title(together) == [(ASKED, ["Heat", "Up"], ["Thor"])]
    with pytest.raises(DataError, match="no prompt keeps a rejected title"):
        preferences(written([pairs[0], torn]), same_prompt="together")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"chosen": "a b", "rejected": "a c"},
            r"there is no prompt; found chosen, rejected\. .*im",
        ),
        (TRL | {"prompt": None}, r"there is no prompt"),
        (TRL | {"prompt": " \n"}, r"'prompt' is empty"),
        (TRL | {"prompt": 7}, r"'prompt' holds 7; expected a text"),
        (TRL | {"prompt": float("nan")}, r"'prompt' holds nan; expected a text"),
        (TRL | {"prompt": ["a"]}, r"'prompt' holds 'a'; expected a message with role and content"),
        (TRL | {"prompt": [{"role": "tool", "content": "x"}]}, r"role 'tool'; expected system, us"),
        (TRL | {"prompt": [{"role": [], "content": "x"}]}, r"the role \[\]; expected system"),
        ({"prompt": ASKED, "rejected": "Up"}, r"'chosen' is missing; found prompt, rejected\."),
        ({"prompt": ASKED, "chosen": "Up"}, r"'rejected' is missing; found prompt, chosen\."),
        (TRL | {"rejected": []}, r"'rejected' is empty\. Expected at least one title"),
        (TRL | {"rejected": ["Up", "Heat "]}, r"'rejected' holds 'Heat', which is 'chosen' too"),
        (TRL | {"rejected": ["Up", float("nan")]}, r"'rejected' holds nan; expected a text"),
        (TRL | {"chosen": " "}, r"'chosen' holds an empty text; expected a title"),
        (TRL | {"chosen": "x" * 10_000}, r"'chosen' holds a text of 10,000 characters; expected"),
        (TRL | {"chosen": "\ud800"}, r"'chosen' holds half a character"),
        (TRL | {"chosen": [user(ASKED), answer("Heat")]}, r"has a message of the user; .*prompt"),
        ({"instruction": "a", "history": [["q"]], "chosen": "a"}, r"'history' holds \['q'\]; exp"),
        ({"conversations": "a", "chosen": "a"}, r"'conversations' holds 'a'; expected a list of"),
        (["a"], r"expected a JSON object, found \['a'\]"),
    ],
)
def test_bad_rows_are_named_in_one_sentence(written, row, message):
    with pytest.raises(DataError, match=message) as error:
        preferences(written([TRL, row]))
    said = str(error.value)
    assert said.startswith("rows.jsonl line 2: ")
    assert "\n" not in said
    assert len(said) < 400


def test_bad_files_are_refused(written, tmp_path):
    path = written([TRL] * 30, "cut.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz is not a complete gzip file"):
        preferences(tmp_path / "cut.jsonl.gz")
    path.write_text(json.dumps(TRL) + "\n" + json.dumps(TRL)[:30])
    with pytest.raises(DataError, match=r"cut\.jsonl line 2: not valid JSON .* cut off"):
        preferences(path)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"cut\.parquet is not a complete Parquet file"):
        preferences(tmp_path / "cut.parquet")
    with pytest.raises(DataError, match=r"named train, val or test; found cut\.jsonl, "):
        preferences(tmp_path)
    with pytest.raises(DataError, match=r"does not exist\. Expected preference rows"):
        preferences(tmp_path / "nowhere")
    (tmp_path / "rows.csv").write_text("prompt,chosen\n")
    with pytest.raises(DataError, match=r"rows\.csv has an unknown ending"):
        preferences(tmp_path / "rows.csv")


def test_a_rather_long_title_is_cut_as_in_every_source(written):
    path = written([TRL | {"chosen": "x" * 900}])
    with pytest.warns(DataWarning, match="cut 1 of 3 titles to 300 characters"):
        tables = load("preferences", {"path": str(path)})
    assert max(map(len, tables.items["title"].to_pylist())) == 300


def test_options_are_checked():
    (problem,) = check_options("preferences", {"path": "x", "same_prompt": "maybe"})
    assert problem.startswith("data.options.same_prompt: input should be 'apart' or 'together'")


@pytest.mark.parametrize("form", ["{}\n{}\n", "[{},\n{}]"])
def test_a_whole_number_of_thousands_of_digits_is_refused_with_its_line(tmp_path, form):
    good = '{"prompt": "p", "chosen": "a", "rejected": "b"}'
    bad = good[:-1] + f', "n": {"7" * 5000}}}'
    path = tmp_path / "rows.jsonl"
    path.write_text(form.format(good, bad))
    with pytest.raises(DataError, match=r"rows\.jsonl line 2: a whole number has 5000 digits"):
        load("preferences", {"path": str(path)})
