# pyright: reportMissingImports=false
"""RecBole 1.2's SASRec as tensors and text, from the model in memory; needs RecBole, not Palate."""

import json
from pathlib import Path
from typing import Any

import torch
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


def export(model: Any, dataset: Any, config: Any, out: Path) -> None:
    """Write weights, shape, item tokens and the scores of three histories as safetensors.

    Args:
        model, dataset, config: RecBole's; the model a SASRec on the CPU.
        out: where to write, .safetensors.
    """
    if config["model"] != "SASRec":
        raise SystemExit(f"the model is a {config['model']}; expected a SASRec.")
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
    told = {"shape": json.dumps(shape), "items": json.dumps(items)}
    save_file({**model.state_dict(), **tried}, out, metadata=told)
