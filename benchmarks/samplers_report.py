"""Tables and figure of the study of samplers."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from samplers_runs import CONTINUED, SAMPLERS, Part

from palate.evaluation.metrics import context_metrics
from palate.evaluation.significance import bootstrap_interval, paired_difference

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "rodpo.svg"
RIVALS = ("SFT", CONTINUED, "uniform", "hard")
T_975 = {5: 2.776}
"""Number of seeds → 97.5 % quantile of Student's t."""
METRICS = ("ndcg@5", "hr@5")
Run = Mapping[str, Any]
Runs = Mapping[str, Sequence[Run]]
"""What ran → a result per seed."""


def simulated_report(
    part: Part, tuning: Mapping[str, Sequence[float]], chosen: Mapping[str, Run], runs: Runs
) -> str:
    """What is drawn, what it leads to, and how it was set, as Markdown."""
    seeds = len(runs["SFT"])
    drawn = "".join(
        f"| {name} | "
        + " | ".join(
            f"{_mean(of, key):.3f}"
            for key in (
                "truth/rate",
                "truth/share",
                "later/rate",
                "later/share",
                "repeated",
                "on ten",
            )
        )
        + f" | {_mean(of, 'gradient'):.3f} |\n"
        for name, of in runs.items()
        if "drawn" in of[0]
    )
    reached = ""
    for name, of in runs.items():
        values = ndcg(of)
        cells = ["" if name == rival else _over_seeds(of, runs[rival]) for rival in RIVALS]
        kept = statistics.fmean(_kept(one) for one in of)
        reached += (
            f"| {name} | {statistics.fmean(values):.4f} ({min(values):.4f}–{max(values):.4f}) | "
            f"{kept:.4f} | {' | '.join(cells)} |\n"
        )
    settings = "".join(
        f"| {name} | {' '.join(f'{value:.4f}' for value in tuning[name])} | "
        f"{chosen[name]['learning_rate']:g} |\n"
        for name in tuning
    )
    world, align = part.options, part.align
    steps, every = align.max_steps, part.every
    return f"""
## A simulated log

{world["n_users"]:,} users, {world["n_items"]} items, {world["visits"]} visits each; SASRec with \
hidden {part.shape["hidden"]}; {steps} steps of {align.batch_size} histories, about \
{_mean(runs["uniform"], "drawn") / (steps or 1):.0f} contexts, one negative each unless said. \
Means over {seeds} seed{"s" if seeds > 1 else ""}.

What is drawn. *False* is a negative that the user would rate 4 or 5, were it consumed then; \
*later* one that the user goes on to like in the log. Each with its share of the draws and of the \
suppressive gradient Σ |∂L/∂s_i| over them. *Again* is the share of draws that repeat an item \
already drawn for the user, *on ten* the share that falls on the ten items drawn most.

| sampler | false | of gradient | later | of gradient | again | on ten | mean gradient |
|---|---:|---:|---:|---:|---:|---:|---:|
{drawn}
Test NDCG@5, items of the history left out: at the last step, mean and range over seeds; at the \
one of every {every} steps, the start included, that validation would keep; and the difference of \
the former to others, seed by seed, with a 95 % interval over seeds (Student's t) and the number \
of seeds won.

| | last step | kept | − {" | − ".join(RIVALS)} |
|---|---:|---:|{"---:|" * len(RIVALS)}
{reached}
Settings, by validation NDCG@5 at the last step in the world of seed 100, which is in no other \
table: values in the order of the grid of `samplers.py`, and the choice.

| | validation NDCG@5 | learning rate |
|---|---|---|
{settings}"""


