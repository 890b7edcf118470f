"""SASRec here and in RecBole 1.2: an epoch, a full ranking, the quality reached, and growth.

    python benchmarks/sequence.py [--quality | --sparse | --scaling] [--quick] [--json PATH]

Both sides have the same data (amazon-beauty, the last item of each user for the test and the one
before for validation), the same width 64, 2 layers, 2 heads, inner 256, dropout 0.5, histories of
50, cross-entropy over the catalogue, Adam 1e-3 and about 2,048 targets a step. RecBole runs by its
own trainer in an environment of its own, which is made where there is none; each side is a process
of its own and they take turns.

Without a stage: seconds of an epoch over the same targets, seconds and memory of a full ranking.
--quality trains both to their best for three seeds; RecBole's model then reads its batches in parts
of like length, which gives the same in a fraction of the time, and its time is taken without.
--sparse times ours with sparse feed-forward layers beside dense ones, and trains them to their
best. --scaling takes steps over catalogues of 1,000 to 1,000,000 items. What --quality and --sparse
have trained is kept in --cache, so a run that was stopped goes on with what is missing.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measuring import KEEPING, conditions, flags, publish
from sequence_environment import CACHE, NAME, beauty, recbole_python
from sequence_quality import fitted, quality_report, sparse_report
from sequence_worker import Worker

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "shared" / "data" / "amazon-beauty"
TARGETS_A_STEP = 2048
"""RecBole's default, in rows of one target each; ours are whole histories with as many."""
USERS_AT_ONCE = {"RecBole": 4096, "RecBole, 256 at once": 256, "Palate": 256}
"""RecBole's default, the same as ours, and ours."""
ALIKE = ("RecBole, 256 at once",)
"""Sides that train as another does."""
QUICK_USERS = 250
DENSE, SPARSE = "dense, inner 256", "8 experts of 128, 2 used"
SHAPES: dict[str, dict[str, Any]] = {
    DENSE: {},
    SPARSE: {"inner": 128, "experts": 8},
    "dense, inner 1,024": {"inner": 1024},
}
"""The sparse one between the dense ones that are as large as what it uses and as what it has."""
ITEMS = (1_000, 10_000, 100_000, 1_000_000)
SAMPLES = 1_000
HISTORIES, LENGTH = 64, 20
"""A step of the growing catalogue: 1,280 targets."""
LARGE_BATCH = {"histories": 256, "length": 50}
"""Taken once, over the largest catalogue: for its memory."""
LARGEST_WHOLE = 100_000
"""Items up to which the logits of a step fit as one matrix beside its gradient."""


def main() -> None:
    """Run the stage asked for, print its table and write it."""
    parser = flags(__doc__)
    stages = parser.add_mutually_exclusive_group()
    for stage in ("quality", "sparse", "scaling"):
        stages.add_argument(f"--{stage}", dest="stage", action="store_const", const=stage)
    parser.add_argument("--data", type=Path, default=FOLDER, help="the folder of amazon-beauty")
    parser.add_argument("--environment", type=Path, default=CACHE / "recbole-1.2.1")
    parser.add_argument("--cache", type=Path, default=CACHE / "sequence")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    given.cache = given.cache.resolve()
    if given.stage == "scaling":
        figures = scaling(given.quick)
        text, name = scaling_report(figures), "sequence_scaling"
    else:
        with tempfile.TemporaryDirectory() as temporary:
            sides = Sides(given, Path(temporary))
            if given.stage is None:
                figures = speed(sides, turns=1 if given.quick else 3)
                text, name = speed_report(figures), "sequence"
            else:
                figures, text = trained(sides, given)
                name = f"sequence_{given.stage}"
    publish(f"{text}\n{conditions('transformers')}", figures, given, name)


class Sides:
    """Starts the processes that are compared.

    Args:
        given: flags.
        folder: a temporary folder for the data in both forms and for RecBole's checkpoints.
    """

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self._quick: bool = given.quick
        self._folder = folder
        self._recbole = None if given.stage == "sparse" else recbole_python(given.environment)
        beauty(given.data, folder, users=QUICK_USERS if given.quick else None)

    def start(
        self,
        side: str,
        seed: int = 1,
        shape: Mapping[str, Any] | None = None,
        keeps_memory: bool = False,
    ) -> Worker:
        """A process that has read the data.

        Args:
            side: one of `USERS_AT_ONCE`.
            seed: of weights and order.
            shape: of a model other than SASRec; ours only.
            keeps_memory: whether freed memory is kept, which is faster, or given back.
        """
        is_ours = side == "Palate"
        arguments = {
            "data": str(self._folder / ("data" if is_ours else NAME)),
            "saved": str(self._folder / "saved"),
            "seed": seed,
            "shape": dict(shape or {}),
            "targets_a_step": TARGETS_A_STEP // (8 if self._quick else 1),
            "users_at_once": USERS_AT_ONCE[side],
            "epochs": 2 if self._quick else 300,
            "patience": 10,
        }
        python = sys.executable if is_ours else self._recbole
        script = HERE / ("sequence_palate.py" if is_ours else "sequence_recbole.py")
        return Worker(str(python), script, arguments, KEEPING if keeps_memory else None)


