"""The two-tower example learns, aligns, and leaves a folder that load_policy reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palate.data.contexts import Context
from palate.policies import load_policy

FOLDER = Path(__file__).parents[2] / "examples" / "module-policy"


@pytest.mark.slow
def test_two_towers_learn_and_gain_by_alignment(tmp_path, monkeypatch):
    done = subprocess.run(
        [sys.executable, str(FOLDER / "two_tower.py"), "--out", str(tmp_path / "out")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "aligned−sft" in done.stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    ndcg = {s: metrics[s]["catalogue"]["ndcg@10"]["value"] for s in ("random", "sft", "aligned")}
    assert ndcg["sft"] > 2 * ndcg["random"]
    assert ndcg["aligned"] > ndcg["sft"]
    monkeypatch.syspath_prepend(str(FOLDER))
    policy = load_policy(tmp_path / "out" / "aligned")
    none = np.empty(0, np.int64)
    assert policy.rank([Context(np.array([1, 2]), none, none)], top=5).item_ids.shape == (1, 5)


def test_what_a_user_writes_is_short():
    lines = (FOLDER / "two_tower.py").read_text().splitlines()
    start, end = lines.index("class TwoTower(nn.Module):"), lines.index("def main() -> None:")
    assert sum(bool(line.strip()) for line in lines[start:end]) <= 20