def beauty_report(part: Part, runs: Mapping[str, Run]) -> str:
    """The tables of the log without a truth as Markdown."""
    drawn = "".join(
        f"| {name} | {one['later/rate']:.4f} | {one['later/share']:.4f} | {one['repeated']:.3f} | "
        f"{one['on ten']:.3f} | {one['gradient']:.3f} |\n"
        for name, one in runs.items()
        if "drawn" in one
    )
    per_user = {name: {p: _per_user(one, p) for p in part.protocols} for name, one in runs.items()}
    reached = ""
    for name, of in per_user.items():
        cells = [
            _interval(bootstrap_interval(of[protocol][metric], _users(of, protocol, metric), 0))
            for protocol in part.protocols
            for metric in METRICS
        ]
        reached += f"| {name} | {' | '.join(cells)} |\n"
    rivals = [rival for rival in RIVALS if rival in runs]
    compared = ""
    for name, of in per_user.items():
        cells = []
        for rival in rivals:
            if name == rival:
                cells.append("")
                continue
            one, other = of["unseen"]["ndcg@5"], per_user[rival]["unseen"]["ndcg@5"]
            found = paired_difference(one, other, np.arange(len(one)), 0)
            cells.append(f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]")
        compared += f"| {name} | {' | '.join(cells)} |\n"
    heads = [
        f"{metric.upper()}, {'seen left out' if protocol == 'unseen' else 'seen allowed'}"
        for protocol in part.protocols
        for metric in METRICS
    ]
    return f"""
## amazon-beauty

SASRec with hidden {part.shape["hidden"]}, one seed, imitation of {part.sft.epochs:g} epochs at \
most: its own best is not reached. Then {part.align.max_steps} steps of {part.align.batch_size} \
histories, one negative, learning rate {part.align.learning_rate:g}, β {part.align.beta:g} for \
all; nothing was tuned here. The last row continues imitation with its own batches and rate \
{part.sft.learning_rate:g}. No truth is known: *later* is a negative that the user goes on to buy.

| sampler | later | of gradient | again | on ten | mean gradient |
|---|---:|---:|---:|---:|---:|
{drawn}
On {part.tested:,} test users, with 95 % intervals by user:

| | {" | ".join(heads)} |
|---|{"---:|" * len(heads)}
{reached}
NDCG@5, seen left out, differences by user:

| | − {" | − ".join(rivals)} |
|---|{"---:|" * len(rivals)}
{compared}"""


def ndcg(runs: Sequence[Run]) -> list[float]:
    """Test NDCG@5 at the last step, seed by seed."""
    return [one["curve"][-1]["test"]["unseen"]["ndcg@5"] for one in runs]


def draw(runs: Runs) -> None:
    """False negatives and their gradient, and NDCG@5 against SFT, a row per sampler."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "palate"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(9, 3.9), layout="constrained", sharey=True
    )
    names = [*SAMPLERS, CONTINUED]
    rows = np.arange(len(SAMPLERS))
    for offset, key, label in (
        (-0.19, "truth/rate", "of the draws"),
        (0.19, "truth/share", "of the gradient"),
    ):
        values = [[one[key] for one in runs[name]] for name in SAMPLERS]
        means = [statistics.fmean(of) for of in values]
        spread = [[m - min(v), max(v) - m] for m, v in zip(means, values, strict=True)]
        left.barh(rows + offset, means, 0.36, xerr=np.transpose(spread), label=label, ecolor="grey")
    left.set(title="known false negatives, share", yticks=range(len(names)), yticklabels=names)
    start = np.array(ndcg(runs["SFT"]))
    for row, name in enumerate(names):
        gains = np.array(ndcg(runs[name])) - start
        half = T_975[len(gains)] * gains.std(ddof=1) / len(gains) ** 0.5
        right.errorbar(gains.mean(), row, xerr=half, fmt="o", color="C0", capsize=3)
        right.plot(gains, np.full(len(gains), row + 0.22), ".", color="grey", markersize=4)
    right.axvline(0, color="grey", linestyle="--")
    right.set(title="NDCG@5 − SFT: mean, 95 % interval, seeds")
    right.locator_params(axis="x", nbins=6)
    left.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    for panel in (left, right):
        panel.grid(axis="x", alpha=0.3)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})
    pyplot.close(figure)


def _mean(runs: Sequence[Run], key: str) -> float:
    return statistics.fmean(one[key] for one in runs)


def _kept(one: Run) -> float:
    best = max(one["curve"], key=lambda at: at["validation"]["ndcg@5"])
    return best["test"]["unseen"]["ndcg@5"]


def _over_seeds(runs: Sequence[Run], rival: Sequence[Run]) -> str:
    """Mean difference, its interval where there are seeds enough, and seeds won."""
    found = [a - b for a, b in zip(ndcg(runs), ndcg(rival), strict=True)]
    mean, n = statistics.fmean(found), len(found)
    if n not in T_975:
        return f"{mean:+.4f}"
    half = T_975[n] * statistics.stdev(found) / n**0.5
    won = sum(value > 0 for value in found)
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}], {won} of {n}"


def _per_user(one: Run, protocol: str) -> dict[str, np.ndarray]:
    ranks = np.array(one["curve"][-1]["test_ranks"][protocol])
    n = len(ranks)
    return context_metrics(np.arange(n), ranks, np.ones(n), n, (5, 10))


def _users(of: Mapping[str, Mapping[str, np.ndarray]], protocol: str, metric: str) -> np.ndarray:
    """Each of the test users has one context."""
    return np.arange(len(of[protocol][metric]))


def _interval(found: Sequence[float]) -> str:
    value, low, high = found
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"
