"""The quality that sides of the sequence benchmark reach: trained once, kept, compared by user."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sequence_worker import Worker

from palate.comparison.pairs import any_seed_interval
from palate.evaluation.metrics import context_metrics
from palate.evaluation.significance import bootstrap_interval, paired_difference

METRICS = ("ndcg@10", "hr@10", "ndcg@5", "mrr@5")
Fits = Mapping[tuple[str, int], Mapping[str, Any]]
"""(side, seed) → what `fitted` gives."""
Timed = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""[work][side] → answers, turn by turn; the works are an epoch and a full ranking."""


def fitted(start: Callable[..., Worker], cache: Path, name: str, seed: int) -> dict[str, Any]:
    """A side trained to its best, from the cache if it is there.

    Args:
        start: starts a side's process.
        cache: folder of results.
        name: what it is called in the cache.
        seed: of weights and order.

    Returns:
        curve (seconds since the start and validation NDCG@10 of each epoch), and `users`, `items`,
        `unmasked` and `masked` ranks on the test.
    """
    words = "".join(c if c.isalnum() else "-" for c in name.lower())
    kept, ranks = (cache / f"{words}-{seed}.{end}" for end in ("json", "npz"))
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with start(keeps_memory=True) as worker:
            answer = worker.ask("fit", out=str(ranks))
        kept.write_text(json.dumps(answer) + "\n", "utf-8")
    with np.load(ranks) as arrays:
        return json.loads(kept.read_text("utf-8")) | {n: arrays[n] for n in arrays.files}


def quality_report(found: Fits, seeds: Sequence[int], timed: Timed) -> tuple[dict[str, Any], str]:
    """Figures, and the tables as Markdown, of RecBole and Palate."""
    names = ["RecBole", "Palate"]
    seconds = _seconds(timed)
    figures, tables = {}, ""
    for protocol, title in (("unmasked", "seen items allowed"), ("masked", "seen items left out")):
        per_user = {name: _over_seeds(found, name, seeds, protocol) for name in names}
        users = found[names[0], seeds[0]]["users"]
        rows = ""
        for name in names:
            cells = [_cell(bootstrap_interval(per_user[name][m], users, 0)) for m in METRICS]
            rows += f"| {name} | {' | '.join(cells)} |\n"
        differences = {
            m: paired_difference(per_user["Palate"][m], per_user["RecBole"][m], users, 0)
            for m in METRICS
        }
        cells = [
            f"{d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}], p {d['p']:.4f}"
            for d in differences.values()
        ]
        rows += f"| Palate − RecBole | {' | '.join(cells)} |\n"
        if len(seeds) > 1:
            every = [
                _any_seed(found, names, seeds, protocol, m, (d["high"] - d["low"]) / 2)
                for m, d in differences.items()
            ]
            rows += f"| … of other seeds too | {' | '.join(every)} |\n"
        figures[protocol] = {
            name: {
                m: [float(v) for v in _by_seed(found, name, seeds, protocol, m)] for m in METRICS
            }
            for name in names
        } | {"difference": differences}
        head = " | ".join(m.upper() for m in METRICS)
        tables += f"\n| {title} | {head} |\n|---|{'---:|' * len(METRICS)}\n{rows}"
    each = "".join(
        f"| {name} | {seed} | {_epochs_to_best(found[name, seed])} | "
        f"{len(found[name, seed]['curve'])} | "
        + " | ".join(
            f"{_by_seed(found, name, [seed], protocol, 'ndcg@10')[0]:.4f}"
            for protocol in ("unmasked", "masked")
        )
        + " |\n"
        for name in names
        for seed in seeds
    )
    slower = seconds["RecBole"] / seconds["Palate"]
    ratios = [
        _epochs_to_best(found["RecBole", seed]) / _epochs_to_best(found["Palate", seed]) * slower
        for seed in seeds
    ]
    figures |= {"seconds": seconds, "seconds_to_best_ratio": ratios}
    differs = max(found["RecBole", seed]["differs"] for seed in seeds)
    text = f"""# SASRec's quality, here and in RecBole 1.2.1

Each side trained until validation NDCG@10 (of all users, seen items allowed, after each epoch, to
four decimals) has been below its best for 11 epochs, which is RecBole's rule, and tested at its
best. Means over seeds {_listed(seeds)} of each user's metric, with 95 % intervals by user; p by
sign flips. The last row's intervals allow for the sides' other trainings as well.
{tables}
| | seed | epochs to the best | of | test NDCG@10, seen allowed | left out |
|---|---:|---:|---:|---:|---:|
{each}
An epoch with its validation takes RecBole {seconds["RecBole"]:.0f} s and Palate
{seconds["Palate"]:.0f} s, each as it comes. Time to the best, as epochs to the best times that,
RecBole / Palate: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}), seed by
seed. For this table RecBole's model read each batch in parts of like length, cut to their longest:
outputs differ by at most {differs:.0e}.
"""
    return figures, text