def speed(sides: Sides, turns: int) -> dict[str, Any]:
    """Seconds of both sides turn by turn, then memory in fresh processes."""
    starts = {name: partial(sides.start, name) for name in USERS_AT_ONCE}
    ready, timed = timings(starts, turns)
    memory: dict[str, Any] = {}
    for name, start in starts.items():
        with start() as worker:
            memory[name] = {"evaluate": worker.ask("evaluate")["memory"]}
        if name not in ALIKE:
            with start() as worker:
                memory[name]["epoch"] = worker.ask("epoch")["memory"]
    return {"ready": ready, "timed": timed, "memory": memory}


def timings(
    starts: Mapping[str, Callable[..., Worker]], turns: int
) -> tuple[dict[str, Any], dict[str, dict[str, list[Any]]]]:
    """What it takes until each side is ready, and its answers by kind of work, turn by turn."""
    workers = {name: start(keeps_memory=True) for name, start in starts.items()}
    ready = {name: worker.ready for name, worker in workers.items()}
    measured: dict[str, dict[str, list[Any]]] = {"epoch": {}, "evaluate": {}}
    for turn in range(-1 if turns > 1 else 0, turns):  # the one before the first warms up
        for work, of in measured.items():
            for name, worker in workers.items():
                if work == "epoch" and (turn < 0 or name in ALIKE):
                    continue
                answer = worker.ask(work)
                of.setdefault(name, []).append(answer)
                print(f"turn {turn}: {name}, {work}: {answer['seconds']:.2f} s", file=sys.stderr)
    for worker in workers.values():
        worker.__exit__()
    return ready, {w: {n: a[-turns:] for n, a in of.items()} for w, of in measured.items()}


def speed_report(figures: dict[str, Any]) -> str:
    """The tables as Markdown."""
    epochs, evaluations = figures["timed"]["epoch"], figures["timed"]["evaluate"]
    targets = {name: answers[0]["targets"] for name, answers in epochs.items()}
    if len(set(targets.values())) != 1:
        sys.exit(f"the sides do not learn the same number of targets: {targets}")
    ours = [one["seconds"] for one in epochs["Palate"]]
    rows = "".join(
        f"| {name} | {one[0]['steps']:,} | {_middle(one):.2f} | {_ratio(one, ours)} | "
        f"{_mib(figures['memory'][name]['epoch'])} |\n"
        for name, one in epochs.items()
    )
    ours = [one["seconds"] for one in evaluations["Palate"]]
    ranked = "".join(
        f"| {name} | {USERS_AT_ONCE[name]:,} | {_middle(one):.2f} | {_ratio(one, ours)} | "
        f"{_mib(figures['memory'][name]['evaluate'])} |\n"
        for name, one in evaluations.items()
    )
    ready = "".join(
        f"| {name} | {one['seconds']:.1f} | {one['memory']['peak']:,.0f} |\n"
        for name, one in figures["ready"].items()
        if name not in ALIKE
    )
    return f"""# SASRec's speed, here and in RecBole 1.2.1

An epoch of training over the same {next(iter(targets.values())):,} targets, and the ranking of all
items for all test users. Medians over {len(ours)} turns, ratios too.
RecBole reads a row for each target; Palate reads a history once and learns all its targets. Our
epoch is a whole call of `imitate`, with the Trainer's set-up and a checkpoint; RecBole's is its
trainer's inner loop.

| epoch | steps | seconds | against Palate | memory, MiB: before → peak |
|---|---:|---:|---:|---:|
{rows}
| full ranking | users at once | seconds | against Palate | memory, MiB: before → peak |
|---|---:|---:|---:|---:|
{ranked}
RecBole gives hit rate, NDCG and MRR at 5 and 10; Palate the rank of every test item, its metrics
at 5 and 10, and the ten best items of each user. Seen items are not left out on either side.

| to be ready: data read and cut, model made | seconds | peak MiB |
|---|---:|---:|
{ready}
Palate's data was prepared beforehand, once, as `palate prepare` does.
"""


