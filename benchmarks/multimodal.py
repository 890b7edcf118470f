"""What text, images, times and sparse experts add to a sequence model of ids.

    python benchmarks/multimodal.py [--data ml-latest-small amazon-beauty] [--variants id text …]
        [--seeds 3] [--quick] [--json PATH]

Imitation alone, each variant with the same schedule and its checkpoint chosen by validation
NDCG@10; then full ranking of each user's last item, items of the history left out. Weights and
order of a run are named by its seed, the data by seed 0 for all, so that every seed has the same
test. Each variant and seed has a folder in --cache: what is finished there is not run again, what
was stopped goes on, and the tables hold whatever is finished, of both data sets. On one core a run
takes two to four minutes on ml-latest-small and 15 to 20 on amazon-beauty.
"""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import RESULTS, conditions, flags, publish
from multimodal_report import report

from palate.config import RunConfig, parse_config
from palate.data.prepared import Prepared
from palate.files import replacing, write_json
from palate.pipeline import prepare_stage, road_of
from palate.policies import SequencePolicy
from palate.policies.sequence.sparse_experts import parameter_counts
from palate.training_stages import imitate_stage, loaded

CACHE = Path("~/.cache/palate/benchmarks/multimodal").expanduser()
SHARED = Path(__file__).parents[2] / "shared" / "data"
HIDDEN = 64
VARIANTS: dict[str, dict[str, Any]] = {
    "id": {},
    "text": {"streams": ["id", "text"], "interaction_experts": 4},
    "image": {"streams": ["id", "text", "image"], "interaction_experts": 4},
    "time": {
        "streams": ["id", "text", "image"],
        "interaction_experts": 4,
        "time_experts": 4,
        "absolute_time": True,
    },
    "sparse": {
        "streams": ["id", "text", "image"],
        "interaction_experts": 4,
        "time_experts": 4,
        "absolute_time": True,
        "inner": 128,
        "experts": 8,
        "experts_per_item": 2,
    },
}
"""Each is the one before it and something more; two experts of 128 are as dense as one of 256."""


@dataclass(frozen=True)
class Log:
    """A data set, and how variants are trained on it.

    Attributes:
        data, sft, vectors: sections of a configuration.
        dropout: of the model.
        variants: those that its vectors allow.
    """

    data: dict[str, Any]
    sft: dict[str, Any]
    vectors: dict[str, Any]
    dropout: float
    variants: tuple[str, ...] = tuple(VARIANTS)


LOGS = {
    "ml-latest-small": Log(
        data={
            "source": "movielens",
            "path": str(SHARED / "ml-latest-small"),
            "levels": [0.5],
            "disliked": None,
        },
        sft={"epochs": 10, "batch_size": 16, "evaluations": 0.5, "patience": 5},
        vectors={
            "text": {"encoder": "tfidf", "columns": ["title", "genres"]},
            "image": {
                "path": str(SHARED / "ml-posters" / "posters_rgb_24x16.npz"),
                "ids": "movie_id",
                "vectors": "rgb",
            },
        },
        dropout=0.2,  # the better of 0.5 and 0.2 by validation of ids alone
    ),
    "amazon-beauty": Log(
        data={
            "source": "amazon",
            "path": str(SHARED / "amazon-beauty"),
            "validation_share": 0.1,
        },
        sft={"epochs": 14, "batch_size": 64, "evaluations": 0.5, "patience": 4},
        vectors={"text": {"encoder": "tfidf", "columns": ["title", "genres"]}},
        dropout=0.5,
        variants=("id", "text"),
    ),
}


