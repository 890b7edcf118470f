"""A sweep that is killed, goes on, grows, and fails in places, through the command a user types."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from palate.cli import main
from palate.comparison import compare
from palate.errors import ConfigError
from palate.policies import load_policy
from palate.sweep import read_over, sweep, sweep_rows
from palate.sweep.lock import locked

SMALL = {
    "trackers": [],
    "data": {"options": {"n_users": 60, "n_items": 40, "visits": 12}, "k_core": 2},
    "policy": {"kind": "sequence", "sequence": {"hidden": 8, "inner": 8, "layers": 1}},
    "sft": {"max_steps": 3, "batch_size": 8, "learning_rate": 3e-3},
    "align": {
        "max_steps": 1,
        "batch_size": 8,
        "learning_rate": 0.1,
        "warmup": 0,
        "negatives": {"uniform": 1},
    },
    "evaluation": {
        "protocols": ["catalogue"],
        "cutoffs": [10],
        "validation_contexts": 5,
        "bootstrap": 100,
    },
}
GRID = (
    "--over=align.objective=dpo,ipo,lipo,dmpo,s_dpo,mult_dpo",
    "--over=align.negatives.uniform=1,3",
    "--seeds=3",
)
TABLES = ("table.json", "table.csv", "table.md")


def arguments(config: Path, out: Path, *flags: str) -> list[str]:
    return ["sweep", str(config), f"--out={out}", *flags]


def started(config: Path, out: Path, *flags: str) -> subprocess.Popen[str]:
    """The command, as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "palate.cli", *arguments(config, out, *flags)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal
    )


