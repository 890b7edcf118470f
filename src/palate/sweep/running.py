"""A sweep from its configuration to its table."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.comparison.compare import METRIC
from palate.comparison.runs import PROTOCOLS
from palate.errors import ConfigError
from palate.files import by_name
from palate.progress import progress_bar
from palate.sweep.lock import locked
from palate.sweep.outlook import spoken, threads_of
from palate.sweep.plan import LOCK, Job, Plan, plan_sweep, write_plan
from palate.sweep.seconds import seconds_of
from palate.sweep.table import write_tables
from palate.sweep.workers import Told, log_of, work_off

PATIENCE = 15.0
"""Seconds in which the processes of a sweep that was killed notice it."""


@dataclass(frozen=True)
class Swept:
    """What a sweep ended with.

    Attributes:
        folder: of the sweep.
        table: of the runs that are finished; see `sweep_table`.
        failed: name of a run or shared stage → why it failed, or was not begun.
    """

    folder: Path
    table: dict[str, Any]
    failed: dict[str, str]


def sweep(
    config: Path | str,
    over: Mapping[str, Sequence[Any]],
    seeds: int = 1,
    out: Path | str | None = None,
    jobs: int = 1,
    changes: Sequence[str] = (),
    metrics: Sequence[str] = ("ndcg@10",),
    say: Callable[[str], None] = print,
) -> Swept:
    """Run a grid of configurations, each with several seeds, and compare them in one table.

    Runs that agree on what a preparation or an SFT depends on share it. A sweep that was stopped,
    or gets further values or seeds, goes on: nothing that is finished is repeated.

    Args:
        config: YAML file.
        over: key → its values, such as {"align.beta": [0.5, 1.0]}; all combinations are run.
        seeds: how many, from the configuration's own on.
        out: the sweep's folder; default sweeps/NAME, after the configuration's file name.
        jobs: runs at a time, each in a process of its own; they divide the threads among them.
        changes: such as "align.max_steps=100", the same for all.
        metrics: of a ranking, that the table shows.
        say: receives a line for each job that is done or has failed.

    Raises:
        PalateError: something is wrong that can be known before a run starts, the folder holds
            something else, or another process sweeps in it.
    """
    plan = plan_sweep(Path(config), over, seeds, folder_of(config, out), changes)
    _check(metrics)
    threads = threads_of(jobs)
    folder = plan.folder
    refusal = f"{folder}: another sweep is at work here. Wait for it, or choose another --out."
    with locked(folder / LOCK, PATIENCE, refusal) as held:
        _clear(plan)
        write_plan(plan)
        (folder / "logs").mkdir(exist_ok=True)
        left = plan.left()
        done = sum(job not in left for job in plan.runs)
        with progress_bar() as bar:
            task = bar.add_task("runs", total=len(plan.runs), completed=done, note="")
            told = _telling(folder, metrics, say, lambda: bar.advance(task))
            failed = work_off(left, folder, jobs, threads, held, told)
        return Swept(folder, write_tables(folder, metrics), failed)


def folder_of(config: Path | str, out: Path | str | None) -> Path:
    """Where a sweep goes."""
    return by_name(Path(out)) if out is not None else Path("sweeps") / Path(config).stem


def _telling(
    folder: Path, metrics: Sequence[str], say: Callable[[str], None], advance: Callable[[], None]
) -> Told:
    """Says what became of each job, and each warning once."""
    warned: set[str] = set()

    def told(job: Job, error: str | None, warnings: list[str]) -> None:
        for warning in set(warnings) - warned:
            say(f"warning: {job.name}: {warning}")
        warned.update(warnings)
        if error is None:
            say(f"{job.name}: {_outcome(folder, job, metrics)}")
        else:
            log = log_of(job, folder)
            say(f"{job.name} failed: {error}{f' Its log: {log}' if log.is_file() else ''}")
        if job.kind == "run":
            advance()

    return told


def _clear(plan: Plan) -> None:
    """Remove what a killed sweep was writing."""
    half_written = (".*.part", "*/.*.part", "shared/*/continued/.*.part")
    for debris in [path for pattern in half_written for path in plan.folder.glob(pattern)]:
        shutil.rmtree(debris) if debris.is_dir() else debris.unlink()
    for job in plan.jobs:
        folder = plan.folder / job.name
        if folder.is_dir() and not (folder / "config.yaml").is_file():
            shutil.rmtree(folder)


def _outcome(folder: Path, job: Job, metrics: Sequence[str]) -> str:
    """What a finished job has to show: its time, and a run's first metric."""
    taken = [stage["seconds"] for stage in seconds_of(folder / job.name).values()]
    known = [seconds for seconds in taken if seconds is not None]
    parts = [f"done in {spoken(sum(known))}" if len(known) == len(taken) else "done"]
    if job.kind == "run":
        found = json.loads((folder / job.name / "metrics.json").read_text("utf-8"))
        protocol = next(name for name in PROTOCOLS if name in found["aligned"])
        cells = {stage: found[stage][protocol].get(metrics[0]) for stage in ("sft", "aligned")}
        if all(cells.values()):
            values = ", ".join(f"{stage} {cell['value']:.4f}" for stage, cell in cells.items())
            parts.append(f"{metrics[0]} {values}")
    return "; ".join(parts)


def _check(metrics: Sequence[str]) -> None:
    for metric in metrics:
        if not METRIC.fullmatch(metric):
            raise ConfigError(
                f"--metric {metric}: expected one of a ranking at a cutoff, such as ndcg@10."
            )
