"""Preference rows out of a run folder, and back in."""

import json

import numpy as np
import pytest

from conftest import command, log
from palate.config import load_config, parse_config
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources.preferences import preferences
from palate.errors import ConfigError, DataError, DataWarning
from palate.negatives import mixture
from palate.pipeline import run
from palate.policies import load_policy
from palate.policies.language.prompters import new_prompter
from palate.preference_rows import export, rows_of
from palate.run_folder import prepared
from palate.starting_policy import new_policy
from palate.training.preference_sets import PreferenceSets

SMALL = {
    "trackers": [],
    "seed": 5,
    "data": {
        "options": {"n_users": 40, "n_items": 30, "visits": 14},
        "k_core": 2,
        "positives": "window",
        "levels": [4, 5],
    },
    "policy": {"max_history": 4},
    "sft": {"max_steps": 2, "batch_size": 4},
    "align": {"negatives": {"observed": 2, "uniform": 3}},
    "evaluation": {"validation_contexts": 5},
}


def quiet(_line):
    pass


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("export") / "run"
    run(parse_config(SMALL), made, say=quiet, until="prepare")
    return made


@pytest.fixture(scope="module")
def rows(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    done = export(folder, out, epoch=1)
    found = lines(out)
    assert done.rows == len(found) > done.contexts > 30
    assert done.left_out == 0
    return found


def test_the_rows_are_what_alignment_reads_and_draws(folder, rows):
    config = load_config(folder / "config.yaml")
    data = prepared(config, folder)
    contexts, titles = data.contexts("train"), data.titles()
    policy = new_policy(config, data.items)
    negatives = mixture(config.align.negatives, data)
    sets = PreferenceSets(contexts, negatives, config.seed)
    expected = []
    for i in np.argsort([sets[1, i][0].context.context_id for i in range(len(sets))]):
        (one,) = sets[1, int(i)]
        tokens = policy.prompt_tokens(one.context, one.item_ids)
        rejected = [titles[item] for item in one.item_ids[one.levels == 0]]
        expected += [
            {
                "prompt": policy.tokenizer.decode(tokens, skip_special_tokens=True),
                "chosen": titles[item],
                "rejected": rejected,
                "level": level,
            }
            for item, level in zip(one.item_ids, one.levels.tolist(), strict=True)
            if level > 0
        ]
    assert rows == expected
    assert {row["level"] for row in rows} == {1, 2}


def test_read_back_the_titles_are_the_same(folder, rows, tmp_path):
    out = tmp_path / "rows.jsonl"
    export(folder, out, epoch=1)
    with pytest.warns(DataWarning, match="rows repeat the prompt of another row"):
        tables = preferences(out)
    titles = tables.items["title"].to_pylist()
    lists = {}
    for row in tables.lists.to_pylist():
        lists.setdefault(row["user_id"], set()).add(titles[row["item_id"]])
    chosen = [titles[item] for item in tables.interactions["item_id"].to_pylist()]
    assert chosen == [row["chosen"] for row in rows]
    assert [lists[user] for user in range(len(rows))] == [
        {row["chosen"], *row["rejected"]} for row in rows
    ]
    assert [text + "\n" for text in tables.texts["text"].to_pylist()] == [
        row["prompt"] for row in rows
    ]


def test_pairs_in_the_form_of_llama_factory(folder, rows, tmp_path):
    export(folder, tmp_path / "pairs.jsonl", epoch=1, form="llamafactory", one_rejected=True)
    assert lines(tmp_path / "pairs.jsonl") == [
        {
            "instruction": row["prompt"],
            "input": "",
            "chosen": row["chosen"],
            "rejected": rejected,
            "level": row["level"],
        }
        for row in rows
        for rejected in row["rejected"]
    ]
    with pytest.warns(DataWarning, match="rejected in one row and chosen in another"):
        together = preferences(tmp_path / "pairs.jsonl", same_prompt="together")
    assert together.texts is not None
    assert together.texts.num_rows == len({row["prompt"] for row in rows})


def test_another_epoch_draws_anew_and_the_prompts_stay(folder, rows, tmp_path):
    export(folder, tmp_path / "rows.jsonl", epoch=2)
    found = lines(tmp_path / "rows.jsonl")
    assert [row["prompt"] for row in found] == [row["prompt"] for row in rows]
    assert [row["rejected"] for row in found] != [row["rejected"] for row in rows]


def test_a_trained_policy_gives_the_prompts_it_was_saved_with(folder, rows, tmp_path):
    config = parse_config(SMALL | {"policy": {"max_history": 4, "adapter": {"after_sft": "keep"}}})
    trained = tmp_path / "trained"
    run(config, trained, say=quiet, until="sft")
    assert (trained / "sft/base").is_dir()
    prompts = trained / "sft/prompts.txt"
    assert "Chosen so far" in prompts.read_text()
    export(trained, tmp_path / "same.jsonl", epoch=1)
    assert lines(tmp_path / "same.jsonl") == rows
    prompts.write_text("Had:\n{history}\nOne of:\n{candidates}\nNext:\n")
    export(trained, tmp_path / "other.jsonl", epoch=1)
    row = lines(tmp_path / "other.jsonl")[0]
    policy = load_policy(trained / "sft")
    data = prepared(config, trained)
    (one,) = PreferenceSets(data.contexts("train"), mixture(config.align.negatives, data), 5)[1, 0]
    tokens = policy.prompt_tokens(one.context, one.item_ids)
    assert row["prompt"] == policy.tokenizer.decode(tokens, skip_special_tokens=True)
    assert set(row["rejected"]) < set(row["prompt"].splitlines())


def test_a_sequence_run_gets_its_histories_as_titles(tmp_path):
    config = parse_config(SMALL | {"policy": {"kind": "sequence", "max_history": 50}})
    run(config, tmp_path / "run", say=quiet, until="prepare")
    export(tmp_path / "run", tmp_path / "rows.jsonl", split="test")
    data = prepared(config, tmp_path / "run")
    titles, found = data.titles(), lines(tmp_path / "rows.jsonl")
    context = data.contexts("test")[0]
    said = found[0]["prompt"].splitlines()
    assert said[1:] == [titles[item] for item in context.history]
    assert found[0]["chosen"] == titles[context.positives[0]]


def test_items_of_one_title_do_not_contradict_each_other(tmp_path):
    tables = log([(u, i, t, 5) for u in range(6) for t, i in enumerate([1, 2, 3, 4])])
    same = tables.items.set_column(1, "title", [["Emma", "Emma ", "Up", "Emma"]])
    prepare(type(tables)(tables.interactions, same), tmp_path / "data", Preparation(k_core=1), 0)
    data = Prepared(tmp_path / "data", window=1)
    titles = [title.strip() for title in data.titles()]
    prompter = new_prompter("tiny", data.items, "history", 5, 0)
    negatives = mixture({"uniform": 4}, data, exclude_history=False)
    context = data.contexts("test")[0]
    (row,) = rows_of(context, titles, prompter, negatives, (0, 0))
    assert (row.chosen, row.rejected) == ("Emma", ["Up"])
    only = mixture({"uniform": 4}, data)  # Up is in the history
    assert rows_of(context, titles, prompter, only, (0, 0)) == []


def test_what_is_not_to_be_written_is_left_alone(folder, tmp_path):
    out = tmp_path / "rows.jsonl"
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already\. Add --overwrite"):
        export(folder, out)
    assert out.read_text() == "mine"
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.jsonl"):
        export(folder, tmp_path / "rows.parquet")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        export(folder, tmp_path / "folder.jsonl", overwrite=True)
    with pytest.raises(ConfigError, match="is not a run folder"):
        export(tmp_path, tmp_path / "new.jsonl")
    with pytest.raises(ConfigError, match="--epoch -1"):
        export(folder, tmp_path / "new.jsonl", epoch=-1)
    export(folder, out, split="validation", overwrite=True)
    assert lines(out)


def test_contexts_without_negatives_are_left_out_and_said(folder, tmp_path):
    data = prepared(load_config(folder / "config.yaml"), folder)
    contexts = data.contexts("train")
    users, items = data.truth_ids()
    one = contexts[0]
    other = np.setdiff1d(np.arange(data.n_items), [*one.history, *one.positives])[0]
    listed, out = tmp_path / "fixed.csv", tmp_path / "rows.jsonl"
    align = {
        "negatives": {"fixed": 2},
        "sampler_options": {"fixed": {"path": str(listed)}},
        "exclude_history": False,
    }
    listed.write_text(f"user_id,item_id\n{users[one.user_id]},{items[other]}\n")
    run(parse_config(SMALL | {"align": align}), tmp_path / "run", say=quiet, until="prepare")
    n_own = int((contexts.users == one.user_id).sum())
    with pytest.warns(DataWarning, match=rf"{len(contexts) - n_own} of {len(contexts)} contexts"):
        export(tmp_path / "run", out)
    assert {row["rejected"][0] for row in lines(out)} == {data.titles()[other]}
    out.unlink()
    listed.write_text("user_id,item_id\n")
    with pytest.raises(DataError, match=r"none of the \d+ contexts of the train split .* fixed"):
        export(tmp_path / "run", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixed.csv", "run"]


def test_the_command(folder, tmp_path):
    out = tmp_path / "rows.jsonl"
    done = command("export", folder, "--out", out, "--split", "test", "--one-rejected")
    assert done.returncode == 0, done.stderr
    assert f"{len(lines(out)):,} rows of " in done.stdout
    assert isinstance(lines(out)[0]["rejected"], str)
    again = command("export", folder, "--out", out)
    assert again.returncode == 2
    assert again.stderr.startswith("palate: --out ")
    assert len(again.stderr.splitlines()) == 1
