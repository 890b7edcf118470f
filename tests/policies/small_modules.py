"""A recommender of the size a user would write, and the function that `load_policy` makes it by."""

import pyarrow as pa
import torch
from torch import Tensor, nn

from palate.policies import ModulePolicy, policy_factory


class MeanOfItems(nn.Module):
    """The mean of the history's vectors against all vectors; its ids begin at 1."""

    def __init__(self, n_items: int, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, history: Tensor, lengths: Tensor) -> Tensor:
        mean = self.vectors(history).sum(dim=1) / lengths[:, None]
        return self.dropout(mean) @ self.vectors.weight.T


@policy_factory
def mean_of_items(items: pa.Table, width: int = 8, max_history: int = 6) -> ModulePolicy:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = MeanOfItems(items.num_rows, width)
    return ModulePolicy(module, items, max_history)


def not_marked(items: pa.Table) -> ModulePolicy:
    return ModulePolicy(MeanOfItems(items.num_rows), items)
