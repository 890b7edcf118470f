"""Runs, seeds and stages against a baseline: from folders to a comparison."""

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from palate.comparison.differences import corrected, differences, differences_by_slice, means_of
from palate.comparison.groups import Group, grouped
from palate.comparison.pairs import Pairing, paired
from palate.comparison.rows import Comparison, Drift, Row
from palate.comparison.runs import PROTOCOLS, EvaluatedRun
from palate.errors import ConfigError, did_you_mean
from palate.evaluation.ranking import Ranks
from palate.evaluation.significance import paired_difference
from palate.progress import progress_bar

METRIC = re.compile(r"(hr|recall|ndcg|ndcg_graded|mrr|map)@[1-9]\d*")
DEFAULT_METRIC = "ndcg@10"
OF_LISTS = ("coverage", "gini", "popularity", "diversity")
"""Beginnings of the metrics of lists, which have no users to resample."""
Step = tuple[tuple[str, str], str, Pairing]
"""Names of two sides, a protocol, and their ranks under it."""


@dataclass(frozen=True)
class Contestant:
    """A group at a stage, by the name its rows have."""

    name: str
    group: Group
    stage: str

    def ranked(self, protocol: str) -> list[tuple[EvaluatedRun, Ranks]]:
        """Its runs and their ranks."""
        return [(run, run.table(self.stage, protocol)) for run in self.group.runs]


def compare(
    folders: Sequence[Path | str],
    metrics: Sequence[str] | None = None,
    baseline: Path | str | None = None,
    protocols: Sequence[str] | None = None,
    stages: Sequence[str] = ("aligned",),
    by_slice: bool = True,
    seed: int = 0,
    draws: int = 1000,
    permutations: int = 10_000,
    show_progress: bool = False,
) -> Comparison:
    """Paired differences between evaluated runs, or between stages of one, on the same contexts.

    Runs that agree on all of their configuration but the seed are one group: a user's values are
    averaged over its seeds, and users are what is resampled. So an interval speaks of other users
    of these trained policies; `any_seed_low` and `any_seed_high` allow for another training too.

    Several groups are compared with the baseline's, at each stage; of one group, the stages are
    compared with the first of them. All of `Comparison.rows` are one family for Holm's correction,
    all of `Comparison.slices` another.

    Args:
        folders: run folders.
        metrics: such as ["ndcg@10", "hr@1"], at any cutoff; default ["ndcg@10"].
        baseline: run folder whose group the others are compared with; default the first.
        protocols: of "catalogue" and "candidates"; default the first of them that all sides have.
        stages: such as ["aligned"], or ["sft", "aligned"] for one group.
        by_slice: compare by slice too; see `palate.evaluation.slices`.
        seed: names the draws.
        draws: bootstrap draws behind an interval.
        permutations: random sign flips behind a p-value.
        show_progress: show a bar on standard error.

    Raises:
        CheckpointError: a folder holds no evaluated run, or a damaged one.
        ConfigError: a run is given twice, there is nothing to compare, or a metric, stage or
            protocol is unknown.
        DataError: two sides have different data, contexts or candidate lists.
    """
    first = None if baseline is None else Path(baseline)
    groups = grouped([Path(folder) for folder in folders], first)
    contestants, contests = _contests(groups, list(dict.fromkeys(stages)))
    chosen = _protocols(contestants, protocols)
    names = _metrics(metrics or [DEFAULT_METRIC], groups[0].runs[0])
    test = partial(paired_difference, seed=seed, draws=draws, permutations=permutations)
    rows: list[Row] = []
    slices: list[Row] = []
    notes: list[str] = []
    steps = [
        ((a.name, b.name), protocol, paired(a.ranked(protocol), b.ranked(protocol), protocol))
        for protocol in chosen
        for a, b in contests
    ]
    for sides, protocol, pairing in _watched(steps, show_progress):
        notes += [f"{' − '.join(sides)}: {pairing.note}"] if pairing.note else []
        rows += differences(sides, pairing, protocol, names, test)
        if by_slice:
            found, left_out = differences_by_slice(sides, pairing, protocol, names, test)
            slices += found
            notes += left_out
    return Comparison(
        sides=tuple(one.group.side(one.stage, one.name) for one in contestants),
        means=tuple(
            mean
            for protocol in chosen
            for one in contestants
            for mean in means_of(one.name, one.ranked(protocol), protocol, names, seed, draws)
        ),
        rows=corrected(rows),
        slices=corrected(slices),
        drift=tuple(drift for a, b in contests for drift in _drift(a, b)),
        notes=tuple(dict.fromkeys(notes)),
    )


