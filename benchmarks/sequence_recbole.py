"""RecBole's side of the sequence benchmark; runs where RecBole 1.2.1 is installed, without Palate.

It trains and evaluates by RecBole's own trainer. What is added reads the rank of each test item
out of RecBole's scores, to the same definition as ours, and, where only quality is asked, lets the
model read a batch in parts of like length.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from sequence_worker import serve


def make(given: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """A dataset, SASRec and RecBole's trainer.

    Args:
        given: `data`, the folder of atomic files; `saved`, where checkpoints go; `seed`, and
            what else to set.
    """
    folder = Path(given["data"])
    os.chdir(folder.parent)  # RecBole leaves its logs where it runs
    config = Config(
        model="SASRec",
        dataset=folder.name,
        config_dict={
            "data_path": str(folder.parent),
            "checkpoint_dir": given["saved"],
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": 50,
            "hidden_size": 64,
            "n_layers": 2,
            "n_heads": 2,
            "inner_size": 256,
            "hidden_dropout_prob": 0.5,
            "attn_dropout_prob": 0.5,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "group_by": "user",
                "mode": "full",
            },
            "metrics": ["NDCG", "Hit", "MRR"],
            "topk": [5, 10],
            "valid_metric": "NDCG@10",
            "train_batch_size": given["targets_a_step"],
            "eval_batch_size": given["users_at_once"],
            "learning_rate": 1e-3,
            "epochs": given["epochs"],
            "stopping_step": given["patience"],
            "seed": given["seed"],
            "show_progress": False,
            "use_gpu": False,
        },
    )
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    training, validation, test = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model("SASRec")(config, training._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)

    def epoch() -> dict[str, Any]:
        trainer._train_epoch(training, 0)
        return {"targets": len(training._dataset), "steps": len(training)}

    def evaluate() -> dict[str, Any]:
        return {"metrics": dict(trainer.evaluate(test, load_best_model=False))}

    def fit(out: str) -> dict[str, Any]:
        differs = by_length(model, next(iter(test))[0])
        curve, best = fitted(trainer, training, validation, Path(f"{out}.unfinished.pt"))
        model.load_state_dict(best)
        metrics = dict(trainer.evaluate(test, load_best_model=False))
        found = ranks(model, dataset, test, folder / f"{folder.name}.inter")
        np.savez(out, **found)
        best_score = max(score for _, score in curve)
        return {"curve": curve, "best": best_score, "metrics": metrics, "differs": differs}

    return {"epoch": epoch, "evaluate": evaluate, "fit": fit}


def by_length(model: Any, some: Any, parts: int = 16) -> float:
    """Let SASRec read each batch in parts of like length, cut to their longest.

    Nothing is learnt at padding, so that this is the same model in a fraction of the time.

    Args:
        model: RecBole's SASRec.
        some: a batch to try it on.
        parts: of a batch.

    Returns:
        The largest difference of an output.
    """
    whole = model.forward

    def forward(histories: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        order = lengths.argsort()
        outputs = [
            whole(histories[of][:, : int(lengths[of].max())], lengths[of])
            for of in order.chunk(parts)
        ]
        return torch.cat(outputs)[order.argsort()]

    asked = (some[model.ITEM_SEQ], some[model.ITEM_SEQ_LEN])
    model.eval()
    with torch.no_grad():
        differs = float((forward(*asked) - whole(*asked)).abs().max())
    if differs > 1e-5:
        raise SystemExit(f"read in parts, SASRec differs by {differs:.1e}")
    model.forward = forward
    return differs


def fitted(
    trainer: Any, training: Any, validation: Any, kept: Path
) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """Train until RecBole stops; after each epoch what training goes on from is kept in a file.

    RecBole's own checkpoints hold whole configurations, which torch rightly refuses to load.

    Returns:
        (seconds, validation score) of each epoch, and the weights of the best.
    """
    curve: list[list[float]] = []
    best: dict[str, torch.Tensor] = {}
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        curve, best = state["curve"], state["best"]
        trainer.model.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimiser"])
        trainer.start_epoch = len(curve)
        trainer.best_valid_score = max(score for _, score in curve)
        trainer.cur_step = [score for _, score in reversed(curve)].index(trainer.best_valid_score)
        torch.set_rng_state(state["random"])
    began = time.perf_counter() - (curve[-1][0] if curve else 0.0)

    def after_epoch(_: int, score: float) -> None:
        weights = trainer.model.state_dict()
        if all(score >= former for _, former in curve):
            best.update({name: one.clone() for name, one in weights.items()})
        curve.append([time.perf_counter() - began, float(score)])
        state = {"model": weights, "optimiser": trainer.optimizer.state_dict()}
        state |= {"curve": curve, "best": best, "random": torch.get_rng_state()}
        torch.save(state, kept.with_suffix(".part"))
        kept.with_suffix(".part").replace(kept)

    trainer.fit(training, validation, saved=False, callback_fn=after_epoch)
    kept.unlink()
    return curve, best


def ranks(model: Any, dataset: Any, test: Any, log: Path) -> dict[str, np.ndarray]:
    """The rank of each user's test item, by users in the order of their ids in the source.

    Returns:
        users, items: ids of the source; unmasked, masked: ranks among all items, and among those
            that are not in the user's history.
    """
    seen: dict[str, list[str]] = {}
    for line in log.read_text("utf-8").splitlines()[1:]:
        user, item, _ = line.split("\t")
        seen.setdefault(user, []).append(item)
    found: dict[str, list[np.ndarray]] = {"users": [], "items": [], "unmasked": [], "masked": []}
    model.eval()
    for interaction, _, _, items in test:
        with torch.no_grad():
            scores = model.full_sort_predict(interaction)
        scores[:, 0] = -torch.inf
        tokens = dataset.id2token("user_id", interaction["user_id"].numpy())
        found["users"].append(tokens.astype(int))
        found["items"].append(dataset.id2token("item_id", items.numpy()).astype(int))
        own = scores[torch.arange(len(items)), items][:, None]
        found["unmasked"].append(_ranks(scores, own))
        for row, user in enumerate(tokens):
            scores[row, dataset.token2id("item_id", np.array(seen[user][:-1]))] = -torch.inf
        found["masked"].append(_ranks(scores, own))
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    order = np.argsort(joined["users"])
    return {name: values[order] for name, values in joined.items()}


def _ranks(scores: torch.Tensor, own: torch.Tensor) -> np.ndarray:
    """1 + #(higher) + #(others equal) / 2."""
    higher, equal = (scores > own).sum(dim=1), (scores == own).sum(dim=1)
    return (higher + (equal + 1) / 2).numpy().astype(float)


if __name__ == "__main__":
    serve(make)