def trained(sides: Sides, given: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Both sides, or our variants, trained to their best: figures and report."""
    cache = given.cache / "quick" if given.quick else given.cache
    seeds = given.seeds[:1] if given.quick else given.seeds
    if given.stage == "quality":
        starts = {name: partial(sides.start, name) for name in ("RecBole", "Palate")}
        found = {
            (name, seed): fitted(partial(start, seed), cache, name, seed)
            for seed in seeds
            for name, start in starts.items()
        }
        return quality_report(found, seeds, timings(starts, turns=1)[1])
    starts = {name: partial(sides.start, "Palate", shape=shape) for name, shape in SHAPES.items()}
    found = {
        (name, seed): fitted(partial(starts[name], seed), cache, kept, seed)
        for seed in seeds
        for name, kept in ((DENSE, "Palate"), (SPARSE, SPARSE))
    }
    sizes = {}
    for name, start in starts.items():
        with start() as worker:
            sizes[name] = worker.ask("parameters")
    timed = timings(starts, turns=1 if given.quick else 5)[1]
    return sparse_report(found, seeds, timed, sizes)


def scaling(quick: bool) -> dict[str, Any]:
    """Seconds and peak memory of a step, each size and softmax in a process of its own."""
    turns = 1 if quick else 5
    found: dict[str, Any] = {}
    for n_items in ITEMS[:3] if quick else ITEMS:
        for softmax in ("whole", "sliced", "sampled"):
            if softmax == "whole" and n_items > LARGEST_WHOLE:
                continue
            arguments = {
                "items": n_items,
                "softmax": softmax,
                "samples": SAMPLES,
                "histories": HISTORIES,
                "length": LENGTH,
            }
            with Worker(sys.executable, HERE / "sequence_palate.py", arguments) as worker:
                answers = [worker.ask("step") for _ in range(turns + 1)]
            found[f"{n_items} {softmax}"] = {
                "seconds": [one["seconds"] for one in answers[1:]],
                "memory": max((one["memory"] for one in answers), key=lambda one: one["peak"]),
            }
            print(f"{n_items:,} items, {softmax}: {json.dumps(answers[-1])}", file=sys.stderr)
    if not quick:
        arguments = {"items": ITEMS[-1], "softmax": "sliced", **LARGE_BATCH}
        with Worker(sys.executable, HERE / "sequence_palate.py", arguments) as worker:
            found["large batch"] = worker.ask("step")
    return found


def scaling_report(figures: dict[str, Any]) -> str:
    """The table as Markdown."""

    def cells(n_items: int, softmax: str) -> str:
        one = figures.get(f"{n_items} {softmax}")
        if one is None:
            return "– | –"
        return f"{statistics.median(one['seconds']):.3f} | {one['memory']['peak']:,.0f}"

    large = figures.get("large batch")
    of_large = (
        f"\nA batch of {LARGE_BATCH['histories']} × {LARGE_BATCH['length']} targets over "
        f"{ITEMS[-1]:,} items, all logits: {large['seconds']:.0f} s a step, peak "
        f"{large['memory']['peak']:,.0f} MiB.\n"
        if large
        else ""
    )
    sizes = sorted({int(name.split()[0]) for name in figures if name != "large batch"})
    rows = "".join(
        f"| {n:,} | {cells(n, 'whole')} | {cells(n, 'sliced')} | {cells(n, 'sampled')} |\n"
        for n in sizes
    )
    return f"""# A training step of SASRec as the catalogue grows

{HISTORIES} simulated histories of {LENGTH} targets each; forward, backward and Adam over all item
vectors. *One matrix*: all logits at once. *As it is*: all logits, in slices where there are more
than 2²⁶. *Sampled*: `sampled_softmax={SAMPLES}`, drawn uniformly. Seconds are medians; memory is
the peak of a process of its own, weights and Adam's state in it.

| items | one matrix, s | MiB | as it is, s | MiB | sampled, s | MiB |
|---:|---:|---:|---:|---:|---:|---:|
{rows}{of_large}"""


def _middle(answers: Sequence[Mapping[str, Any]]) -> float:
    return statistics.median(one["seconds"] for one in answers)


def _ratio(answers: Sequence[Mapping[str, Any]], ours: Sequence[float]) -> str:
    ratios = [one["seconds"] / own for one, own in zip(answers, ours, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _mib(memory: Mapping[str, float]) -> str:
    return f"{memory['before']:,.0f} → {memory['peak']:,.0f}"


if __name__ == "__main__":
    main()
