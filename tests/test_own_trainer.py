"""The scripts of examples/own-trainer run alone, learn, and say the same twice."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "own-trainer"
SCRIPTS = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.py"))]


def run(script: Path, folder: Path) -> str:
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("plain_loop", 0.05), ("hf_trainer", 0.5)])
def test_it_learns_and_says_the_same_twice(name, least, tmp_path):
    told = run(FOLDER / f"{name}.py", tmp_path)
    before, after = (float(figure) for figure in re.findall(r": (\d\.\d+)$", told, re.MULTILINE))
    assert after > before + least
    assert run(FOLDER / f"{name}.py", tmp_path) == told
    assert not list(tmp_path.iterdir()), "a script left files behind"


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_is_short_and_takes_the_objectives_alone(script):
    source = script.read_text()
    assert len(source.splitlines()) < 60
    modules = [
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        )
    ]
    assert {name for name in modules if name.split(".")[0] == "palate"} == {"palate.objectives"}
    assert f"python examples/own-trainer/{script.name}" in ast.get_docstring(ast.parse(source))
