"""A full disk, a place that cannot be written to, Ctrl-C and somebody else's bug: a sentence."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from conftest import command
from palate.cli.storage import storage_fault
from palate.config import parse_config
from palate.errors import ConfigError, DataWarning
from palate.files import replacing, write_json, write_table, write_text

SMALL = {
    "trackers": [],
    "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
    "policy": {"kind": "sequence", "sequence": {"hidden": 16, "inner": 16}},
    "sft": {"max_steps": 4, "batch_size": 8, "evaluations": 2},
    "align": {"max_steps": 2, "batch_size": 8, "negatives": {"uniform": 3}},
    "evaluation": {"validation_contexts": 20, "bootstrap": 100},
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def started(*arguments, folder, largest=None):
    """A palate that runs beside the test, its files no larger than so many bytes."""

    def limit():
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.Popen(
        [sys.executable, "-m", "palate.cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


@pytest.fixture
def full(tmp_path):
    """A file on a disk that is full; a link, as libraries delete what they could not write."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    return link


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("x" * 100_000),
        lambda path: np.save(path.open("wb"), np.zeros(100_000)),
        lambda path: pq.write_table(pa.table({"a": range(100_000)}), path),
        lambda path: torch.save(torch.zeros(100_000), path),
    ],
    ids=["text", "numpy", "parquet", "torch"],
)
def test_what_libraries_raise_on_a_full_disk_is_known(write, full):
    with pytest.raises(Exception) as error:  # noqa: PT011 (each has a kind of its own)
        write(full)
    said = storage_fault(error.value)
    assert said is not None
    assert "Make room on the disk" in said


def test_a_bug_is_no_fault_of_the_disk():
    for error in (KeyError("x"), RuntimeError("shapes differ"), ValueError("no"), OSError("odd")):
        assert storage_fault(error) is None


def write_to(path, full):
    with replacing(path):
        full.write_text("x" * 100_000)


def test_a_full_disk_is_told_with_the_file_that_it_hit(full, tmp_path):
    path = tmp_path / "results" / "a.json"
    with pytest.raises(OSError, match="No space left") as error:
        write_to(path, full)
    assert f"{path}: No space left on device" in str(storage_fault(error.value))
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("largest", [300, 9_000])
def test_files_that_cannot_be_written_end_a_run_in_a_sentence(largest, config, tmp_path):
    """The first is met in the data, the second in a checkpoint."""
    run = started("run", config, "--out", "out", folder=tmp_path, largest=largest)
    _, err = run.communicate(timeout=600)
    assert run.returncode == 2, err
    assert "Traceback" not in err
    assert "palate: " in err
    assert not list(tmp_path.rglob("*.part"))
    assert (tmp_path / "out").exists() == (largest > 300)
    again = command("run", config, "--out", "out", *(["--resume"] if largest > 300 else []),
                    folder=tmp_path)  # fmt: skip
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("out", "sentence"),
    [("/dev/null/out", "Not a directory"), ("/proc/out", "No such file"), ("x" * 300, "too long")],
)
def test_a_place_that_takes_no_folder_is_a_sentence(out, sentence, config, tmp_path):
    done = command("prepare", config, "--out", out, folder=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.txt").write_text("years of work")
    for write in (
        lambda path: write_text("x", path),
        lambda path: write_json({}, path),
        lambda path: write_table(pa.table({"a": [1]}), path),
    ):
        with pytest.raises(IsADirectoryError, match="kept"):
            write(tmp_path / "kept")
    assert (tmp_path / "kept" / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("prepare", "big.yaml", "--out", "out"), "prepare:"),
        (("run", "small.yaml", "--out", "out"), "sft:"),
    ],
)
def test_an_interrupt_is_a_sentence(arguments, line, config, tmp_path):
    """In prepare it comes from DuckDB as an error of its own, or from numpy in the simulator."""
    big = SMALL | {"data": {"options": {"n_users": 20_000, "n_items": 2000}}}
    (tmp_path / "big.yaml").write_text(yaml.safe_dump(big))
    run = started(*arguments, folder=tmp_path)
    assert run.stdout is not None
    assert any(line in said for said in run.stdout)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert "palate: interrupted; palate run goes on with --resume" in err
    assert "Traceback" not in err
    assert (tmp_path / "out").exists() == (arguments[0] == "run")


def plug_in(folder, code, group="palate.sources") -> dict[str, Any]:
    """An installed package with a module `odd` and an entry point of that name."""
    (folder / "odd.py").write_text(code)
    info = folder / "odd_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nodd = odd:odd\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_a_broken_plug_in_is_named_and_everything_else_runs(tmp_path):
    done = command("sources", **plug_in(tmp_path, "import nowhere"))
    assert done.returncode == 0, done.stderr
    assert "movielens" in done.stdout
    assert "the plug-in 'odd' of odd-plugin (palate.sources: odd:odd) cannot be used" in done.stderr
    assert "ModuleNotFoundError: No module named 'nowhere'" in done.stderr
    assert done.stderr.count("plug-in") == 1


@pytest.mark.parametrize(
    ("group", "section", "code", "reason"),
    [
        ("palate.sources", {"data": {"source": "odd"}}, "def odd(:", "SyntaxError"),
        (
            "palate.objectives",
            {"align": {"objective": "odd"}},
            "odd = 3",
            "of type int, not a function",
        ),
        ("palate.negatives", {"align": {"negatives": {"odd": 1}}}, "raise SystemExit(3)", "3"),
        ("palate.objectives", {"align": {"objective": "odd"}}, "even = 3", "AttributeError"),
    ],
)
def test_names_of_a_broken_plug_in_are_unknown_and_others_are_known(
    group, section, code, reason, tmp_path, monkeypatch
):
    plug_in(tmp_path, code, group)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    monkeypatch.setattr("palate.plugins._told", set())
    with (
        pytest.warns(DataWarning, match=rf"odd-plugin \({group}: odd:odd\).*{reason}"),
        pytest.raises(ConfigError, match="'odd' is unknown"),
    ):
        parse_config(section)
    assert parse_config({"align": {"objective": "dpo"}}).align.objective == "dpo"


def test_a_plug_in_that_is_whole_is_used(tmp_path, monkeypatch):
    plug_in(tmp_path, "def odd(scores, beta=1.0): ...", "palate.objectives")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    assert parse_config({"align": {"objective": "odd"}}).align.objective == "odd"
