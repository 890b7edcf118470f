"""The examples of modules of one's own: two towers learn and align; RecBole's SASRec."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import command
from palate.data.contexts import Context
from palate.errors import CheckpointError
from palate.policies.policy_factory import named_factory

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "module-policy"


@pytest.mark.slow
def test_two_towers_learn_and_gain_by_alignment(tmp_path):
    done = command(
        *("run", "examples/two-tower.yaml", "--out", tmp_path / "out"),
        folder=ROOT,
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    ndcg = {s: metrics[s]["catalogue"]["ndcg@10"]["value"] for s in ("random", "sft", "aligned")}
    assert ndcg["sft"] > 2 * ndcg["random"]
    assert ndcg["aligned"] > ndcg["sft"]


def test_what_a_user_writes_is_short():
    lines = (FOLDER / "two_tower.py").read_text().splitlines()
    start = lines.index("class TwoTower(nn.Module):")
    assert sum(bool(line.strip()) for line in lines[start:]) <= 20


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """A file as `recbole_export.py` writes it, RecBole's arithmetic done by hand."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    shape = {
        "max_history": 5,
        "hidden": 8,
        "inner": 12,
        "layers": 2,
        "heads": 2,
        "dropout": 0.5,
        "activation": "gelu",
        "eps": 1e-12,
    }
    torch.manual_seed(2)
    sizes = {
        "item_embedding.weight": (7, 8),
        "position_embedding.weight": (5, 8),
        "LayerNorm.weight": (8,),
        "LayerNorm.bias": (8,),
    }
    for layer in range(2):
        old = f"trm_encoder.layer.{layer}."
        for part in ("query", "key", "value", "dense"):
            sizes[f"{old}multi_head_attention.{part}.weight"] = (8, 8)
            sizes[f"{old}multi_head_attention.{part}.bias"] = (8,)
        sizes |= {
            f"{old}feed_forward.dense_1.weight": (12, 8),
            f"{old}feed_forward.dense_1.bias": (12,),
            f"{old}feed_forward.dense_2.weight": (8, 12),
            f"{old}feed_forward.dense_2.bias": (8,),
        }
        for norm in ("multi_head_attention.LayerNorm", "feed_forward.LayerNorm"):
            sizes |= {f"{old}{norm}.weight": (8,), f"{old}{norm}.bias": (8,)}
    weights = {name: torch.randn(size) / 2 for name, size in sizes.items()}
    history = torch.tensor([[3, 0, 0, 0, 0], [2, 5, 1, 0, 0], [6, 1, 4, 3, 2]])
    lengths = torch.tensor([1, 3, 5])
    tried = {"tried.history": history, "tried.lengths": lengths}
    tried["tried.scores"] = torch.stack(
        [scored_by_hand(weights, row[:n]) for row, n in zip(history, lengths, strict=True)]
    )
    told = {"shape": json.dumps(shape), "items": json.dumps(["[PAD]", *"cafdbe"])}
    path = tmp_path / "sasrec.safetensors"
    save_file({**weights, **tried}, path, metadata=told)
    return path, told


def scored_by_hand(weights, history):
    """Logits of all items after one history, in the formulas of SASRec (arXiv 1808.09781) with
    RecBole's order of normalisation: after each residual."""

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    table = weights["item_embedding.weight"].clone()
    length = len(history)
    x = norm("LayerNorm", table[history] + weights["position_embedding.weight"][:length])
    later = torch.ones(length, length).triu(diagonal=1).bool()
    for layer in range(2):
        attention = f"trm_encoder.layer.{layer}.multi_head_attention"
        between = f"trm_encoder.layer.{layer}.feed_forward"
        heads = []
        q, k, v = (linear(f"{attention}.{part}", x) for part in ("query", "key", "value"))
        for head in (slice(0, 4), slice(4, 8)):
            logits = (q[:, head] @ k[:, head].T / 2).masked_fill(later, -torch.inf)
            heads.append(logits.softmax(dim=1) @ v[:, head])
        said = linear(f"{attention}.dense", torch.cat(heads, dim=1))
        x = norm(f"{attention}.LayerNorm", said + x)
        y = linear(f"{between}.dense_1", x)
        y = y * (1 + torch.erf(y / 2**0.5)) / 2
        x = norm(f"{between}.LayerNorm", linear(f"{between}.dense_2", y) + x)
    return x[-1] @ table.T


def catalogue(*names):
    return pa.table({"source_id": list(names), "title": list(names)})


def made(path, items):
    return named_factory(f"{FOLDER / 'recbole_sasrec.py'}:recbole_sasrec", {"path": str(path)})(
        items
    )


def test_a_sasrec_of_recbole_scores_as_by_hand(exported):
    path, _ = exported
    items = catalogue("a", "b", "c")  # 2, 5 and 1 of RecBole's
    policy = made(path, items)
    assert policy.max_history == 5
    none = np.empty(0, np.int64)
    found = policy.catalogue_log_probs([Context(np.array([0, 1, 2]), none, none)])[0]
    expected = load_file(path)["tried.scores"][1][[2, 5, 1]].log_softmax(dim=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_checkpoint_of_another_model_or_catalogue_is_refused(exported):
    path, told = exported
    with pytest.raises(CheckpointError, match="lacks 1 of 2 items of the catalogue, such as x"):
        made(path, catalogue("a", "x"))
    tensors = load_file(path)
    tensors["tried.scores"] = tensors["tried.scores"] + 0.01
    save_file(tensors, path, metadata=told)
    with pytest.raises(CheckpointError, match="scores otherwise here than in RecBole"):
        made(path, catalogue("a", "b"))
