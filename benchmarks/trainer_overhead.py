"""What the Trainer adds to a step of SASRec: our imitation against a plain PyTorch loop.

    python benchmarks/trainer_overhead.py [--quick] [--json PATH]

Both sides make the same batches in the same order, compute the same loss and step the same
optimiser, turn by turn in one process. What a call costs once (set-up, the checkpoint at its end)
is taken out: a long run less a short one, divided by the steps between them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import conditions, flags, publish

from palate.config import TrainingOptions
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation
from palate.data.tables import SourceTables
from palate.policies import SequencePolicy
from palate.training.batches import Batches
from palate.training.preference_sets import Histories, collate_windows
from palate.training.sft import imitate

USERS, ITEMS, VISITS, BATCH, RATE = 6_000, 8_000, 14, 128, 1e-3


def main() -> None:
    """Measure, print, and write the table."""
    arguments = flags(__doc__).parse_args()
    turns, short, long = (1, 5, 25) if arguments.quick else (5, 10, 70)
    measured: dict[str, list[float]] = {"plain loop": [], "Trainer": []}
    with tempfile.TemporaryDirectory() as temporary:
        data = simulated(Path(temporary) / "data")
        for turn in range(turns):
            for name, side in (("plain loop", plain_loop), ("Trainer", trainer)):
                seconds = per_step(side, data, Path(temporary) / f"{turn}-{name}", short, long)
                measured[name].append(seconds)
                print(f"turn {turn + 1} of {turns}: {name} {1e3 * seconds:.1f} ms", file=sys.stderr)
    text = report(measured, data.n_items, long, arguments)
    publish(text, measured, arguments, "trainer_overhead")


def simulated(folder: Path) -> Prepared:
    """A prepared log of some thousand users and items."""
    world = Simulation(n_users=USERS, n_items=ITEMS, visits=VISITS, seed=1)
    tables = SourceTables(world.interactions(), world.items())
    prepare(tables, folder, Preparation(k_core=1), seed=1)
    return Prepared(folder, window=1)


def per_step(
    side: Callable[[Prepared, Path, int], None], data: Prepared, folder: Path, short: int, long: int
) -> float:
    """Seconds of one step, what a call costs once left out."""
    times = []
    for steps in (short, long):
        began = time.perf_counter()
        side(data, folder / str(steps), steps)
        times.append(time.perf_counter() - began)
    return (times[1] - times[0]) / (long - short)


def trainer(data: Prepared, folder: Path, steps: int) -> None:
    """Our imitation stage, validated once at its end by a constant."""
    options = TrainingOptions(
        max_steps=steps,
        batch_size=BATCH,
        learning_rate=RATE,
        schedule="constant",
        warmup=0,
        evaluations=1e-3,
        metric="loss",
    )
    policy = SequencePolicy.create(data.items)
    imitate("sft", policy, data, lambda: {"loss": 1.0}, options, folder, seed=0, trackers=())


def plain_loop(data: Prepared, folder: Path, steps: int) -> None:
    """The same steps written out."""
    policy = SequencePolicy.create(data.items)
    policy.model.train()
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=RATE, weight_decay=0.01)
    histories = Histories(policy, data.training_histories)
    batches = Batches(policy, histories, BATCH, seed=0)
    done = 0
    while done < steps:
        for batch in batches:
            made = collate_windows(policy, [histories[index] for index in batch])
            loss = policy.history_losses(made)
            loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            done += 1
            if done == steps:
                break
        batches.set_epoch(batches._epoch + 1)


def report(
    measured: dict[str, list[float]], n_items: int, steps: int, given: argparse.Namespace
) -> str:
    """The table as Markdown."""
    middle = {name: statistics.median(values) for name, values in measured.items()}
    ratios = [t / p for t, p in zip(measured["Trainer"], measured["plain loop"], strict=True)]
    rows = "".join(
        f"| {name} | {1e3 * middle[name]:.1f} | {1e3 * min(values):.1f}–{1e3 * max(values):.1f} |\n"
        for name, values in measured.items()
    )
    return f"""# What the Trainer adds to a step of SASRec

{BATCH} histories a step, {n_items:,} items, width 64, full cross-entropy; {steps} steps a run,
{len(ratios)} turns.

| | ms a step, median | range |
|---|---:|---:|
{rows}
Trainer / plain loop: {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}), the
median of the ratios of each turn.

{conditions("transformers")}"""


if __name__ == "__main__":
    main()
