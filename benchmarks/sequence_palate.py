"""Palate's side of the sequence benchmark, and what a step costs as the catalogue grows."""

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sequence_worker import serve

from palate.config import TrainingOptions
from palate.data.contexts import ContextSet, History
from palate.data.prepared import Prepared
from palate.evaluation.metrics import context_metrics
from palate.evaluation.ranking import Ranks, rank_catalogue
from palate.evaluation.stages import catalogue_scorer
from palate.policies import SequencePolicy
from palate.policies.sequence import model as sequence_model
from palate.policies.sequence.cross_entropy import cross_entropy
from palate.policies.sequence.sparse_experts import parameter_counts
from palate.training.sft import imitate

SHAPE = {"hidden": 64, "layers": 2, "heads": 2, "inner": 256, "dropout": 0.5}
ENDLESS = 1e6
"""A norm that no gradient has: RecBole does not clip."""
DECIMALS, A_HAIR = 4, 1e-9
"""RecBole compares validations by four decimals, and takes a later one that is alike for better."""


def make(given: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """What the process can be asked: of a catalogue of some size, or of prepared data."""
    return catalogue_of(given) if "items" in given else side(given)


def side(given: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The prepared data and SASRec, or a model of another `shape`.

    Args:
        given: as of RecBole's side; `data`, a prepared folder.
    """
    data = Prepared(Path(given["data"]), window=1)
    create = partial(SequencePolicy.create, data.items, 50, seed=given["seed"])
    policy = create(**{**SHAPE, **given["shape"]})
    test = data.contexts("test")
    targets = sum(len(one.items) - one.first_target for one in data.training_histories)
    targets -= sum(one.first_target == 0 for one in data.training_histories)
    histories = round(len(data.training_histories) * given["targets_a_step"] / targets)
    options = TrainingOptions(
        epochs=given["epochs"],
        batch_size=max(1, histories),
        learning_rate=1e-3,
        schedule="constant",
        warmup=0,
        weight_decay=0,
        clip=ENDLESS,
        patience=given["patience"] + 1,  # RecBole stops at the epoch after
        metric="ndcg@10",
    )

    def train(validation: Callable[[], dict[str, float]], epochs: int) -> int:
        folder = tempfile.mkdtemp(prefix="palate-sequence-")
        chosen = options.model_copy(update={"epochs": epochs})
        done = imitate(
            "sft", policy, data, validation, chosen, Path(folder), seed=given["seed"], trackers=()
        )
        shutil.rmtree(folder)
        return done.steps

    def epoch() -> dict[str, Any]:
        return {"targets": targets, "steps": train(lambda: {"ndcg@10": 0.0}, 1)}

    def ranked(contexts: ContextSet, masked: bool = False) -> Ranks:
        scorer = catalogue_scorer(policy)
        return rank_catalogue(scorer, contexts, masked, batch_size=given["users_at_once"])[
            "catalogue"
        ]

    def evaluate() -> dict[str, Any]:
        return {"metrics": means(ranked(test))}

    def fit(out: str) -> dict[str, Any]:
        curve: list[tuple[float, float]] = []
        held_out = data.contexts("validation")
        began = time.perf_counter()

        def validation() -> dict[str, float]:
            score = round(means(ranked(held_out))["ndcg@10"], DECIMALS)
            curve.append((time.perf_counter() - began, score))
            return {"ndcg@10": score + A_HAIR * len(curve)}

        train(validation, given["epochs"])
        found = {"unmasked": ranked(test), "masked": ranked(test, masked=True)}
        users, items = data.truth_ids()
        of = found["masked"]
        order = np.argsort(users[of.user_id])
        kept: dict[str, Any] = {name: one.rank[order] for name, one in found.items()}
        kept |= {"users": users[of.user_id][order], "items": items[of.item_id][order]}
        np.savez(out, **kept)
        answer: dict[str, Any] = {"curve": curve, "best": max(score for _, score in curve)}
        if given["shape"].get("experts"):
            load = policy.expert_load(data.training_histories)
            answer["least_load"] = float(load.min() / policy.model.config.experts_per_item)
        return answer

    return {"epoch": epoch, "evaluate": evaluate, "fit": fit, "parameters": lambda: size(policy)}


def size(policy: SequencePolicy) -> dict[str, int]:
    """Parameters besides the item vectors: all, and those that one place uses."""
    of_items = policy.n_items * SHAPE["hidden"]
    total, active = parameter_counts(policy.model)
    return {"total": total - of_items, "active": active - of_items}


def means(ranks: Ranks) -> dict[str, float]:
    """Metrics of one positive per context."""
    group = np.arange(len(ranks.rank))
    found = context_metrics(group, ranks.rank, ranks.level, len(group), (5, 10))
    return {name: float(values.mean()) for name, values in found.items()}


def catalogue_of(given: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """A step of training over a catalogue of `items`, with `softmax` whole, sliced or sampled."""
    n_items, samples = given["items"], None
    ids = pa.array(np.arange(n_items))
    items = pa.table({"item_id": ids, "source_id": ids, "title": pa.nulls(n_items, pa.string())})
    if given["softmax"] == "sampled":
        samples = given["samples"]
    elif given["softmax"] == "whole":
        sequence_model.cross_entropy = partial(cross_entropy, whole=2**62)
    policy = SequencePolicy.create(items, 50, sampled_softmax=samples, **SHAPE)
    drawn = np.random.default_rng(0)
    histories = [
        History(drawn.integers(n_items, size=given["length"] + 1), 1)
        for _ in range(given["histories"])
    ]
    batch = policy.collate_histories(histories)
    optimiser = torch.optim.Adam(policy.model.parameters(), lr=1e-3)
    policy.model.train()

    def step() -> None:
        optimiser.zero_grad()
        policy.history_losses(batch).mean().backward()
        optimiser.step()

    return {"step": step}


if __name__ == "__main__":
    serve(make)
