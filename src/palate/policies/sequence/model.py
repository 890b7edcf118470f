"""The sequence model: streams of item vectors, one causal encoder each, and a score for all items.

SASRec (Kang and McAuley, ICDM 2018) is the model with the one stream "id".
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from palate.policies.sequence.encoder import CausalEncoder


class SequenceConfig(PreTrainedConfig):
    """Shape of a sequence model.

    Args:
        n_items: size of the catalogue.
        max_history: most recent items the model reads.
        hidden: width of the item vectors.
        layers: blocks of each encoder.
        heads: attention heads.
        inner: width of the feed-forward layers.
        dropout: dropout in training.
    """

    model_type = "palate_sequence"

    n_items: int = 1
    max_history: int = 50
    hidden: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    dropout: float = 0.5


class Stream(nn.Module):
    """One view of the items: a vector for each, and an encoder of histories of such vectors.

    Args:
        vectors: gives the table (items, d) and looks up (…) ids; learnt ids are an `nn.Embedding`.
        encoder: reads a history of vectors.
    """

    def __init__(self, vectors: nn.Embedding, encoder: CausalEncoder) -> None:
        super().__init__()
        self.vectors = vectors
        self.encoder = encoder

    def forward(self, history: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(R, L) item ids and N places in them → (N, items) scores."""
        state = self.encoder(self.vectors(history))[rows, columns]
        return state @ self.vectors.weight.T


class SequenceModel(PreTrainedModel):
    """Scores every item of the catalogue at chosen places of some histories."""

    config_class = SequenceConfig

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        encoder = CausalEncoder(
            config.hidden,
            config.layers,
            config.heads,
            config.inner,
            config.dropout,
            config.max_history,
        )
        vectors = nn.Embedding(config.n_items, config.hidden)
        self.streams = nn.ModuleDict({"id": Stream(vectors, encoder)})
        self.post_init()

    def forward(self, history: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits over the catalogue; a softmax of them is π(item | history).

        Args:
            history: (R, L) item ids, oldest first; shorter histories are filled on the right with
                any id.
            rows, columns: (N,) the places to answer at: after item `columns` of history `rows`.

        Returns:
            (N, items) logits: the sum over the streams.
        """
        scores = [stream(history, rows, columns) for stream in self.streams.values()]
        return torch.stack(scores).sum(dim=0) if len(scores) > 1 else scores[0]

    def _init_weights(self, module: Any) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