def main() -> None:
    """Train what is missing, print the tables of what is there, and write them."""
    parser = flags(__doc__)
    parser.add_argument("--data", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1, 2, … up to this one")
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    if given.quick:
        given.cache, given.data, given.seeds = given.cache / "quick", given.data[:1], 1
        shutil.rmtree(given.cache, ignore_errors=True)
    elif given.json is None:
        given.json = RESULTS / "multimodal.json"
    for name in given.data:
        for seed in range(1, given.seeds + 1):
            for variant in [one for one in given.variants if one in LOGS[name].variants]:
                told(given, name, variant, seed)
    figures, text = report(finished(given.cache), list(VARIANTS))
    publish(f"{text}\n{conditions('transformers')}", figures, given, "multimodal")


def told(given: Any, name: str, variant: str, seed: int) -> None:
    """Train one variant with one seed unless it is there, told on the error stream."""
    folder = given.cache / name / variant / str(seed)
    config = config_of(name, variant, seed, given.quick)
    _begin(folder, config.model_dump(mode="json"))
    if (folder / "result.json").is_file():
        return
    shared = given.cache / name / "data"
    data = prepared(name, shared, given.quick)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(shared / "data")  # vectors are kept there too
    result = trained(config, data, folder)
    print(f"{name}, {variant}, seed {seed}: {json.dumps(result['training'])}", file=sys.stderr)


def _begin(folder: Path, config: dict[str, Any]) -> None:
    """Say what a folder's result depends on; what was made with something else is removed."""
    written = folder / "config.json"
    if not (written.is_file() and json.loads(written.read_text("utf-8")) == config):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(config, written)


def config_of(name: str, variant: str, seed: int, quick: bool) -> RunConfig:
    """The configuration of one run."""
    log, shape = LOGS[name], VARIANTS[variant]
    streams = shape.get("streams", ["id"])
    few = {"max_steps": 6, "evaluations": 100} if quick else {}
    return parse_config(
        {
            "seed": seed,
            "device": "cpu",
            "trackers": [],
            "data": log.data,
            "policy": {
                "kind": "sequence",
                "max_history": 50,
                "sequence": {"hidden": HIDDEN, "dropout": log.dropout, **shape},
                "vectors": {key: one for key, one in log.vectors.items() if key in streams},
            },
            "sft": {"learning_rate": 2e-3, "metric": "ndcg@10", **log.sft, **few},
            "evaluation": {
                "protocols": ["catalogue"],
                "validation_contexts": 50 if quick else None,
                "batch_size": 256,
            },
        }
    )


def prepared(name: str, folder: Path, quick: bool) -> Prepared:
    """The data of all variants and seeds, prepared once."""
    config = config_of(name, "id", 0, quick)
    _begin(folder, config.model_dump(mode="json", include={"seed", "data"}))
    return prepare_stage(config, folder, lambda line: print(f"{name}: {line}", file=sys.stderr))


def trained(config: RunConfig, data: Prepared, folder: Path) -> dict[str, Any]:
    """Imitate, rank the test, and keep `ranks.npz` and, last, `result.json`."""
    went_on, began = (folder / "checkpoints").is_dir(), time.perf_counter()
    device, said = torch.device("cpu"), []
    road = road_of(config, folder, data, device, said.append)
    imitate_stage(road)
    seconds = time.perf_counter() - began
    policy = loaded(folder / "sft", device)
    assert isinstance(policy, SequencePolicy)
    ranks = road.evaluation.rank_policy("sft", lambda: policy)["catalogue"]
    order = np.argsort(ranks.user_id, kind="stable")
    with replacing(folder / "ranks.npz") as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            rank=ranks.rank[order],
            user_id=ranks.user_id[order],
            item_id=ranks.item_id[order],
        )
    model: Any = policy.model
    total, active = parameter_counts(model)
    of_ids = policy.n_items * HIDDEN
    result: dict[str, Any] = {
        "training": {**chosen_checkpoint(folder), "seconds": None if went_on else seconds},
        "parameters": {"total": total - of_ids, "active": active - of_ids},
        "items": policy.n_items,
        "with_vectors": {
            stream: int(model.streams[stream].vectors.present.sum())
            for stream in model.config.streams
            if stream != "id"
        },
    }
    if model.config.experts:
        load = policy.expert_load(data.training_histories) / model.config.experts_per_item
        result["expert_load"] = dict(zip(model.config.streams, load.tolist(), strict=True))
    shutil.rmtree(folder / "checkpoints")
    write_json(result, folder / "result.json")
    return result


def chosen_checkpoint(folder: Path) -> dict[str, Any]:
    """Where validation was best, and how far training went."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
    curve = [(one["eval_ndcg@10"], one["step"]) for one in lines if "eval_ndcg@10" in one]
    best, step = max(curve)
    made = json.loads((folder / "sft" / "training.json").read_text("utf-8"))
    return {"validation": best, "best_step": step, "steps": made["steps"]}


def finished(cache: Path) -> dict[str, dict[str, dict[int, Mapping[str, Any]]]]:
    """Data set → variant → seed → what `trained` kept, its ranks among it."""
    found: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
    for name in LOGS:
        for variant in LOGS[name].variants:
            for kept in sorted((cache / name / variant).glob("*/result.json")):
                with np.load(kept.parent / "ranks.npz", allow_pickle=False) as arrays:
                    ranks = {key: arrays[key] for key in arrays.files}
                result = json.loads(kept.read_text("utf-8")) | {"ranks": ranks}
                found.setdefault(name, {}).setdefault(variant, {})[int(kept.parent.name)] = result
    return found


if __name__ == "__main__":
    main()