def sparse_report(
    found: Fits, seeds: Sequence[int], timed: Timed, sizes: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, Any], str]:
    """Figures, and the tables as Markdown, of feed-forward layers dense and sparse.

    Args:
        found: those that were trained.
        seeds: of `found`.
        timed: all, the first of them what the others are compared with.
        sizes: parameters of all.
    """
    names = list(dict.fromkeys(name for name, _ in found))
    users = found[names[0], seeds[0]]["users"]
    rows = ""
    for name, size in sizes.items():
        cells = [f"{size['total']:,}", f"{size['active']:,}"]
        cells += [f"{statistics.median(_ratios(of, name)):.2f}" for of in timed.values()]
        rows += f"| {name} | {' | '.join(cells)} |\n"
    seconds, intervals, reached = _seconds(timed), {}, ""
    for name in names:
        per_user = _over_seeds(found, name, seeds, "masked")["ndcg@10"]
        intervals[name] = bootstrap_interval(per_user, users, 0)
        epochs = [_epochs_to_best(found[name, seed]) for seed in seeds]
        to_best = statistics.median(epochs) * seconds[name]
        loads = [found[name, seed].get("least_load") for seed in seeds]
        load = "–" if None in loads else f"{100 * min(loads):.1f} %"
        reached += (
            f"| {name} | {', '.join(map(str, epochs))} | {to_best:.0f} | {load} | "
            f"{_cell(intervals[name])} |\n"
        )
    figures = {"sizes": dict(sizes), "timed": dict(timed), "ndcg@10": intervals}
    text = f"""# Feed-forward layers of SASRec, dense and sparse

Parameters are those besides the item vectors, and those that one place uses. An epoch of training
and the ranking of all items for all test users, against the first row: medians of the turns'
ratios.

| | parameters | used | epoch | full ranking |
|---|---:|---:|---:|---:|
{rows}
Trained until validation NDCG@10, to four decimals, has been below its best for 11 epochs; seeds
{_listed(seeds)}. Seconds to the best are the median epochs to it times an epoch with its
validation. Load is the least share of an expert in the items read, of any layer and seed. NDCG@10
on the test with seen items left out: the mean over seeds, with its 95 % interval by user.

| | epochs to the best | seconds to the best | least load | NDCG@10 |
|---|---:|---:|---:|---:|
{reached}"""
    return figures, text


def _metrics(one: Mapping[str, Any], protocol: str) -> dict[str, NDArray[np.float64]]:
    ranks = one[protocol]
    group = np.arange(len(ranks))
    return context_metrics(group, ranks, np.ones(len(ranks)), len(ranks), (5, 10))


def _over_seeds(
    found: Fits, name: str, seeds: Sequence[int], protocol: str
) -> dict[str, NDArray[np.float64]]:
    """Each user's metrics, averaged over the seeds."""
    every = [_metrics(found[name, seed], protocol) for seed in seeds]
    first = next(iter(found.values()))
    for seed in seeds:
        for what in ("users", "items"):
            if not np.array_equal(found[name, seed][what], first[what]):
                raise SystemExit(f"{name}, seed {seed}: its test {what} are not the others'")
    return {m: np.mean([one[m] for one in every], axis=0) for m in METRICS}


def _by_seed(
    found: Fits, name: str, seeds: Sequence[int], protocol: str, metric: str
) -> list[float]:
    return [float(_metrics(found[name, seed], protocol)[metric].mean()) for seed in seeds]


def _any_seed(
    found: Fits,
    names: Sequence[str],
    seeds: Sequence[int],
    protocol: str,
    metric: str,
    half: float,
) -> str:
    """The interval of the second side's lead that allows for other trainings, too."""
    base, ours = (_over_seeds(found, name, seeds, protocol)[metric] for name in names)
    by_seed = [_by_seed(found, name, seeds, protocol, metric) for name in names]
    low, high = any_seed_interval(
        ours - base,
        found[names[0], seeds[0]]["users"],
        [b - a for a, b in zip(*by_seed, strict=True)],
        half,
    )
    return f"[{low:+.4f}, {high:+.4f}]"


def _epochs_to_best(one: Mapping[str, Any]) -> int:
    return int(np.argmax([score for _, score in one["curve"]])) + 1


def _seconds(timed: Timed) -> dict[str, float]:
    """Seconds of an epoch and a full ranking together, by side."""
    return {
        name: sum(statistics.median(one["seconds"] for one in of[name]) for of in timed.values())
        for name in next(iter(timed.values()))
    }


def _ratios(of: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> list[float]:
    """Turn by turn, how much longer a side takes than the first."""
    first = next(iter(of.values()))
    return [one["seconds"] / base["seconds"] for one, base in zip(of[name], first, strict=True)]


def _cell(interval: Sequence[float]) -> str:
    value, low, high = interval
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
