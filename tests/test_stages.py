"""Stages one by one, their changes, and what is refused before anything is written."""

import json
from hashlib import sha512

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import BloomConfig

from palate.config import parse_config
from palate.data.contexts import Context
from palate.errors import CheckpointError, ConfigError, DataError, DataWarning, PalateError
from palate.pipeline import go_on, run
from palate.recommend import policy_of, popularity_of, recommend, write_lists
from palate.report.table import table_rows
from policies.architectures import model_of
from policies.small_tokenizers import tokenizer_of

SMALL = {
    "trackers": [],
    "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
    "policy": {"kind": "sequence", "sequence": {"hidden": 16, "inner": 16, "dropout": 0.1}},
    "sft": {"max_steps": 10, "batch_size": 8, "evaluations": 2, "learning_rate": 3e-3},
    "align": {"max_steps": 4, "batch_size": 8, "negatives": {"uniform": 3}},
    "evaluation": {"validation_contexts": 20, "bootstrap": 100},
}


def config(**changes):
    sections = {
        name: dict(section) if isinstance(section, dict) else section
        for name, section in SMALL.items()
    }
    for key, value in changes.items():
        section, name = key.split("__")
        sections[section][name] = value
    return parse_config(sections)


def quiet(_line):
    pass


def numbers(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages") / "whole"
    run(config(), folder, say=quiet)
    return folder


def test_stage_by_stage_ends_with_the_numbers_of_one_run(whole, tmp_path):
    folder = tmp_path / "steps"
    assert run(config(), folder, say=quiet, until="prepare") == {}
    assert not (folder / "sft").exists()
    assert go_on(folder, "sft", say=quiet) == {}
    assert not (folder / "aligned").exists()
    first = go_on(folder, "evaluate", say=quiet)
    assert "aligned" not in first
    assert "sft" in first
    go_on(folder, "align", say=quiet)
    assert go_on(folder, "evaluate", say=quiet) == numbers(whole)


def test_a_later_stage_may_be_changed_in_a_new_folder(whole, tmp_path):
    before = (whole / "metrics.json").read_text()
    out = tmp_path / "branch"
    go_on(whole, "align", ["align.objective=lipo", "align.beta=0.5"], out, quiet)
    metrics = go_on(out, "evaluate", say=quiet)
    assert metrics["sft"] == numbers(whole)["sft"]
    weights = [folder / "aligned" / "model.safetensors" for folder in (whole, out)]
    assert weights[0].read_bytes() != weights[1].read_bytes()
    assert "objective: lipo" in (out / "config.yaml").read_text()
    assert (whole / "metrics.json").read_text() == before


def test_a_cached_reference_serves_the_runs_from_one_sft_and_no_other(whole, tmp_path):
    own = tmp_path / "own"
    run(config(align__reference="cached"), own, say=quiet, until="align")
    kept = own / "checkpoints" / "reference" / "fp32"
    assert (kept / "reference.json").is_file()
    assert go_on(own, "evaluate", say=quiet)["aligned"] == numbers(whole)["aligned"]
    assert not (own / "checkpoints").exists()
    cached = ["align.reference=cached", f"align.reference_cache={tmp_path / 'cache'}"]
    contents = []
    for objective in ("s_dpo", "lipo"):
        out = tmp_path / objective
        go_on(whole, "align", [*cached, f"align.objective={objective}"], out, quiet)
        contents.append((tmp_path / "cache" / "scores.sqlite").read_bytes())
    assert contents[0] == contents[1]
    run(config(sft__learning_rate=1e-3), tmp_path / "other", say=quiet, until="sft")
    with pytest.raises(CheckpointError, match="computed with other weights; give a folder"):
        go_on(tmp_path / "other", "align", cached, say=quiet)


def test_an_evaluation_may_be_changed_in_place_and_is_made_anew(whole, tmp_path):
    out = tmp_path / "allowed"
    seen = go_on(whole, "evaluate", ["evaluation.exclude_history=false"], out, quiet)
    assert seen["sft"]["catalogue"]["ndcg@10"] != numbers(whole)["sft"]["catalogue"]["ndcg@10"]
    again = go_on(out, "evaluate", ["evaluation.cutoffs=[3]"], say=quiet)
    assert "ndcg@3" in again["sft"]["catalogue"]
    assert "hr@20" not in again["sft"]["catalogue"]


def test_changes_that_come_too_late_are_refused(whole, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    for stage, change, sentence in [
        ("align", "align.beta=3", "aligned was made with another value. Go on in a new folder"),
        ("align", "sft.max_steps=3", "sft was made with another value"),
        ("evaluate", "data.k_core=3", "Prepare anew: palate prepare"),
        ("align", "seed=3", "Prepare anew: palate prepare"),
        ("evaluate", "evaluation.exclude_history=false", "palate evaluate .* --out NEW"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            go_on(whole, stage, [change], say=quiet)
    with pytest.raises(ConfigError, match=r"sft was made with another value"):
        go_on(whole, "align", ["sft.max_steps=3"], tmp_path / "new", quiet)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert not (tmp_path / "new").exists()


def test_alignment_after_an_evaluation_makes_the_run_unfinished(tmp_path):
    folder = tmp_path / "one"
    run(config(), folder, say=quiet, until="sft")
    go_on(folder, "evaluate", say=quiet)
    go_on(folder, "align", ["align.workers=1"], say=quiet)
    assert not (folder / "metrics.json").exists()
    (folder / "candidates.parquet").write_text("of an evaluation that was killed")
    fewer = go_on(folder, "evaluate", ["evaluation.test_contexts=9"], say=quiet)
    assert fewer["test_contexts"]["used"] == 9
    assert "aligned" in fewer


def test_a_stage_needs_the_one_before(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run folder. Make one with: palate prepare"):
        go_on(tmp_path, "sft", say=quiet)
    run(config(), tmp_path / "one", say=quiet, until="prepare")
    with pytest.raises(ConfigError, match=r"has no sft. First: palate sft"):
        go_on(tmp_path / "one", "align", say=quiet)
    with pytest.raises(ConfigError, match=r"has no sft. First: palate sft"):
        go_on(tmp_path / "one", "evaluate", say=quiet)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy__prompts": "x", "policy__kind": "language"}, "neither a file nor built in"),
        ({"policy__prompts": "dialogue", "policy__kind": "language"}, "gives no dialogues"),
        ({"policy__base": "/nowhere"}, "is no folder of a saved policy"),
        ({"policy__adapter": {}}, "are for language models"),
        ({"align__reference": "adapter_off"}, "adapter_off needs a policy with an adapter"),
        ({"policy__quantize": True, "policy__kind": "language"}, "4-bit weights cannot train"),
        (
            {"policy__quantize": True, "policy__kind": "language", "policy__adapter": {},
             "policy__base": "EleutherAI/pythia-70m"},
            "policy.quantize needs a CUDA device",
        ),
        ({"evaluation__protocols": ["catalogue", "generation"]}, "only a language policy can"),
        ({"data__levels": [9.0]}, "no rating reaches 9.0, so nothing counts as liked"),
        ({"data__split": "given"}, "this source has no split of its own"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_written(changes, sentence, tmp_path):
    with pytest.raises(PalateError, match=sentence):
        run(config(**changes), tmp_path / "out", say=quiet)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_catalogue_is_refused(whole, tmp_path):
    other = config(policy__base=str(whole / "sft"), data__options={"n_users": 60, "n_items": 30})
    with pytest.raises(CheckpointError, match="the saved sequence policy knows a catalogue of"):
        run(other, tmp_path / "out", say=quiet)
    assert not list(tmp_path.iterdir())


def test_a_saved_sequence_policy_is_where_another_run_starts(whole, tmp_path):
    more = config(policy__base=str(whole / "sft"))
    said: list[str] = []
    metrics = run(more, tmp_path / "out", say=said.append)
    assert metrics["sft"] != numbers(whole)["sft"]
    assert "sft: policy.base has a shape of its own; policy.sequence is passed over" in said


def files(folder, log, **options):
    path = folder / "log.csv"
    path.write_text(log)
    return {
        "data__source": "files",
        "data__path": str(path),
        "data__options": options,
        "data__k_core": 1,
    }


@pytest.mark.parametrize(
    ("log", "changes", "sentence"),
    [
        ("user_id,item_id,rating\n1,2,nan\n1,3,5\n", {}, r"log.csv line 2: rating 'nan'"),
        (
            "user_id,item_id\n1,2\n1,3\n",
            {"data__split": "global_time"},
            "needs a timestamp column, which this source does not give",
        ),
        (
            "user_id,item_id\n1,2\n2,3\n",
            {"data__order": "rows"},
            "no context with a history and a liked item",
        ),
        ("user_id,item_id\n1,2\n2,3\n", {}, "neither timestamps nor positions"),
    ],
)
def test_bad_logs_are_one_sentence_and_leave_nothing(log, changes, sentence, tmp_path):
    given = config(**{**files(tmp_path, log), **changes})
    with pytest.raises(DataError, match=sentence):
        run(given, tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


def candidates(folder, **changes):
    titles = [f"Song {number}" for number in range(12)]
    for split, rows in (("train", 16), ("val", 6), ("test", 6)):
        made = []
        for row in range(rows):
            shown = [titles[(row * 5 + k * k + 3) % 12] for k in range(4)]
            history = [title for title in titles if title not in shown][: 3 + row % 3]
            made.append(
                {
                    "historyList": history,
                    "itemList": list(dict.fromkeys(shown)),
                    "trueSelection": shown[1],
                }
            )
        if split == "train":
            made[0] |= changes
        (folder / f"{split}.json").write_text(json.dumps(made))
    return {"data__source": "candidate_file", "data__path": str(folder), "data__k_core": None,
            "data__options": {}, "policy__kind": "language", "policy__sequence": {},
            "policy__prompts": "history_and_candidates", "policy__max_history": 4,
            "align__negatives": {"fixed": 3},
            "evaluation__protocols": ["candidates", "generation"]}  # fmt: skip


@pytest.mark.parametrize("prompts", ["history_and_candidates", "history"])
def test_candidate_files_are_ranked_as_they_are_and_written_freely(prompts, tmp_path):
    given = {**candidates(tmp_path), "policy__prompts": prompts}
    metrics = run(config(**given), tmp_path / "out", say=quiet)
    written = pq.read_table(tmp_path / "out" / "generations.parquet").to_pylist()
    mine = [row for row in written if row["stage"] == "aligned"]
    assert len(mine) == 6
    found = metrics["aligned"]["generation"]
    assert found["valid_ratio"]["value"] == pytest.approx(np.mean([row["valid"] for row in mine]))
    assert found["hit_ratio@1"]["value"] == pytest.approx(np.mean([row["hit"] for row in mine]))
    assert set(metrics["difference"]["generation"]) == {"valid_ratio", "hit_ratio@1"}
    header, rows = table_rows(metrics, candidates=20)  # not the length of the given lists
    assert header == ["stage", "HR@1|4", "95 % interval", "ValidRatio", "HitRatio@1"]
    assert {row[0]: row[3] for row in rows}["aligned"] == f"{found['valid_ratio']['value']:.4f}"
    kept = pq.read_table(tmp_path / "out" / "candidates.parquet").to_pylist()
    titles = pq.read_table(tmp_path / "out" / "data" / "items.parquet")["title"].to_pylist()
    rows = json.loads((tmp_path / "test.json").read_text())
    assert [[titles[i] for i in row["item_ids"] if i >= 0] for row in kept] == [
        row["itemList"] for row in rows
    ]
    assert (
        "candidates.parquet" in json.loads((tmp_path / "out" / "data.json").read_text())["sha256"]
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"historyList": []}, r"train.json row 1.*historyList"),
        ({"trueSelection": "Sonk 3"}, "trueSelection"),
    ],
)
def test_bad_candidate_rows_are_one_sentence_and_leave_nothing(changes, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence):
        run(config(**candidates(tmp_path, **changes)), tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


def test_a_very_long_title_is_cut_and_said(tmp_path):
    log = "".join(f"{u},{(u * 3 + i) % 9},{i}\n" for u in range(12) for i in range(6))
    items = "item_id,title\n" + "".join(f"{i},{'x' * 10_000 if i == 4 else i}\n" for i in range(9))
    (tmp_path / "items.csv").write_text(items)
    given = config(**files(tmp_path, "user_id,item_id,timestamp\n" + log, items="items.csv"))
    with pytest.warns(DataWarning, match="cut 1 of 9 titles to 300 characters"):
        run(given, tmp_path / "out", say=quiet, until="prepare")
    titles = pq.read_table(tmp_path / "out" / "data" / "items.parquet")["title"].to_pylist()
    assert max(map(len, titles)) == 300


def test_prompts_that_lose_items_for_want_of_room_are_counted(tmp_path):
    """25 titles of 64 tokens are more than the 1,024 tokens that the model reads."""
    log = "".join(f"{u},{(u + i) % 30},{i}\n" for u in range(6) for i in range(27))
    titles = [sha512(str(item).encode()).hexdigest() * 2 for item in range(30)]
    items = "".join(f"{item},{title}\n" for item, title in enumerate(titles))
    (tmp_path / "items.csv").write_text("item_id,title\n" + items)
    given = files(tmp_path, "user_id,item_id,timestamp\n" + log, items="items.csv")
    given |= {"policy__kind": "language", "policy__max_history": 25, "sft__max_steps": 1}
    with pytest.warns(DataWarning, match=r"the prompts of 72 of 156 contexts leave out \d+ of"):
        run(config(**given), tmp_path / "out", say=quiet, until="sft")


def test_lists_for_people_without_an_answer(whole, tmp_path):
    policy = policy_of(whole)
    known = policy.items["source_id"].to_pylist()
    log = tmp_path / "visits.csv"
    log.write_text(f"who,what\nann,{known[0]}\nbob,{known[3]}\nann,{known[5]}\n")
    lists = recommend(policy, log, {"user_id": "who", "item_id": "what"}, top=4)
    assert lists["user_id"].to_pylist() == ["ann"] * 4 + ["bob"] * 4
    assert lists["rank"].to_pylist() == [1, 2, 3, 4] * 2
    none = np.empty(0, np.int64)
    ranking = policy.rank([Context(np.array([0, 5]), none, none)], top=4)
    assert lists["item_id"].to_pylist()[:4] == [known[item] for item in ranking.item_ids[0]]
    assert known[0] not in lists["item_id"].to_pylist()[:4]
    write_lists(lists, tmp_path / "lists.csv")
    assert (tmp_path / "lists.csv").read_text().splitlines()[0].count(",") == 5


def test_lists_for_a_log_with_unknown_items(whole, tmp_path):
    policy = policy_of(whole)
    known = policy.items["source_id"].to_pylist()
    log = tmp_path / "visits.csv"
    log.write_text(f"user_id,item_id\n1,99999\n1,{known[0]}\n")
    with pytest.warns(DataWarning, match="1 of 2 rows name an item that the policy does not know"):
        assert len(recommend(policy, log, {}, top=3)) == 3
    log.write_text("user_id,item_id\n1,99999\n")
    with pytest.raises(DataError, match="none of its 1 rows names an item that the policy knows"):
        recommend(policy, log, {}, top=3)
    popularity = popularity_of(whole, policy)
    with pytest.warns(DataWarning) as told:  # a newcomer, as beside others
        lists = recommend(policy, log, {}, top=3, popularity=popularity)
    assert lists["by"].to_pylist() == ["popularity"] * 3
    best = np.argsort(-popularity, kind="stable")[:3]
    assert lists["item_id"].to_pylist() == [known[item] for item in best]
    said = " ".join(str(one.message) for one in told)
    assert f"none of its 1 rows names an item that the policy knows, such as {known[0]}" in said
    assert "1 of 1 people have no item that the policy knows" in said


def test_a_change_that_does_not_fit_the_data_leaves_the_folder_as_it_was(whole, tmp_path):
    folder = tmp_path / "one"
    run(config(), folder, say=quiet, until="prepare")
    before = (folder / "config.yaml").read_text()
    changes = ["policy.kind=language", "policy.prompts=dialogue"]
    with pytest.raises(ConfigError, match="gives no dialogues"):
        go_on(folder, "sft", changes, say=quiet)
    with pytest.raises(ConfigError, match="gives no dialogues"):
        go_on(folder, "sft", changes, tmp_path / "new", quiet)
    assert (folder / "config.yaml").read_text() == before
    assert not (tmp_path / "new").exists()


def test_beams_of_a_model_that_reads_no_trees_are_refused_before_it_learns(tmp_path):
    tokenizer = tokenizer_of("byte_level_llama3")
    shape = {"hidden_size": 16, "n_layer": 1, "n_head": 2, "vocab_size": len(tokenizer)}
    base = tmp_path / "bloom"
    model_of(BloomConfig(**shape)).save_pretrained(base)  # ALiBi knows no positions
    tokenizer.save_pretrained(base)
    beams = parse_config(
        SMALL
        | {
            "policy": {"base": str(base), "max_history": 4},
            "align": {"negatives": {"self_play": 1}, "pool": {"kind": "beam"}},
        }
    )
    with (
        pytest.warns(DataWarning, match="each title is scored alone"),
        pytest.raises(ConfigError, match=r"beams need titles read as a tree.*pool\.kind=uniform"),
    ):
        run(beams, tmp_path / "run", say=quiet)
    assert not (tmp_path / "run" / "checkpoints").exists()
