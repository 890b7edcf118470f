"""The users one can look at: whose lists they are, and that nobody chose them."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from palate.config import parse_config
from palate.evaluation.examples import EXAMPLES, HISTORY, SCHEMA
from palate.pipeline import run
from palate.policies import load_policy
from palate.run_folder import prepared

SMALL = {
    "trackers": [],
    "data": {"options": {"n_users": 60, "n_items": 60, "visits": 16}, "k_core": 2},
    "policy": {"kind": "sequence", "sequence": {"hidden": 16, "inner": 16, "dropout": 0.1}},
    "sft": {"max_steps": 5, "batch_size": 8},
    "align": {"max_steps": 4, "batch_size": 8, "negatives": {"uniform": 3}},
    "evaluation": {"validation_contexts": 10, "bootstrap": 100},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("examples") / "run"
    run(parse_config(SMALL), path, say=lambda _line: None)
    return path


@pytest.fixture(scope="module")
def rows(folder):
    table = pq.read_table(folder / "examples.parquet")
    assert table.schema.equals(SCHEMA)
    return table.to_pylist()


def test_lists_are_those_of_the_saved_policies(folder, rows):
    data = prepared(parse_config(SMALL), folder)
    contexts = {context.context_id: context for context in data.contexts("test")}
    policies = {stage: load_policy(folder / stage) for stage in ("sft", "aligned")}
    assert len(rows) == EXAMPLES
    for row in rows:
        context = contexts[row["context_id"]]
        assert [item["item_id"] for item in row["held_out"]] == context.positives.tolist()
        stages = {stage["stage"]: stage for stage in row["stages"]}
        assert set(stages) == {"sft", "sft_continued", "aligned"}
        for stage, policy in policies.items():
            expected = policy.rank([context], top=10).item_ids[0].tolist()
            assert [item["item_id"] for item in stages[stage]["items"]] == expected


def test_ranks_and_titles_are_those_of_the_run(folder, rows):
    ranks = pq.read_table(folder / "ranks.parquet").to_pylist()
    of = {
        (one["stage"], one["context_id"], one["item_id"]): one["rank"]
        for one in ranks
        if one["protocol"] == "catalogue"
    }
    titles = pq.read_table(folder / "data" / "items.parquet")["title"].to_pylist()
    for row in rows:
        for stage in row["stages"]:
            expected = [
                of[stage["stage"], row["context_id"], item["item_id"]] for item in row["held_out"]
            ]
            assert stage["ranks"] == expected
            assert all(item["title"] == titles[item["item_id"]] for item in stage["items"])


def test_histories_are_the_last_items_with_what_was_felt(folder, rows):
    log = pq.read_table(folder / "data" / "interactions.parquet").to_pylist()
    for row in rows:
        user = log[row["context_id"]]["user_id"]
        before = [one for one in log[: row["context_id"]] if one["user_id"] == user]
        assert row["history_length"] == len(before)
        assert [item["item_id"] for item in row["history"]] == [
            one["item_id"] for one in before[-HISTORY:]
        ]
        assert [item["felt"] for item in row["history"]] == [
            "liked" if one["level"] > 0 else "disliked" if one["disliked"] else ""
            for one in before[-HISTORY:]
        ]


def test_the_seed_chooses_them_and_nothing_else(rows, folder):
    chosen = [row["context_id"] for row in rows]
    assert chosen == sorted(set(chosen))
    every = [c.context_id for c in prepared(parse_config(SMALL), folder).contexts("test")]
    assert set(chosen) < set(every)
    places = np.searchsorted(every, chosen)
    assert places.min() < len(every) / 3
    assert places.max() > 2 * len(every) / 3


def test_a_small_catalogue_never_shows_the_history(tmp_path):
    lines = [f"u{user},i{(user + place) % 16}" for user in range(30) for place in range(12)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    log = str(tmp_path / "log.csv")
    data = {"source": "files", "path": log, "k_core": 1, "order": "rows"}
    run(parse_config({**SMALL, "data": data}), tmp_path / "run", say=lambda _line: None)
    for row in pq.read_table(tmp_path / "run" / "examples.parquet").to_pylist():
        had = {item["item_id"] for item in row["history"]}
        assert len(had) == 11
        for stage in row["stages"]:
            listed = {item["item_id"] for item in stage["items"]}
            assert len(listed) == 5
            assert had.isdisjoint(listed)
