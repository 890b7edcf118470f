"""Negative samplers of RoDPO: false negatives, where the gradient goes, and the ranking.

    python benchmarks/samplers.py [--only simulated | beauty] [--quick] [--json PATH]

A small SASRec imitates the first two thirds of every training history and is then aligned on the
last third by DPO against its frozen copy, with the same steps for every sampler. On a simulated log
it is known which drawn negatives the user would have liked. The learning rate of each
sampler, and of imitation continued, is the one that ends best on the validation of a world of its
own, seed 100; the seeds of the table are others. On amazon-beauty, where no truth is known,
what the user goes on to buy stands in for it. What has run is kept in --cache, so a run that was
stopped goes on with what is missing.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from measuring import conditions, flags, publish
from samplers_report import beauty_report, draw, simulated_report
from samplers_runs import CONTINUED, SAMPLERS, Part, Study

from palate.config import AlignConfig, SFTConfig

CACHE = Path("~/.cache/palate/benchmarks/samplers").expanduser()
BEAUTY = Path(__file__).parents[2] / "shared" / "data" / "amazon-beauty"
TUNING_SEED, SEEDS = 100, range(5)
MORE = ("uniform", "hard", "top 50")
"""Samplers that also run with five negatives."""
GRID = [{"learning_rate": rate, "beta": 1.0} for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)]
RATES = [{"learning_rate": rate} for rate in (1e-4, 5e-4, 2e-3)]
"""Of imitation continued; the last is that of imitation."""
ALIGN = {"objective": {"dpo": 1.0}, "holdout": 0.33, "metric": "ndcg@5", "log_every": 1000}


def simulated(quick: bool) -> Part:
    """Ratings from 4 are liked; imitation learns all events."""
    shape = {"hidden": 32, "layers": 2, "heads": 2, "inner": 128, "dropout": 0.3}
    return Part(
        name="quick" if quick else "simulated",
        source="simulate",
        options={"n_users": 300 if quick else 4000, "n_items": 500, "visits": 60},
        shape=shape,
        sft=SFTConfig(
            epochs=2 if quick else 40,
            batch_size=64,
            learning_rate=2e-3,
            patience=3,
            metric="ndcg@10",
        ),
        align=AlignConfig(max_steps=10 if quick else 300, batch_size=16, **ALIGN),
        every=5 if quick else 100,
        tested=None,
        validated=2000,
    )


def beauty(folder: Path) -> Part:
    """Every event is liked; imitation ends before its best, and is thus no bar to reach."""
    shape = {"hidden": 64, "layers": 2, "heads": 2, "inner": 256, "dropout": 0.3}
    return Part(
        name="beauty",
        source="amazon",
        options={"path": str(folder)},
        shape=shape,
        sft=SFTConfig(epochs=8, batch_size=128, learning_rate=2e-3, metric="ndcg@10"),
        align=AlignConfig(max_steps=300, batch_size=16, learning_rate=3e-4, beta=1.0, **ALIGN),
        every=300,
        tested=4000,
        validated=1000,
        protocols=("unseen", "all"),
    )


def main() -> None:
    """Run what is asked for, print the tables, draw, and write them."""
    parser = flags(__doc__)
    parser.add_argument("--only", choices=("simulated", "beauty"))
    parser.add_argument("--data", type=Path, default=BEAUTY, help="the folder of amazon-beauty")
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    torch.set_num_threads(1)  # tensors are small
    figures: dict[str, Any] = {}
    text = "# Negative samplers of RoDPO\n"
    if given.only != "beauty":
        part = simulated(given.quick)
        figures["simulated"] = over_seeds(part, given.cache, given.quick)
        text += simulated_report(part, **figures["simulated"])
        if not given.quick:
            draw(figures["simulated"]["runs"])
    if given.only != "simulated" and not given.quick:
        part = beauty(given.data)
        figures["beauty"] = once(part, given.cache)
        text += beauty_report(part, figures["beauty"])
    publish(f"{text}\n{conditions('transformers')}", figures, given, "samplers")


def over_seeds(part: Part, cache: Path, quick: bool) -> dict[str, Any]:
    """`tuning`: sampler → the validation that each setting ends with; `chosen`: the best setting;
    `runs`: (sampler, negatives) in words → a result per seed."""
    tuning: dict[str, list[float]] = {}
    chosen: dict[str, dict[str, float]] = {}
    tuned = Study(part, TUNING_SEED, cache)
    for name in (*SAMPLERS, CONTINUED):
        settings = (RATES if name == CONTINUED else GRID)[: 1 if quick else None]
        results = [told(tuned, name, 1, **setting) for setting in settings]
        tuning[name] = [one["curve"][-1]["validation"]["ndcg@5"] for one in results]
        chosen[name] = settings[tuning[name].index(max(tuning[name]))]
    runs: dict[str, list[dict[str, Any]]] = {}
    kinds = [(name, 1) for name in (*SAMPLERS, CONTINUED)] + [(name, 5) for name in MORE]
    studies = [Study(part, seed, cache) for seed in (SEEDS[:1] if quick else SEEDS)]
    runs["SFT"] = [study.reference() for study in studies]
    for name, count in kinds:
        label = name if count == 1 else f"{name}, {count} negatives"
        runs[label] = [told(study, name, count, **chosen[name]) for study in studies]
    return {"tuning": tuning, "chosen": chosen, "runs": runs}


def once(part: Part, cache: Path) -> dict[str, dict[str, Any]]:
    """Sampler → its result with seed 0."""
    study = Study(part, 0, cache)
    runs = {"SFT": study.reference()}
    runs |= {name: told(study, name, 1) for name in SAMPLERS}
    runs[CONTINUED] = told(study, CONTINUED, 1, learning_rate=part.align.learning_rate)
    size = part.sft.batch_size
    runs[f"{CONTINUED}, {size} a step"] = told(study, CONTINUED, 1, batch_size=size)
    return runs


def told(study: Study, name: str, count: int, **setting: float) -> dict[str, Any]:
    """A run, told on the error stream."""
    result = study.run(name, count, **setting)
    path = " → ".join(f"{one['test']['unseen']['ndcg@5']:.4f}" for one in result["curve"])
    print(f"{study.name} {name} {count} {setting}: {path}", file=sys.stderr)
    return result


if __name__ == "__main__":
    main()