def exit_code(monkeypatch, config: Path, out: Path, *flags: str) -> int:
    """The command, here."""
    monkeypatch.setattr("sys.argv", ["palate", *arguments(config, out, *flags)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As many for one process as for each of two: sums in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def finished(out: Path) -> list[Path]:
    """Folders of finished runs."""
    kept = [path for path in out.glob("runs/*/seconds.json") if "evaluate" in path.read_text()]
    return [path.parent for path in kept]


def stamps(folders: list[Path]) -> dict[Path, tuple[int, int]]:
    """Which files stand in some folders, by inode and time of writing."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def times_begun(out: Path, stage: str) -> dict[str, int]:
    """Run → how often its log says that a stage began."""
    return {
        log.stem: sum(line.startswith(f"{stage}:") for line in log.read_text().splitlines())
        for log in out.glob("logs/*.log")
    }


def until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweeps") / "unbroken"
    over = read_over([flag.removeprefix("--over=") for flag in GRID[:2]])
    assert sweep(config, over, seeds=3, out=out, jobs=2, say=lambda _: None).failed == {}
    return out


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_with_the_same_table(
    config, unbroken, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "killed"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed = started(config, out, *GRID)
    until(lambda: len(finished(out)) >= 15)
    workers = children(killed.pid)
    killed.kill()
    killed.communicate()
    until(lambda: not any(map(is_alive, workers)), 10)
    kept = finished(out)
    assert 15 <= len(kept) < 36
    before = stamps([*kept, *(path.parent for path in out.glob("shared/*/seconds.json"))])
    assert not (out / "table.md").exists()

    assert exit_code(monkeypatch, config, out, *GRID) == 0
    assert len(finished(out)) == 36
    after = stamps([out])
    assert {path: after[path] for path in before} == before
    begun = times_begun(out, "align")
    assert all(begun[folder.name] == 1 for folder in kept)
    assert sum(begun.values()) <= 37  # the run that was cut off may have begun twice
    assert sum(times_begun(out, "sft").values()) <= 4
    for name in TABLES:
        assert (out / name).read_bytes() == (unbroken / name).read_bytes()
    said = capsys.readouterr().out
    assert f"its table: {out}/table.md" in said
    assert "runs/objective-mult_dpo+uniform-3-2: done in" in said
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_preparation_imitation_and_baseline_are_shared(unbroken):
    out = unbroken
    shared = [path.name.split("-")[0] for path in (out / "shared").iterdir()]
    assert sorted(shared) == ["prepare"] * 3 + ["sft"] * 3
    weights = [folder / "sft" / "model.safetensors" for folder in finished(out)]
    assert len({path.stat().st_ino for path in weights}) == 3
    assert len({path.stat().st_ino for path in out.glob("*/*/data/interactions.parquet")}) == 3
    continued = [folder / "sft_continued" / "model.safetensors" for folder in finished(out)]
    assert len({path.stat().st_ino for path in continued}) == 3
    for folder in finished(out):
        lines = [json.loads(line) for line in (folder / "train.jsonl").open()]
        assert [line["step"] for line in lines if line["stage"] == "sft_continued"]
        assert {line["stage"] for line in lines} == {"sft", "align", "sft_continued"}


@pytest.mark.slow
def test_its_runs_are_run_folders_with_the_numbers_of_a_run_alone(config, unbroken, tmp_path):
    from palate.config import load_config
    from palate.pipeline import run as run_road

    alone = load_config(config, ["align.objective=lipo", "align.negatives.uniform=3", "seed=1"])
    metrics = run_road(alone, tmp_path / "alone", say=lambda _: None)
    folder = unbroken / "runs" / "objective-lipo+uniform-3-1"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    made = {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in folder.iterdir()} == made | {"seconds.json", "table.md"}
    policies = [load_policy(one / "aligned") for one in (folder, tmp_path / "alone")]
    assert policies[0].items == policies[1].items
    with pytest.raises(ConfigError, match="is one run, with nothing to compare"):
        compare([folder])


@pytest.mark.slow
def test_the_table_holds_settings_over_seeds_and_runs(unbroken):
    out = unbroken
    rows = sweep_rows(out)
    assert [row["seed"] for row in rows] == [0] * 12 + [1] * 12 + [2] * 12
    assert rows[0]["values"] == {"align.objective": "dpo", "align.negatives.uniform": 1}
    table = json.loads((out / "table.json").read_text())
    assert (len(table["settings"]), len(table["runs"])) == (12, 36)
    for one in table["settings"]:
        mine = [row["metrics"] for row in rows if row["values"] == one["values"]]
        for stage in ("sft", "sft_continued", "aligned"):
            values = [found[stage]["catalogue"]["ndcg@10"]["value"] for found in mine]
            contexts = [found["test_contexts"]["used"] for found in mine]
            assert one[stage] == pytest.approx(np.average(values, weights=contexts))
        assert one["difference"] == pytest.approx(one["aligned"] - one["sft"])
        assert one["low"] <= one["difference"] <= one["high"]
        assert one["any_seed_low"] <= one["difference"] <= one["any_seed_high"]
    assert len((out / "table.csv").read_text().splitlines()) == 1 + 12 + 36


@pytest.mark.slow
def test_a_value_is_added_and_a_run_that_fails_is_told(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / "grown"
    assert sweep(config, {"align.negatives": [{"uniform": 1}]}, out=out).failed == {}
    before = stamps(finished(out))
    more = "--over=align.negatives={uniform: 1},{fixed: 1},{uniform: 2}"
    capsys.readouterr()
    assert exit_code(monkeypatch, config, out, more) == 1
    said = capsys.readouterr().out
    assert "runs/negatives-fixed-1-0 failed: " in said
    assert f"Its log: {out}/logs/negatives-fixed-1-0.log" in said
    assert "failed or not begun: 1 of the runs; the same command tries them again" in said
    table = json.loads((out / "table.json").read_text())
    assert [row["setting"] for row in table["settings"]] == [
        "negatives-uniform-1",
        "negatives-uniform-2",
    ]
    after = stamps([out])
    assert {path: after[path] for path in before} == before


@pytest.mark.slow
def test_a_shared_stage_that_fails_holds_up_its_own_runs_alone(config, tmp_path):
    said: list[str] = []
    over = {"data.k_core": [50, 2], "align.beta": [1]}
    swept = sweep(config, over, out=tmp_path / "out", say=said.append)
    assert [name.split("/")[0] for name in swept.failed] == ["shared", "shared", "runs"]
    assert "no interactions are left" in next(iter(swept.failed.values()))
    assert swept.failed["runs/k_core-50+beta-1.0-0"].startswith("not begun, as shared/sft-")
    assert [row["values"]["data.k_core"] for row in swept.table["runs"]] == [2]
    alone = sweep(config, {"data.k_core": [50]}, out=tmp_path / "alone", say=said.append)
    assert len(alone.failed) == 3
    assert alone.table["runs"] == []


@pytest.mark.slow
def test_one_sweep_at_a_time_and_an_interrupt_ends_its_processes(tmp_path, monkeypatch):
    out, config = tmp_path / "busy", tmp_path / "endless.yaml"
    config.write_text(yaml.safe_dump(SMALL | {"sft": {"max_steps": 100_000}}))
    busy = started(config, out, "--over=align.beta=1,2")
    until(lambda: list(out.glob("logs/*")))
    monkeypatch.setattr("palate.sweep.running.PATIENCE", 0.2)
    with pytest.raises(ConfigError, match="another sweep is at work here"):
        sweep(config, {"align.beta": [1, 2]}, out=out)
    workers = children(busy.pid)
    assert workers
    os.kill(busy.pid, signal.SIGINT)
    _, errors = busy.communicate(timeout=60)
    assert busy.returncode == 130
    assert "the same command goes on where it was" in errors
    until(lambda: not any(map(is_alive, workers)), 10)
    with locked(out / ".lock", 0, "still held"):
        pass


def test_a_mistake_is_one_sentence_and_nothing_is_written(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    for flags, sentence in [
        (["--over=align.beta=1,1"], "are the same configuration"),
        (["--jobs=0"], "--jobs 0: expected at least 1"),
        (["--metric=ndgc"], "--metric ndgc: expected one of a ranking"),
        (["--over=align.beta"], "expected key=value,value"),
    ]:
        assert exit_code(monkeypatch, config, out, *flags) == 2
        errors = capsys.readouterr().err
        assert sentence in errors
        assert len(errors.strip().splitlines()) == 1
    assert not out.exists()


def test_a_plan_writes_nothing(config, tmp_path, monkeypatch, capsys):
    assert exit_code(monkeypatch, config, tmp_path / "out", *GRID, "--plan") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(
        "12 settings × 3 seeds (0, 1, 2) = 36 runs; shared: 3 preparations, 3 SFTs"
    )
    assert len(said) == 2 + 36 + 6
    assert not (tmp_path / "out").exists()
