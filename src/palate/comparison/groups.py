"""Runs that agree on everything but the seed are one group; what stands against what."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.comparison.rows import Side
from palate.comparison.runs import EvaluatedRun
from palate.errors import ConfigError


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, by ascending seed.

    Attributes:
        name: what they are called; no two groups share it.
        runs: one per seed.
        settings: keys in which the groups differ → their values here.
    """

    name: str
    runs: tuple[EvaluatedRun, ...]
    settings: dict[str, Any]

    def side(self, stage: str, name: str) -> Side:
        """The group at one stage, in plain values."""
        return Side(
            name=name,
            stage=stage,
            folders=tuple(str(run.folder) for run in self.runs),
            seeds=tuple(run.seed for run in self.runs),
            settings=self.settings,
        )


def grouped(folders: Sequence[Path], baseline: Path | None = None) -> list[Group]:
    """The runs in some folders, those that differ by the seed alone together.

    Args:
        folders: run folders that are evaluated.
        baseline: folder of a run whose group comes first, in `folders` or not; else the first's.

    Raises:
        CheckpointError: a folder holds no evaluated run.
        ConfigError: a folder is given twice, or two hold the same configuration and seed.
    """
    paths = [Path(folder) for folder in folders]
    for index, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:index]]:
            raise ConfigError(f"{path} is given twice. Name each run once.")
    if baseline is not None:
        others = [path for path in paths if path.resolve() != Path(baseline).resolve()]
        paths = [Path(baseline), *others]
    by_settings: dict[str, dict[int, EvaluatedRun]] = {}
    for path in paths:
        run = EvaluatedRun(path)
        same = by_settings.setdefault(json.dumps(run.settings, sort_keys=True, default=str), {})
        if run.seed in same:
            raise ConfigError(
                f"{same[run.seed].folder} and {path} hold the same configuration and seed. Leave "
                "one of them out."
            )
        same[run.seed] = run
    groups = [tuple(same[seed] for seed in sorted(same)) for same in by_settings.values()]
    firsts = [runs[0].settings for runs in groups]
    keys = dict.fromkeys(key for settings in firsts for key in settings)
    differing = [key for key in keys if any(_differ(s, firsts[0], key) for s in firsts)]
    return [
        Group(
            name, runs, {key: runs[0].settings[key] for key in differing if key in runs[0].settings}
        )
        for name, runs in zip(_names(groups), groups, strict=True)
    ]


def _differ(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    return (key in one) != (key in other) or one.get(key) != other.get(key)


def _names(groups: Sequence[tuple[EvaluatedRun, ...]]) -> list[str]:
    """The folders' names, without the seed where a group has several; paths where names clash."""
    names = []
    for first, *others in groups:
        stem = _without_seed(first)
        if not (stem and others and all(_without_seed(run) == stem for run in others)):
            stem = first.folder.resolve().name
        names.append(stem)
    if len(set(names)) < len(names):
        return [str(first.folder) for first, *_ in groups]
    return names


def _without_seed(run: EvaluatedRun) -> str:
    name = run.folder.resolve().name
    return re.sub(rf"(^|[-_.= ]+)(seed)?[-_.= ]*0*{run.seed}$", "", name)
