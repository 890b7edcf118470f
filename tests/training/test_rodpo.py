"""The recipe of examples/rodpo.yaml on a small log, as it is and with what may stand in."""

import json
import math
from pathlib import Path

import pytest

from palate.config import load_config, parse_config
from palate.errors import ConfigError
from palate.pipeline import run
from palate.preference_rows import export

EXAMPLE = Path(__file__).parents[2] / "examples" / "rodpo.yaml"
SMALL = [
    "trackers=[]",
    "data.options={n_users: 60, n_items: 40, visits: 16}",
    "data.k_core=2",
    "policy.sequence={hidden: 16, inner: 16}",
    "sft.max_steps=6",
    "align.max_steps=4",
    "align.log_every=1",
    "align.sampler_options.stochastic_topk.k=10",
    "align.learning_rate=1e-2",
    "evaluation.bootstrap=100",
]
VARIANTS = {
    "as it is": ("dpo", []),
    "s_dpo": ("s_dpo", ["align.objective={s_dpo: 1.0, sft: 0.1}"]),
    "dynamicpo": ("dpo", ["align.dynamicpo={}", "align.negatives.stochastic_topk=5"]),
    "rounds": ("dpo", ["align.rounds=2"]),
    "mixed": ("dpo", ["align.negatives={observed: 1, stochastic_topk: 1, uniform: 1}"]),
}


def quiet(_line):
    pass


@pytest.mark.parametrize("name", VARIANTS)
def test_the_recipe(name, tmp_path):
    objective, changes = VARIANTS[name]
    config = load_config(EXAMPLE, [*SMALL, *changes])
    metrics = run(config, tmp_path / "out", say=quiet)
    assert 0 < metrics["aligned"]["catalogue"]["ndcg@10"]["value"] < 1
    entries = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").open()]
    aligned = [e for e in entries if e["stage"].startswith("align") and "kl" in e]
    assert len(aligned) == 4
    first = aligned[0]
    n = first["negatives"]
    assert first[f"loss/{objective}"] == pytest.approx(
        math.log(1 + n) if objective == "s_dpo" else math.log(2), rel=1e-3
    )
    assert first["loss"] == pytest.approx(
        first[f"loss/{objective}"] + 0.1 * first["loss/sft"], rel=1e-4
    )
    assert 1 < first["negatives/rank"] < 10.001


def test_live_negatives_cannot_be_exported(tmp_path):
    config = parse_config(
        {
            "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
            "align": {"negatives": {"uniform": 2, "hard": 1}},
        }
    )
    run(config, tmp_path / "out", say=quiet, until="prepare")
    with pytest.raises(ConfigError, match=r"of uniform, hard some are drawn in training"):
        export(tmp_path / "out", tmp_path / "rows.jsonl")
