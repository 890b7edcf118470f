# pyright: reportMissingImports=false
"""A checkpoint of RecBole 1.2's SASRec as tensors and text; needs RecBole, not Palate.

    python examples/module-policy/recbole_export.py saved/SASRec-Nov-21-2026_10-00-00.pth

Run it where RecBole was run, as the checkpoint names the data set's folder from there. It reads the
checkpoint as RecBole does, by pickle, which can run code: give it your own only. (torch's checked
reading does not know the pickle protocol that RecBole writes.)
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from recbole.data import create_dataset
from recbole.utils import get_model
from safetensors.torch import save_file

SHAPE = {
    "max_history": "MAX_ITEM_LIST_LENGTH",
    "hidden": "hidden_size",
    "inner": "inner_size",
    "layers": "n_layers",
    "heads": "n_heads",
    "dropout": "hidden_dropout_prob",
    "activation": "hidden_act",
    "eps": "layer_norm_eps",
}
"""Our name → RecBole's."""


def export(checkpoint: Path) -> Path:
    """Write weights, shape, item tokens and the scores of three histories beside a checkpoint."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
    config = saved["config"]
    if config["model"] != "SASRec":
        raise SystemExit(f"{checkpoint} holds a {config['model']}; expected a SASRec.")
    config["device"] = torch.device("cpu")
    dataset = create_dataset(config)
    model: Any = get_model(config["model"])(config, dataset)
    model.load_state_dict(saved["state_dict"])
    items = dataset.field2id_token["item_id"].tolist()
    history = torch.zeros(3, config["MAX_ITEM_LIST_LENGTH"], dtype=torch.long)
    lengths = torch.tensor([1, 3, history.shape[1]])
    for row, length in enumerate(lengths.tolist()):
        history[row, :length] = torch.arange(length) * 7 % (len(items) - 1) + 1
    asked = {model.ITEM_SEQ: history, model.ITEM_SEQ_LEN: lengths}
    with torch.no_grad():
        scores = model.eval().full_sort_predict(asked)
    tried = {"tried.history": history, "tried.lengths": lengths, "tried.scores": scores}
    shape = {ours: config[theirs] for ours, theirs in SHAPE.items()}
    out = checkpoint.with_suffix(".safetensors")
    told = {"shape": json.dumps(shape), "items": json.dumps(items)}
    save_file({**model.state_dict(), **tried}, out, metadata=told)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A SASRec of RecBole as safetensors.")
    parser.add_argument("checkpoint", type=Path)
    print(f"wrote {export(parser.parse_args().checkpoint)}")
