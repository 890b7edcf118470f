"""What a sweep consists of: shared stages, runs, and which waits for which."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palate.config import RunConfig, load_config, parse_config
from palate.environment import check_environment
from palate.errors import ConfigError, PalateError
from palate.files import write_json
from palate.run_folder import DEPENDS_ON, FREE_TO_CHANGE, changed_keys
from palate.sweep.grid import Setting, settings_of, without
from palate.sweep.seconds import seconds_of

PLAN, LOCK = "sweep.json", ".lock"
Kind = Literal["prepare", "sft", "run"]
STAGES = {
    "prepare": ("prepare",),
    "sft": ("sft",),
    "run": ("align", "sft_continued", "evaluate"),
}
"""What a job does, in order."""
SHARED_BY = {
    "prepare": DEPENDS_ON["prepare"],
    # what the evaluation asks for decides on a checkpoint too: by ranking, and among which items
    "sft": (*DEPENDS_ON["prepare"], *DEPENDS_ON["sft"], "evaluation."),
}
"""Beginnings of the keys in which runs must agree to share a stage."""


@dataclass(frozen=True)
class Job:
    """What one process does at a time: prepare, imitate, or the rest of a run.

    Attributes:
        kind: which of them.
        name: its folder within that of the sweep.
        config: of a shared stage, only what it depends on, the rest at its defaults.
        needs: name of the job whose result it starts from.
    """

    kind: Kind
    name: str
    config: RunConfig
    needs: str | None


@dataclass(frozen=True)
class Plan:
    """All of a sweep.

    Attributes:
        folder: that of the sweep.
        settings: combinations of values.
        seeds: each setting is run with all of them.
        jobs: in the order they are begun, each behind the one it needs.
        content: what `sweep.json` holds.
    """

    folder: Path
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    jobs: tuple[Job, ...]
    content: dict[str, Any]

    @property
    def runs(self) -> tuple[Job, ...]:
        """The jobs that end with metrics."""
        return tuple(job for job in self.jobs if job.kind == "run")

    def is_done(self, job: Job) -> bool:
        """Whether a job's result is whole."""
        return STAGES[job.kind][-1] in seconds_of(self.folder / job.name)

    def left(self) -> tuple[Job, ...]:
        """Runs that are not done, and of the shared stages those that they still need."""
        by_name = {job.name: job for job in self.jobs}
        wanted: set[str] = set()
        for job in self.runs:
            one: Job | None = job
            while one is not None and not self.is_done(one):
                wanted.add(one.name)
                one = by_name[one.needs] if one.needs else None
        return tuple(job for job in self.jobs if job.name in wanted)


def plan_sweep(
    config: Path,
    over: Mapping[str, Sequence[Any]],
    seeds: int,
    folder: Path,
    changes: Sequence[str] = (),
) -> Plan:
    """Plan a sweep, and check all that can be known before it starts; nothing is written.

    Args:
        config: YAML file.
        over: key → its values.
        seeds: how many, from the configuration's own on.
        folder: of the sweep; it may hold one over the same keys with other values.
        changes: such as "align.beta=0.5", the same for all.

    Raises:
        PalateError: a configuration is wrong or cannot be run here, or the folder holds something
            else or another sweep.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected at least 1.")
    settings = settings_of(config, _in_known_order(over, folder), changes)
    for setting in settings:
        try:
            check_environment(setting.config)
        except PalateError as error:
            raise type(error)(f"{setting.name}: {error}") from error
    first = settings[0].config
    numbers = tuple(range(first.seed, first.seed + seeds))
    jobs: dict[str, Job] = {}
    runs: list[dict[str, Any]] = []
    for seed in numbers:
        for setting in settings:
            run = setting.config.model_copy(update={"seed": seed})
            data = _shared("prepare", run, None)
            sft = _shared("sft", run, data.name)
            name = f"runs/{setting.name}-{seed}"
            for job in (data, sft, Job("run", name, run, sft.name)):
                jobs.setdefault(job.name, job)
            runs.append(
                {
                    "run": name,
                    "setting": setting.name,
                    "values": setting.values,
                    "seed": seed,
                    "data": data.name,
                    "sft": sft.name,
                }
            )
    content = {
        "config": without(first.model_dump(mode="json"), list(over)),
        "over": list(settings[0].values),
        "seeds": list(numbers),
        "runs": runs,
    }
    plan = Plan(folder, tuple(settings), numbers, tuple(jobs.values()), content)
    _check_folder(plan)
    return plan


def read_plan(folder: Path) -> dict[str, Any]:
    """What `sweep.json` of a sweep's folder holds.

    Raises:
        ConfigError: the folder is not that of a sweep.
    """
    path = folder / PLAN
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not the folder of a sweep. Make one with: palate sweep CONFIG --over "
            f"key=value,value --out {folder}."
        )
    return json.loads(path.read_text("utf-8"))


def write_plan(plan: Plan) -> None:
    """Write `sweep.json`; what is in its folder is the sweep's own from then on."""
    write_json(plan.content, plan.folder / PLAN)


def _shared(kind: Literal["prepare", "sft"], run: RunConfig, needs: str | None) -> Job:
    """A shared stage, named by a hash of what it depends on."""
    content = run.model_dump(mode="json")
    matters = _only(without(content, sorted(FREE_TO_CHANGE)), SHARED_BY[kind])
    hashed = hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()[:12]
    free = {"device": run.device, "trackers": run.trackers}
    config = parse_config(_only(content, SHARED_BY[kind]) | free)
    return Job(kind, f"shared/{kind}-{hashed}", config, needs)


def _only(content: dict[str, Any], beginnings: tuple[str, ...], path: str = "") -> dict[str, Any]:
    """The keys of a nested configuration that begin so."""
    kept = {}
    for key, value in content.items():
        if f"{path}{key}.".startswith(beginnings):
            kept[key] = value
        elif isinstance(value, dict) and (inner := _only(value, beginnings, f"{path}{key}.")):
            kept[key] = inner
    return kept


def _in_known_order(over: Mapping[str, Sequence[Any]], folder: Path) -> dict[str, Sequence[Any]]:
    """Keys in the order in which a sweep that is there has them in the names of its runs."""
    if not (folder / PLAN).is_file():
        return dict(over)
    known = read_plan(folder)["over"]
    if sorted(known) != sorted(over):
        before, now = (", ".join(keys) or "seeds alone" for keys in (known, over))
        raise ConfigError(
            f"{folder} is a sweep over {before}, not over {now}. Choose another folder with --out."
        )
    return {key: over[key] for key in known}


def _check_folder(plan: Plan) -> None:
    folder = plan.folder
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a folder with --out.")
    if not (folder / PLAN).is_file():
        own = (LOCK, f".{PLAN}.")
        if folder.is_dir() and not all(path.name.startswith(own) for path in folder.iterdir()):
            raise ConfigError(
                f"{folder} is not empty and not the folder of a sweep, so it is left alone. Choose "
                "another with --out."
            )
        return
    before = read_plan(folder)
    if changed := changed_keys(before["config"], plan.content["config"]):
        raise ConfigError(
            f"{folder} is a sweep of another configuration ({', '.join(changed)}). Choose another "
            "folder with --out; only values of the keys swept over, and seeds, can be added."
        )
    for job in plan.runs:
        kept = folder / job.name / "config.yaml"
        if kept.is_file():
            other = load_config(kept).model_dump(mode="json")
            if changed := changed_keys(other, job.config.model_dump(mode="json")):
                raise ConfigError(
                    f"{kept.parent} holds a run with another configuration "
                    f"({', '.join(changed)}). Move it elsewhere, and the sweep makes its own."
                )
