"""A module of one's own in a configuration: the whole road, and what may be wrong with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from palate.config import parse_config
from palate.errors import CheckpointError, ConfigError
from palate.pipeline import go_on, run
from palate.policies import load_policy
from palate.policies.policy_factory import named_factory, new_module_policy

TWO_TOWER = Path(__file__).parents[2] / "examples" / "module-policy" / "two_tower.py"
HEAD = """
from torch import nn
from palate.policies import ModulePolicy, policy_factory

class Mean(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.vectors = nn.Embedding(columns, 4, padding_idx=0)
    def forward(self, history, lengths):
        return self.vectors(history).sum(dim=1) @ self.vectors.weight.T
"""
LATER = """
import sys
from pathlib import Path
from palate.pipeline import go_on
from palate.recommend import policy_of, recommend
run, out, log = map(Path, sys.argv[1:])
go_on(run, "align", ["align.beta=0.5", "align.learning_rate=0.1"], out, lambda line: None)
go_on(out, "evaluate", say=lambda line: None)
print(recommend(policy_of(out), log, {}, top=3).num_rows)
"""


@pytest.fixture(autouse=True)
def own_search_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])


def config(factory=f"{TWO_TOWER}:two_tower", sft_steps=6, **options):
    return parse_config(
        {
            "trackers": [],
            "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
            "policy": {"kind": "module", "factory": factory, "options": options or {"width": 8}},
            "sft": {"max_steps": sft_steps, "batch_size": 8, "learning_rate": 1e-2},
            "align": {"max_steps": 4, "batch_size": 8, "negatives": {"uniform": 3}},
            "evaluation": {"validation_contexts": 20, "bootstrap": 100},
        }
    )


def quiet(_line):
    pass


def weights(folder):
    return load_file(folder / "model.safetensors")["module.vectors.weight"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module") / "run"
    return folder, run(config(), folder, say=quiet)


def test_the_whole_road(whole):
    folder, metrics = whole
    assert weights(folder / "sft").shape == (41, 8)
    assert not torch.equal(weights(folder / "sft"), weights(folder / "aligned"))
    for stage in ("sft", "sft_continued", "aligned"):
        assert 0 < metrics[stage]["catalogue"]["ndcg@10"]["value"] < 1
        assert 0 < metrics[stage]["candidates"]["ndcg@10"]["value"] <= 1


def test_later_stages_in_another_process_and_folder(whole, tmp_path):
    folder, metrics = whole
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id\n" + "".join(f"u,{item}\n" for item in range(5)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LATER, str(folder), str(tmp_path / "out"), str(log)],
        cwd=elsewhere,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "3"
    again = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert again["sft"] == metrics["sft"]
    assert again["aligned"] != metrics["aligned"]


def test_a_policy_alone_is_not_loaded_through_a_file(whole, monkeypatch):
    """A folder from elsewhere could name any file; only what is importable is imported."""
    folder, _ = whole
    monkeypatch.delitem(sys.modules, "two_tower")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p) != TWO_TOWER.parent])
    with pytest.raises(CheckpointError, match="made by two_tower:two_tower, which cannot be impor"):
        load_policy(folder / "aligned")
    monkeypatch.syspath_prepend(str(TWO_TOWER.parent))
    assert load_policy(folder / "aligned").n_items == 40


def test_a_trained_module_goes_into_alignment_as_it_comes(tmp_path):
    said: list[str] = []
    folder = tmp_path / "run"
    run(config(sft_steps=0), folder, say=said.append)
    items = load_policy(folder / "sft").items
    untouched = new_module_policy(f"{TWO_TOWER}:two_tower", items, {"width": 8}, seed=0)
    assert torch.equal(weights(folder / "sft"), untouched.model.module.vectors.weight)
    assert any("no step, as sft.max_steps is 0" in line for line in said)
    assert json.loads((folder / "sft" / "training.json").read_text())["steps"] == 0
    for stage in ("aligned", "sft_continued"):
        assert not torch.equal(weights(folder / stage), weights(folder / "sft"))


def test_the_seed_names_the_weights_and_nothing_else_moves(small_data):
    def made(seed):
        policy = new_module_policy(f"{TWO_TOWER}:two_tower", small_data.items, {}, seed)
        return policy.model.module.vectors.weight

    before = torch.get_rng_state()
    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert torch.equal(torch.get_rng_state(), before)


def written(folder, name, function):
    file = folder / f"{name}.py"
    file.write_text(HEAD + function)
    return f"{file}:build"


MISTAKES = {
    "unmarked": (
        "def build(items):\n    return ModulePolicy(Mean(items.num_rows + 1), items)\n",
        "build of .* is not marked as a factory. Put @policy_factory",
    ),
    "other_name": (
        "@policy_factory\ndef biuld(items):\n    return None\n",
        "has no function build. Did you mean 'biuld'?",
    ),
    "nothing": (
        "@policy_factory\ndef build(items):\n    Mean(3)\n",
        "build gave a NoneType; expected a ModulePolicy",
    ),
    "bare": (
        "@policy_factory\ndef build(items):\n    return Mean(items.num_rows + 1)\n",
        "build gave a Mean; expected a ModulePolicy",
    ),
    "fewer_items": (
        "@policy_factory\ndef build(items):\n"
        "    return ModulePolicy(Mean(items.num_rows), items.slice(1))\n",
        "made a policy of 36 items for a catalogue of 37",
    ),
    "fewer_columns": (
        "@policy_factory\ndef build(items):\n    return ModulePolicy(Mean(21), items)\n",
        r"logits of shape \(1, 21\) for 1 histories; expected \(1, 38 or more\)",
    ),
    "frozen": (
        "@policy_factory\ndef build(items):\n"
        "    mean = Mean(items.num_rows + 1).requires_grad_(False)\n"
        "    return ModulePolicy(mean, items)\n",
        "made a module without a weight that has gradients",
    ),
    "no_package": ("import no_such_package\n", "cannot be imported .*no_such_package"),
    "json": ("", "has the name of another module, .*json"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_factory_that_is_wrong_is_told_in_a_sentence(name, small_data, tmp_path):
    function, sentence = MISTAKES[name]
    with pytest.raises(ConfigError, match=sentence) as error:
        new_module_policy(written(tmp_path, name, function), small_data.items, {})
    assert len(str(error.value).splitlines()) == 1


def test_what_is_known_beforehand_leaves_no_folder(tmp_path):
    for broken, sentence in (
        (config(f"{tmp_path}/nowhere.py:build"), r"nowhere\.py does not exist"),
        (config("no_such_package:build"), "no_such_package cannot be imported"),
        (config(widht=3), r"policy\.options\.widht: .* no such option\. Did you mean 'width'"),
        (config(width="broad"), r"policy\.options\.width: .*found 'broad'"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run(broken, tmp_path / "run", say=quiet)
        assert not (tmp_path / "run").exists()


def test_a_factory_mended_goes_on_with_the_data(tmp_path, monkeypatch):
    function = (
        "@policy_factory\ndef build(items, width=4):\n    return ModulePolicy(Mean({}), items)\n"
    )
    factory = written(tmp_path, "mended", function.format("21"))
    with pytest.raises(ConfigError, match="expected"):
        run(config(factory), tmp_path / "run", say=quiet, until="sft")
    made = (tmp_path / "run" / "data.json").stat().st_mtime_ns
    written(tmp_path, "mended", function.format("items.num_rows + 1"))
    monkeypatch.delitem(sys.modules, "mended")
    run(config(factory), tmp_path / "run", resume=True, say=quiet, until="sft")
    assert weights(tmp_path / "run" / "sft").shape == (41, 4)
    assert (tmp_path / "run" / "data.json").stat().st_mtime_ns == made


def test_modules_by_import_path(small_data):
    make = named_factory("policies.small_modules:mean_of_items", {"width": 4})
    assert make(small_data.items).made_by == {
        "factory": "policies.small_modules:mean_of_items",
        "arguments": {"width": 4},
    }


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"kind": "module"}, "kind=module needs policy.factory, found None"),
        ({"kind": "module", "factory": "my_model.py"}, "found 'my_model.py'; give my_model.py:F"),
        ({"factory": "a.py:b"}, "factory and options are for kind=module, found kind=language"),
        ({"kind": "sequence", "options": {"a": 1}}, "found kind=sequence"),
        ({"kind": "module", "factory": "a.py:b", "max_history": 9}, "max_history is not for kind"),
        ({"kind": "module", "factory": "a.py:b", "base": "tiny"}, "base is not for kind=module"),
        ({"kind": "module", "factory": "a.py:b", "vectors": {"text": {}}}, "vectors is not for"),
        ({"kind": "module", "factory": "a.py:b", "adapter": {}}, "adapter is not for kind=module"),
    ],
)
def test_keys_of_other_kinds_are_refused(policy, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_config({"policy": policy})


def test_a_module_writes_nothing_and_has_no_adapter(tmp_path):
    for changes, sentence in (
        ({"evaluation": {"protocols": ["catalogue", "generation"]}}, "only a language policy can"),
        ({"align": {"reference": "adapter_off"}}, "adapter_off"),
    ):
        content = config().model_dump()
        for section, keys in changes.items():
            content[section] |= keys
        with pytest.raises(ConfigError, match=sentence):
            run(parse_config(content), tmp_path / "run", say=quiet)


def test_a_run_resumes_where_it_stopped(whole, tmp_path):
    folder, metrics = whole
    run(config(), tmp_path / "run", say=quiet, until="sft")
    assert go_on(tmp_path / "run", "align", say=quiet) == {}
    assert run(config(), tmp_path / "run", resume=True, say=quiet) == metrics
    assert torch.equal(weights(folder / "aligned"), weights(tmp_path / "run" / "aligned"))