def stage_slices(
    folder: Path | str,
    a: str = "aligned",
    b: str = "sft",
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
) -> tuple[Row, ...]:
    """What changed from one stage of a run to another, by slice.

    Args:
        folder: an evaluated run.
        a, b: stages; the rows are of a − b.
        metrics: as in `compare`.
        protocol: "catalogue" or "candidates"; default the first of them that both stages have.

    Raises:
        CheckpointError, ConfigError: as in `compare`.
    """
    protocols = None if protocol is None else [protocol]
    return compare([folder], metrics, protocols=protocols, stages=(b, a)).slices


def _contests(
    groups: Sequence[Group], stages: Sequence[str]
) -> tuple[list[Contestant], list[tuple[Contestant, Contestant]]]:
    """All sides, each baseline before what is compared with it; the pairs (side, baseline)."""
    if len(groups) == 1 and len(stages) < 2:
        runs = groups[0].runs
        found = f"{runs[0].folder} is one run" if len(runs) == 1 else "these are seeds of one run"
        raise ConfigError(
            f"{found}, with nothing to compare it with. Give another run, or two stages: --stage "
            "sft --stage aligned."
        )
    if len(groups) == 1:
        of_stages = [[Contestant(stage, groups[0], stage) for stage in stages]]
    else:
        of_stages = [
            [
                Contestant(f"{one.name} {stage}" if len(stages) > 1 else one.name, one, stage)
                for one in groups
            ]
            for stage in stages
        ]
    contests = [(one, baseline) for baseline, *others in of_stages for one in others]
    return [one for row in of_stages for one in row], contests


def _protocols(contestants: Sequence[Contestant], wanted: Sequence[str] | None) -> list[str]:
    for name in wanted or ():
        if name not in PROTOCOLS:
            raise ConfigError(f"--protocol {name}: unknown.{did_you_mean(name, PROTOCOLS)}")
    if wanted:
        return list(dict.fromkeys(wanted))
    runs = [(one.stage, run) for one in contestants for run in one.group.runs]
    shared = [
        name for name in PROTOCOLS if all(name in run.protocols(stage) for stage, run in runs)
    ]
    if not shared:
        raise ConfigError("the runs have no protocol in common: evaluate all over the catalogue.")
    return shared[:1]


def _metrics(wanted: Sequence[str], run: EvaluatedRun) -> list[str]:
    names = [name.lower() for name in wanted]
    for name in names:
        if not METRIC.fullmatch(name):
            cells = (cell for stage in run.tables for cell in run.metrics[stage].values())
            known = dict.fromkeys(key for cell in cells for key in cell if METRIC.fullmatch(key))
            raise ConfigError(
                f"--metric {name}: there is no such metric of a ranking.{did_you_mean(name, known)}"
            )
    return list(dict.fromkeys(names))


def _drift(a: Contestant, b: Contestant) -> list[Drift]:
    """Metrics of the lists, where all runs of both have them."""
    lists_a, lists_b = (
        [run.metrics[side.stage].get("catalogue", {}) for run in side.group.runs] for side in (a, b)
    )
    names = [
        name
        for name in lists_b[0]
        if name.startswith(OF_LISTS) and all(name in found for found in (*lists_a, *lists_b))
    ]
    drifts = []
    for name in names:
        one, other = (
            float(np.mean([found[name]["value"] for found in lists]))
            for lists in (lists_a, lists_b)
        )
        drifts.append(Drift(a.name, b.name, name, one, other, one - other))
    return drifts


def _watched(steps: Sequence[Step], show: bool) -> Iterator[Step]:
    with progress_bar() if show else nullcontext() as bar:
        task = bar.add_task("compare", total=len(steps), note="differences") if bar else None
        for step in steps:
            yield step
            if bar and task is not None:
                bar.advance(task)
