"""What a cached reference costs and saves: steps, filling, looking up, bytes on disk.

    python benchmarks/reference_cache.py [--quick] [--json PATH]

Steps are those of alignment (policy forward, reference, S-DPO, backward, SGD) on the same batches
with each reference in turn. Looking up is measured on a store of ten million pairs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import conditions, flags, publish

from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation
from palate.data.tables import SourceTables
from palate.negatives import mixture
from palate.objectives import CandidateScores, s_dpo
from palate.policies import LanguagePolicy
from palate.policies.reference import Cached, Frozen, NoReference, Reference
from palate.policies.score_store import SCORES, ScoreStore
from palate.training.preference_sets import PreferenceSets, asked_in_training, collate_sets

BATCH, NEGATIVES, EPOCHS = 32, 15, 3
REFERENCES = ("frozen", "cached", "none")


def main() -> None:
    """Measure, print, and write the table."""
    arguments = flags(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = {
            **training(Path(folder), steps=3 if arguments.quick else 15),
            **looking_up(Path(folder), contexts=5_000 if arguments.quick else 500_000),
        }
    publish(report(measured, arguments), measured, arguments, "reference_cache")


def training(folder: Path, steps: int) -> dict[str, float]:
    """Seconds of a step with each reference, and of filling."""
    world = Simulation(n_users=150, n_items=400, seed=3)
    tables = SourceTables(world.interactions(), world.items())
    prepare(tables, folder / "data", Preparation(k_core=2), seed=3)
    data = Prepared(folder / "data", window=1)
    policy = LanguagePolicy.create("small", data.items, "history", max_history=10, seed=0)
    contexts = data.contexts("train").subset(np.arange(steps * BATCH))
    sets = PreferenceSets(contexts, mixture({"uniform": NEGATIVES}, data), 0)
    cached = Cached(policy, folder=folder / "cache")
    made: dict[str, Reference] = {"frozen": Frozen(policy), "none": NoReference(policy)}
    blocks = list(asked_in_training(sets, policy, BATCH, 0, EPOCHS, 0))
    with clock() as filling:
        cached.fill(blocks, len(blocks), is_all=True)
    made["cached"] = cached
    times: dict[str, list[float]] = {name: [] for name in REFERENCES}
    live, found, apart, in_loss = [], [], 0.0, 0.0
    for step in range(steps):
        indices = [(step % EPOCHS, i) for i in range(step * BATCH, (step + 1) * BATCH)]
        batch = collate_sets(policy, [sets[index] for index in indices])
        losses = {}
        for name in REFERENCES:
            with clock() as taken:
                losses[name] = one_step(policy, made[name], batch)
            times[name].append(taken[0])
        in_loss = max(in_loss, float((losses["cached"] - losses["frozen"]).abs().max()))
        with clock() as taken:
            expected = made["frozen"].log_probs(batch)
        live.append(taken[0])
        with clock() as taken:
            numbers = cached.log_probs(batch)
        found.append(taken[0])
        apart = max(apart, float((numbers - expected).abs().max()))
    return {
        **{name: statistics.median(values) for name, values in times.items()},
        "parameters": sum(w.numel() for w in policy.model.parameters()),
        "filling": filling[0],
        "live": statistics.median(live) * EPOCHS * steps,
        "cached_batch": statistics.median(found),
        "pairs": len(cached.store),
        "apart": apart,
        "in_loss": in_loss,
    }


def one_step(policy: Any, reference: Reference, batch: dict[str, Any]) -> torch.Tensor:
    """Forward, backward and a step of no length; the losses."""
    scored = policy.log_probs(batch)
    scores = CandidateScores(
        scored.log_probs, reference.log_probs(batch), levels=batch["levels"], check=False
    )
    losses = s_dpo(scores)
    losses.mean().backward()
    torch.optim.SGD(policy.model.parameters(), lr=0.0).step()
    policy.model.zero_grad()
    return losses.detach()


def looking_up(folder: Path, contexts: int, each: int = 20) -> dict[str, float]:
    """Bytes of a pair and seconds of a batch in a large store."""
    generator = np.random.default_rng(0)
    names = generator.integers(-(2**63), 2**63 - 1, contexts)
    ids = np.sort(generator.integers(0, 100_000, (contexts, each)), axis=1)
    numbers = generator.normal(size=ids.shape).astype(np.float32)
    store = ScoreStore(folder / "large", {"weights": "none"}, 10**9)
    with clock() as writing:
        for start in range(0, contexts, BATCH):
            some = slice(start, start + BATCH)
            store.add(names[some], ids[some], numbers[some], ids[some] >= 0)
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    times = []
    for _ in range(300):
        rows = generator.integers(0, contexts, BATCH)
        with clock() as taken:
            _, known = store.find(names[rows], ids[rows][:, : NEGATIVES + 1])
        times.append(taken[0])
        assert known.all()
    return {
        "large": len(store),
        "bytes": (folder / "large" / SCORES).stat().st_size / len(store),
        "find": statistics.median(times),
        "slowest": max(times),
        "add": writing[0] / (contexts / BATCH),
    }


@contextmanager
def clock() -> Iterator[list[float]]:
    """Seconds that a block takes, put into the list that it is given."""
    taken: list[float] = []
    began = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - began)


def report(measured: dict[str, float], given: argparse.Namespace) -> str:
    """The results as Markdown."""
    one = measured
    rows = [
        f"| `{name}` | {one[name]:.3f} | {one[name] / one['none']:.2f} |" for name in REFERENCES
    ]
    return f"""# A cached reference

A step with everything in the cache takes {one["cached"] / one["frozen"]:.2f} of one with a frozen \
copy. Filling for {EPOCHS} epochs takes {one["filling"] / one["live"]:.2f} of what the copy's own \
passes in {EPOCHS} epochs take: a prompt is read once for all of them.

| reference | step, s | against none |
| --- | ---: | ---: |
{chr(10).join(rows)}

| | |
| --- | ---: |
| filling {one["pairs"]:,.0f} pairs | {one["filling"]:.1f} s |
| the frozen copy's passes in as many epochs | {one["live"]:.1f} s |
| largest difference to the frozen copy: log-probability, loss | {one["apart"]:.1e}, \
{one["in_loss"]:.1e} nats |
| a batch from the cache, names of contexts included | {1e3 * one["cached_batch"]:.2f} ms |
| a batch looked up among {one["large"]:,.0f} pairs: median, slowest | {1e3 * one["find"]:.2f} ms, \
{1e3 * one["slowest"]:.2f} ms |
| a batch added | {1e3 * one["add"]:.2f} ms |
| bytes on disk for a pair | {one["bytes"]:.1f} |

Batches of {BATCH} contexts with 1 positive and {NEGATIVES} uniform negatives, drawn anew each \
epoch; the `small` language model, {one["parameters"] / 1e6:.1f} million parameters, all of them \
training, in fp32, prompts of up to 10 titles. Medians; references in turn on the same batches in \
one process.

{conditions("transformers")}"""


if __name__ == "__main__":
    main()
