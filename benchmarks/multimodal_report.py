"""The tables of the multimodal benchmark: by user over seeds, by seed, and the load of experts."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.evaluation.metrics import context_metrics
from palate.evaluation.significance import bootstrap_interval, paired_difference

METRICS = ("ndcg@10", "hr@10", "ndcg@5", "mrr@5")
BASE = "id"
LEAST_LOAD = 0.02
Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Variant → seed → result."""
WORDS = {
    "id": "id",
    "text": "+ text",
    "image": "+ image",
    "time": "+ time-aware experts",
    "sparse": "+ sparse experts",
}


def report(found: Mapping[str, Runs], order: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Figures, and the tables as Markdown, of all data sets with finished runs."""
    figures: dict[str, Any] = {}
    text = """# Text, images, times and sparse experts beside ids

Each row is the one above it and something more: learnt ids alone (SASRec); TF-IDF of title and
genres or categories as a second stream, with four interaction experts; pixels of posters (24 × 16,
256 principal components) as a third; four time-aware experts, by the time since the item before
and the days since the first; in place of each feed-forward layer of 256 eight experts of 128, of
which two are used. Cross-entropy alone, no auxiliary losses but those of the sparse experts; the
same schedule for all, the checkpoint by validation NDCG@10. Dropout is 0.2 on ml-latest-small,
which was chosen over 0.5 by validation of ids alone, and 0.5 on amazon-beauty.
"""
    for name, runs in found.items():
        variants = [one for one in order if one in runs]
        shared = sorted(set.intersection(*(set(runs[one]) for one in variants)))
        if not shared:
            print(f"{name}: no seed is finished for all of {variants} yet", file=sys.stderr)
            continue
        alike = {one: {seed: runs[one][seed] for seed in shared} for one in variants}
        figures[name], tables = _section(name, alike, variants, shared)
        text += tables
    return figures, text


def _section(
    name: str, runs: Runs, variants: Sequence[str], seeds: Sequence[int]
) -> tuple[dict[str, Any], str]:
    """Figures and tables of one data set, of which each variant has run with the same seeds."""
    users, per_user = _averaged(runs, variants)
    figures: dict[str, Any] = {}
    rows = differences = sizes = ""
    for variant in variants:
        of = list(runs[variant].values())
        values = {metric: per_user[variant][metric] for metric in METRICS}
        intervals = {metric: bootstrap_interval(values[metric], users, 0) for metric in METRICS}
        by_seed = [float(_metrics(one)["ndcg@10"].mean()) for one in of]
        figures[variant] = {"metrics": intervals, "ndcg@10 by seed": by_seed} | {
            key: [one[key] for one in of]
            for key in ("training", "parameters", "with_vectors", "expert_load")
            if key in of[0]
        }
        cells = [f"{v:.4f} [{low:.4f}, {high:.4f}]" for v, low, high in intervals.values()]
        spread = " ".join(f"{value:.4f}" for value in by_seed)
        rows += f"| {WORDS[variant]} | {' | '.join(cells)} | {spread} |\n"
        if variant != BASE and BASE in variants:
            found = {
                metric: paired_difference(values[metric], per_user[BASE][metric], users, 0)
                for metric in METRICS
            }
            figures[variant]["difference"] = found
            cells = [
                f"{one['value']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}], p {one['p']:.4f}"
                for one in found.values()
            ]
            differences += f"| {WORDS[variant]} | {' | '.join(cells)} |\n"
        sizes += _size_row(variant, of)
    head = " | ".join(metric.upper() for metric in METRICS)
    known = _known(runs, variants)
    n_items = runs[variants[0]][seeds[0]]["items"]
    tables = f"""
## {name}

{len(users):,} users, {n_items:,} items{known}.
The last item of each user among all items, those of the history left out. Values of a user are
means over seeds {", ".join(map(str, seeds))}; 95 % intervals by user; the last column is the mean
over users, seed by seed.

| | {head} | NDCG@10 by seed |
|---|{"---:|" * len(METRICS)}---|
{rows}
"""
    if differences:
        tables += f"""Differences to ids alone, user by user (p by sign flips):

| | {head} |
|---|{"---:|" * len(METRICS)}
{differences}
"""
    tables += f"""
Parameters are those besides the learnt id vectors, and those that one place uses; seconds of
imitation with its validations, medians over seeds.

| | parameters | used | best step, of | validation NDCG@10 | seconds |
|---|---:|---:|---|---|---:|
{sizes}"""
    return figures, tables + _loads(runs, variants)


def _size_row(variant: str, of: Sequence[Mapping[str, Any]]) -> str:
    size, training = of[0]["parameters"], [one["training"] for one in of]
    steps = ", ".join(f"{one['best_step']:,} of {one['steps']:,}" for one in training)
    best = " ".join(f"{one['validation']:.4f}" for one in training)
    timed = [one["seconds"] for one in training if one["seconds"] is not None]
    seconds = f"{statistics.median(timed):.0f}" if timed else "–"
    return (
        f"| {WORDS[variant]} | {size['total']:,} | {size['active']:,} | {steps} | {best} | "
        f"{seconds} |\n"
    )


def _known(runs: Runs, variants: Sequence[str]) -> str:
    """How many items have given vectors."""
    last = next(iter(runs[variants[-1]].values()))["with_vectors"]
    return "".join(
        f", {count:,} with {'an image' if stream == 'image' else stream}"
        for stream, count in last.items()
    )


def _loads(runs: Runs, variants: Sequence[str]) -> str:
    """How the sparse experts share the choices of the training histories."""
    of = {
        seed: one["expert_load"]
        for variant in variants
        for seed, one in runs[variant].items()
        if "expert_load" in one
    }
    if not of:
        return ""
    rows, least = "", 1.0
    for seed, streams in of.items():
        for stream, layers in streams.items():
            for layer, shares in enumerate(layers, start=1):
                least = min(least, *shares)
                listed = " | ".join(f"{100 * share:.1f}" for share in shares)
                rows += f"| {seed} | {stream} | {layer} | {listed} |\n"
    n_experts = len(next(iter(next(iter(of.values())).values()))[0])
    verdict = "no expert is below" if least >= LEAST_LOAD else "some are below"
    return f"""
Share of the choices that falls on each sparse expert, over the training histories, in per cent
(alike would be {100 / n_experts:.1f}): {verdict} 2 %, the least has {100 * least:.1f} %.

| seed | stream | layer | {" | ".join(map(str, range(1, n_experts + 1)))} |
|---:|---|---:|{"---:|" * n_experts}
{rows}"""


def _metrics(one: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Metrics of each user, who has one test item."""
    ranks = one["ranks"]["rank"]
    group = np.arange(len(ranks))
    return context_metrics(group, ranks, np.ones(len(ranks)), len(ranks), (5, 10))


def _averaged(
    runs: Runs, variants: Sequence[str]
) -> tuple[NDArray[np.int64], dict[str, dict[str, NDArray[np.float64]]]]:
    """The users, and for each variant and metric their values averaged over its seeds."""
    first = next(iter(runs[variants[0]].values()))["ranks"]
    averaged = {}
    for variant in variants:
        for seed, one in runs[variant].items():
            for what in ("user_id", "item_id"):
                if not np.array_equal(one["ranks"][what], first[what]):
                    sys.exit(f"{variant}, seed {seed}: its test {what}s are not the others'")
        every = [_metrics(one) for one in runs[variant].values()]
        averaged[variant] = {m: np.mean([one[m] for one in every], axis=0) for m in METRICS}
    return first["user_id"], averaged
