"""A SASRec that RecBole trained, for `palate run examples/recbole.yaml`; needs no RecBole."""

import json
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import safe_open
from torch import Tensor, nn

from palate.errors import CheckpointError
from palate.policies import ModulePolicy, policy_factory


class SASRec(nn.Module):
    """SASRec as RecBole 1.2 computes it, of torch's own layers; item 0 is the padding."""

    def __init__(
        self,
        columns: int,
        max_history: int,
        hidden: int,
        inner: int,
        layers: int,
        heads: int,
        dropout: float,
        activation: str,
        eps: float,
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(columns, hidden, padding_idx=0)
        self.places = nn.Embedding(max_history, hidden)
        self.norm = nn.LayerNorm(hidden, eps)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, inner, dropout, activation, eps, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, history: Tensor, lengths: Tensor) -> Tensor:
        """Logits of all items after each history, padded on the right."""
        length, device = history.shape[1], history.device
        state = self.items(history) + self.places(torch.arange(length, device=device))
        later = torch.ones(length, length, dtype=torch.bool, device=device).triu(diagonal=1)
        state = self.encoder(self.dropout(self.norm(state)), mask=later)
        return state[torch.arange(len(state)), lengths - 1] @ self.items.weight.T


@policy_factory
def recbole_sasrec(items: pa.Table, path: str) -> ModulePolicy:
    """What `recbole_export.py` wrote; it is refused where it does not score as RecBole did."""
    if not Path(path).is_file():
        raise CheckpointError(
            f"{path} does not exist. Write it with recbole_export.py, in RecBole's environment."
        )
    with safe_open(path, "pt") as file:
        told = file.metadata()
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shape, names = json.loads(told["shape"]), json.loads(told["items"])
    module = SASRec(len(names), **shape)
    module.load_state_dict(renamed(saved, shape["layers"]))
    with torch.no_grad():
        scores = module.eval()(saved["tried.history"], saved["tried.lengths"])
    if not torch.allclose(scores, saved["tried.scores"], rtol=1e-4, atol=1e-4):
        raise CheckpointError(
            f"{path} scores otherwise here than in RecBole, so it is of another model than "
            f"RecBole's SASRec. Write a module like it, as in {__file__}."
        )
    number = {name: place for place, name in enumerate(names)}
    wanted = [str(one) for one in items["source_id"].to_pylist()]
    if unknown := [name for name in wanted if name not in number]:
        raise CheckpointError(
            f"{path} lacks {len(unknown):,} of {len(wanted):,} items of the catalogue, such as "
            f"{unknown[0]}. Prepare the log that RecBole was trained on, with data.k_core=1."
        )
    return ModulePolicy(module, items, shape["max_history"], ids=[number[name] for name in wanted])


def renamed(theirs: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """RecBole's weights under the names that torch's layers have."""
    ours = {
        "items.weight": theirs["item_embedding.weight"],
        "places.weight": theirs["position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = theirs[f"LayerNorm.{kind}"]
        for layer in range(layers):
            new, old = f"encoder.layers.{layer}.", f"trm_encoder.layer.{layer}."
            attention, between = f"{old}multi_head_attention.", f"{old}feed_forward."
            parts = [theirs[f"{attention}{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"{new}self_attn.in_proj_{kind}"] = torch.cat(parts)
            for name, of in {
                "self_attn.out_proj": f"{attention}dense",
                "norm1": f"{attention}LayerNorm",
                "linear1": f"{between}dense_1",
                "linear2": f"{between}dense_2",
                "norm2": f"{between}LayerNorm",
            }.items():
                ours[f"{new}{name}.{kind}"] = theirs[f"{of}.{kind}"]
    return ours
