"""Streams: one view of the items each, and an encoder of histories of its vectors."""

import torch
from torch import Tensor, nn

from palate.policies.sequence.encoder import CausalEncoder

STREAMS = ("id", "text", "image")
"""Views of an item: a learnt vector, and given ones."""


class ProjectedVectors(nn.Module):
    """Given vectors, frozen, in the width of the model; a learnt one where none is given.

    It looks up ids as an `nn.Embedding` does, and has its table under the same name.

    Args:
        n_items: size of the catalogue.
        size: width of the given vectors.
        hidden: width d of the model.
    """

    def __init__(self, n_items: int, size: int, hidden: int) -> None:
        super().__init__()
        self.given: Tensor
        self.present: Tensor
        self.register_buffer("given", torch.zeros(n_items, size))
        self.register_buffer("present", torch.zeros(n_items, dtype=torch.bool))
        self.projection = nn.Linear(size, hidden)
        self.missing = nn.Embedding(1, hidden)

    def forward(self, item_ids: Tensor) -> Tensor:
        """(…) item ids → (…, d)."""
        return self._projected(self.given[item_ids], self.present[item_ids])

    @property
    def weight(self) -> Tensor:
        """(items, d) vectors of the whole catalogue."""
        return self._projected(self.given, self.present)

    def _projected(self, given: Tensor, present: Tensor) -> Tensor:
        return torch.where(present[..., None], self.projection(given), self.missing.weight[0])


class Stream(nn.Module):
    """One view of the items: a vector for each, and an encoder of histories of such vectors.

    Args:
        vectors: gives the table (items, d) and looks up (…) ids.
        encoder: reads a history of vectors.
    """

    def __init__(self, vectors: nn.Embedding | ProjectedVectors, encoder: CausalEncoder) -> None:
        super().__init__()
        self.vectors = vectors
        self.encoder = encoder
