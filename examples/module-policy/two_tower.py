"""A recommender of one's own, trained and aligned by Palate.

    python examples/module-policy/two_tower.py --out runs/two-tower

The log is simulated: users rate what they consume. Imitation learns what was consumed next;
alignment prefers what was rated well to what was rated badly, and to items drawn at random.
"""

import argparse
import tempfile
from pathlib import Path

import pyarrow as pa
import torch
from aligning import align_and_compare
from torch import Tensor, nn

from palate.config import RunConfig
from palate.data.contexts import Prepared
from palate.data.prepare import Preparation, prepare
from palate.data.simulator import Simulation
from palate.data.tables import SourceTables
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
def two_tower(items: pa.Table, width: int = 32, seed: int = 0) -> ModulePolicy:
    """A new one for a catalogue; `load_policy` calls it too."""
    torch.manual_seed(seed)
    return ModulePolicy(TwoTower(items.num_rows, width), items, max_history=20)


def main() -> None:
    """Simulate a log, train, align, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="where to leave the result; default: nowhere")
    parser.add_argument("--users", type=int, default=1500)
    given = parser.parse_args()
    config = RunConfig.model_validate(
        {
            "sft": {"epochs": 10, "batch_size": 128, "learning_rate": 5e-3, "metric": "ndcg@10"},
            "align": {
                "negatives": {"observed": 5, "uniform": 5},
                "epochs": 3,
                "batch_size": 128,
                "learning_rate": 1e-3,
            },
            "evaluation": {"protocols": ["catalogue"]},
        }
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary) / "result"
        world = Simulation(n_users=given.users, n_items=250, visits=36)
        tables = SourceTables(world.interactions(), world.items())
        prepare(tables, Path(temporary) / "data", Preparation(), seed=0)
        data = Prepared(Path(temporary) / "data", window=1)
        align_and_compare(two_tower(data.items), data, config, folder, imitates=True)


if __name__ == "__main__":
    main()
