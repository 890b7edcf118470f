"""A recommender of one's own for `palate run examples/two-tower.yaml`."""

import pyarrow as pa
from torch import Tensor, nn

from palate.policies import ModulePolicy, policy_factory


class TwoTower(nn.Module):
    """Users are the mean of their items through two layers; items are vectors."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.user = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, history: Tensor, lengths: Tensor) -> Tensor:
        mean = self.vectors(history).sum(dim=1) / lengths[:, None]
        return self.user(mean) @ self.vectors.weight.T


@policy_factory
def two_tower(items: pa.Table, width: int = 32) -> ModulePolicy:
    """A new one for a catalogue; `load_policy` calls it too."""
    return ModulePolicy(TwoTower(items.num_rows, width), items, max_history=20)
