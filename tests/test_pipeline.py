"""The whole road on a small simulated log, through the command line a user types."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

import palate
from conftest import command
from palate.audit import audit, read_audit
from palate.files import write_json

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
    "policy": {"max_history": 5},
    "sft": {"max_steps": 12, "batch_size": 8, "evaluations": 2, "log_every": 2},
    "align": {
        "max_steps": 6,
        "batch_size": 8,
        "negatives": {"observed": 2, "uniform": 3},
        "evaluations": 10,
        "log_every": 2,
    },
    "evaluation": {"validation_contexts": 20, "bootstrap": 100},
}


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture(scope="module")
def finished(config_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    done = command("run", config_path, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_run_folder_holds_what_it_should(finished):
    folder, output = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.yaml",
        "data.json",
        "data",
        "sft",
        "sft_continued",
        "aligned",
        "train.jsonl",
        "tensorboard",
        "candidates.parquet",
        "ranks.parquet",
        "metrics.json",
        "audit.json",
        "examples.parquet",
        "table.md",
        "report.html",
    }
    for stage in ("random", "popularity", "markov", "sft", "aligned", "oracle"):
        assert stage in output
    metrics = json.loads((folder / "metrics.json").read_text())
    value = metrics["aligned"]["catalogue"]["ndcg@10"]
    assert value["low"] <= value["value"] <= value["high"]
    assert {"value", "low", "high", "p", "n_users"} == set(
        metrics["difference"]["catalogue"]["ndcg@10"]
    )
    assert metrics["differences"]["aligned-sft"] == metrics["difference"]
    assert output.endswith(f"report: {folder / 'report.html'}\n")
    manifest = json.loads((folder / "data.json").read_text())
    assert len(manifest["sha256"]["candidates.parquet"]) == 64
    lines = [json.loads(line) for line in (folder / "train.jsonl").open()]
    assert {line["stage"] for line in lines} == {"sft", "align", "sft_continued"}
    assert any("rewards/accuracies" in line for line in lines)


def test_a_run_audits_its_own_data_and_leaks_stand_beside_its_results(
    config_path, finished, tmp_path
):
    folder = finished[0]
    audited = read_audit(folder)
    assert audited == audit(folder)
    assert audited.verdict_on("lists") == "ok"
    assert "without a model" not in finished[1]
    leaking = tmp_path / "leaking"
    shutil.copytree(folder, leaking)
    planted = replace(audited.findings[0], verdict="leak", score=0.5526, null=0.0641)
    write_json(replace(audited, findings=(planted,)).to_json(), leaking / "audit.json")
    again = command("run", config_path, "--out", leaking, "--resume")
    beside = f"leaks, scores without a model: {planted.probe} 0.5526 (redrawn 0.0641)"
    assert beside in again.stdout
    assert beside in (leaking / "table.md").read_text()


def test_ranks_are_in_long_form_and_give_the_metrics(finished):
    folder, _ = finished
    ranks = pq.read_table(folder / "ranks.parquet").to_pylist()
    metrics = json.loads((folder / "metrics.json").read_text())
    for stage in ("popularity", "aligned", "taste_oracle"):
        mine = [
            row["rank"] for row in ranks if row["stage"] == stage and row["protocol"] == "catalogue"
        ]
        hits = sum(rank <= 10 for rank in mine) / len(mine)
        assert metrics[stage]["catalogue"]["hr@10"]["value"] == pytest.approx(hits)


def test_the_difference_is_that_of_the_two_stages(finished):
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    for name, difference in metrics["difference"]["catalogue"].items():
        aligned, sft = (metrics[s]["catalogue"][name]["value"] for s in ("aligned", "sft"))
        assert difference["value"] == pytest.approx(aligned - sft, abs=1e-12)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(config_path, finished, tmp_path):
    again = command("run", config_path, "--out", tmp_path / "same")
    other = command("run", config_path, "--out", tmp_path / "other", "--seed", 1)
    assert again.returncode == other.returncode == 0
    first = (finished[0] / "metrics.json").read_text()
    assert (tmp_path / "same" / "metrics.json").read_text() == first
    assert (tmp_path / "other" / "metrics.json").read_text() != first


def test_a_killed_run_resumes_to_the_same_numbers(config_path, finished, tmp_path):
    folder = tmp_path / "killed"
    started = subprocess.Popen(
        [sys.executable, "-m", "palate.cli", "run", str(config_path), "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while started.poll() is None and not list(folder.glob("checkpoints/align/checkpoint-*")):
        pass
    started.kill()
    started.wait()
    assert not (folder / "metrics.json").exists()
    done = command("run", config_path, "--out", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert (folder / "metrics.json").read_text() == (finished[0] / "metrics.json").read_text()


def test_a_saved_policy_ranks(finished):
    policy = palate.load_policy(finished[0] / "aligned")
    from palate.data.prepared import Prepared

    contexts = Prepared(finished[0] / "data", 1).contexts("test")[:3]
    assert policy.rank(contexts, top=5).item_ids.shape == (3, 5)


def test_an_existing_folder_is_not_touched_without_a_flag(config_path, finished, tmp_path):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    refused = command("run", config_path, "--out", folder)
    assert refused.returncode == 2
    assert "already holds a run. Add --resume" in refused.stderr
    changed = command("run", config_path, "--out", folder, "--resume", "--set", "align.beta=3")
    assert changed.returncode == 2
    assert "another configuration (align.beta)" in changed.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    for flags in ([], ["--overwrite"]):
        refused = command("run", config_path, "--out", mine, *flags)
        assert refused.returncode == 2
        assert (mine / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", EXAMPLES / "demo.yaml", "--set", "policy.prompts=histroy"], "'history'"),
        (["run", EXAMPLES / "demo.yaml", "--set", "policy.base=tinny"], "policy.base: 'tinny'"),
        (["run", EXAMPLES / "demo.yaml", "--set", "policy.base=/nope"], "no such folder: '/nope'"),
        (["run", EXAMPLES / "demo.yaml", "--set", "policy.base=./m/x"], "no such folder: './m/x'"),
        (["run", EXAMPLES / "demo.yaml", "--set", "trackers=[wandbb]"], "is not installed"),
        (
            ["run", EXAMPLES / "demo.yaml", "--set", "policy.prompts=history_and_candidates"],
            "cannot rank the whole catalogue",
        ),
        (["run", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["run", EXAMPLES / "demo.yaml", "--set", "aling.beta=1"], "Did you mean 'align'?"),
        (["run", EXAMPLES / "demo.yaml", "--set", "align.objective=dop"], "'dop' is unknown"),
        (["run", EXAMPLES / "demo.yaml", "--set", "align.beta=-1"], "align.beta"),
        (["run", EXAMPLES / "demo.yaml", "--set", "data.k_core=999"], "no interactions are left"),
        (["run", EXAMPLES / "demo.yaml", "--overwrte"], "Did you mean --overwrite"),
        (["run", EXAMPLES / "demo.yaml", "--device", "tpu9"], "is not one of auto, cpu, cuda"),
        (["run", EXAMPLES / "movielens.yaml", "--set", "data.path=/nowhere"], "does not exist"),
        (["rnu"], "rnu"),
    ],
)
def test_a_mistake_is_one_sentence_exit_code_2_and_nothing_written(arguments, sentence, tmp_path):
    out = ["--out", tmp_path / "out"] if arguments[0] == "run" else []
    refused = command(*arguments, *out)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_examples_are_valid_and_headed_by_their_command():
    for path in EXAMPLES.glob("*.yaml"):
        assert path.read_text().startswith(f"# palate run examples/{path.name}")
        done = command("run", path, "--print-config")
        assert done.returncode == 0
        assert yaml.safe_load(done.stdout)["align"]["objective"]


def test_help_sources_and_doctor():
    assert "Examples:" in command("run", "--help").stdout
    assert "data.options.n_users = 1000" in command("sources").stdout
    assert "device auto means" in command("doctor").stdout
