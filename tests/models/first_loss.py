"""What alignment's first loss is for a model that its configuration makes noisy in training."""

import json
import math
import tempfile
import warnings
from pathlib import Path

import torch

from models.tiny import Unbuildable, tiny_model
from models.walk import quiet, tokenizer
from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions
from palate.data.prepared import Prepared
from palate.errors import DataWarning, PalateError
from palate.negatives import mixture
from palate.policies import LanguagePolicy
from palate.policies.reference import Frozen
from palate.training.align import align

CLOSED_FORM = math.log(4)
"""log(1 + Σ exp 0) over three negatives: policy and reference are one."""
NOISE = 0.3
OPTIONS = TrainingOptions(
    max_steps=1, batch_size=4, log_every=1, warmup=0.0, schedule="constant", metric="loss"
)


def first_loss(kind: str, data: Prepared) -> tuple[float, bool] | str:
    """The first loss of S-DPO with three negatives, and whether the model is noisy in training;
    what speaks against the model where Palate or transformers refuses it.

    Args:
        kind: of model.
        data: prepared data.
    """
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        try:
            tiny_model(kind, len(tokenizer()), NOISE).save_pretrained(folder)
        except Unbuildable as error:
            return str(error)
        tokenizer().save_pretrained(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            try:
                policy = LanguagePolicy.create(str(folder), data.items, "history", 4, seed=0)
            except PalateError as error:
                return str(error)
        noisy = is_noisy(policy, data)
        align(
            policy,
            data,
            mixture({"uniform": 3}, data),
            chosen_objective(AlignConfig(objective="s_dpo", beta=1.0)),
            1.0,
            Frozen(policy),
            lambda: {"loss": 1.0},
            OPTIONS,
            folder,
            seed=5,
            trackers=(),
        )
        lines = map(json.loads, (folder / "train.jsonl").read_text().splitlines())
        return next(line["loss"] for line in lines if "loss" in line), noisy


@torch.no_grad()
def is_noisy(policy: LanguagePolicy, data: Prepared) -> bool:
    """Whether two passes in training mode differ."""
    batch = policy.collate(data.contexts("test")[:2], [[0, 1], [2, 3]])
    policy.model.train()
    once, again = (policy.log_probs(batch).log_probs for _ in range(2))
    return not torch.equal(once, again)
