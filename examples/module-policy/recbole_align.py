# pyright: reportMissingImports=false
"""A SASRec that RecBole trained, aligned by Palate and ranked before and after.

    python examples/module-policy/recbole_align.py --checkpoint runs/recbole/saved/sasrec.pth \
        --data PATH/TO/amazon-beauty --out runs/recbole-aligned

Needs Palate with RecBole beside it: pip install palate recbole==1.2.1 "pandas<3"
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from aligning import align_and_compare
from recbole.data import create_dataset
from recbole.utils import get_model
from torch import Tensor

from palate.config import RunConfig
from palate.data.contexts import Prepared
from palate.data.prepare import Preparation, prepare
from palate.data.sources.amazon import amazon
from palate.policies import ModulePolicy, policy_factory


@policy_factory
def recbole(items: pa.Table, checkpoint: str) -> ModulePolicy:
    """Any of RecBole's sequential models that need a history alone, from its checkpoint.

    The file holds a whole configuration, so it can run code as it is read: load your own only.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
    config = saved["config"]
    dataset = create_dataset(config)
    model = get_model(config["model"])(config, dataset)
    model.load_state_dict(saved["state_dict"])
    ids = dataset.token2id("item_id", [str(one) for one in items["source_id"].to_pylist()])
    return ModulePolicy(model, items, config["MAX_ITEM_LIST_LENGTH"], forward=logits, ids=ids)


def logits(model: Any, history: Tensor, lengths: Tensor) -> Tensor:
    """RecBole's scores of all its items, the padding among them."""
    return model.full_sort_predict({model.ITEM_SEQ: history, model.ITEM_SEQ_LEN: lengths})


def main() -> None:
    """Prepare the same log, load, align, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--users", type=int, help="only the first so many, as in training")
    given = parser.parse_args()
    config = RunConfig.model_validate(
        {
            "align": {
                "negatives": {"uniform": 10},
                "max_steps": given.steps,
                "batch_size": 256,
                "learning_rate": 3e-5,
            },
            "evaluation": {
                "protocols": ["catalogue"],
                "validation_contexts": 2000,
                "batch_size": 256,
            },
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        tables = amazon(given.data)
        if given.users is not None:  # numbered from 1
            log = tables.interactions
            log = log.filter(log["user_id"].to_numpy() <= given.users)
            tables = replace(tables, interactions=log)
        prepare(tables, Path(folder), Preparation(k_core=1), seed=0)
        data = Prepared(Path(folder), window=1)
        policy = recbole(data.items, checkpoint=str(given.checkpoint.resolve()))
        align_and_compare(policy, data, config, given.out, imitates=False)


if __name__ == "__main__":
    main()
