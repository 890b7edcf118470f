"""Which policy of a run makes the lists, and what its evaluation said of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.contexts import Ids
from palate.data.prepared import Prepared
from palate.data.tables import SKIP
from palate.environment import device_of
from palate.errors import ConfigError
from palate.policies import Policy, load_policy
from palate.policies.settings import SETTINGS
from palate.report.charts import number
from palate.report.names import metric_name
from palate.report.standing import chief_metric, p_text, sign_of
from palate.starting_policy import find_code_of

SERVED = ("aligned", "sft", "sft_continued")
"""Stages that leave a policy in the run folder; the first that is there is served by default."""


def stage_of(folder: Path, stage: str | None = None) -> str | None:
    """The stage of a run folder that makes the lists; None for a policy's own folder.

    Args:
        folder: a run folder, or a policy's own.
        stage: aligned, sft or sft_continued; None for aligned, or sft where that is all there is.

    Raises:
        ConfigError: there is no such stage, the folder is a policy's own and has none, or a run's
            in which nothing was trained.
    """
    found = [name for name in SERVED if (folder / name / SETTINGS).is_file()]
    if stage is not None and stage not in found:
        raise ConfigError(
            f"--stage {stage}: {folder} holds "
            + (f"{' and '.join(found)} only." if found else "no stages of a run; leave it out.")
        )
    if not found and (folder / "data" / "interactions.parquet").is_file():
        raise ConfigError(f"{folder} has no trained policy yet. First: palate sft {folder}.")
    return stage or next(iter(found), None)


def policy_of(folder: Path, stage: str | None = None) -> Policy:
    """A policy of a run folder, or the one that a folder holds itself, on its device.

    Args:
        folder, stage: as in `stage_of`.

    Raises:
        ConfigError: there is no such folder or stage.
        CheckpointError: the policy is missing or not whole.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Expected a run folder, or a policy's own.")
    stage = stage_of(folder, stage)
    if stage is not None:
        find_code_of(folder)
    policy = load_policy(folder if stage is None else folder / stage)
    policy.model.to(device_of("auto"))
    return policy


def popularity_of(folder: Path, policy: Policy) -> Ids | None:
    """(items,) how often each item of a policy was consumed in training.

    Args:
        folder: a run folder, or a stage's folder in one.
        policy: its policy.

    Returns:
        Counts in the order of the policy's items; None where the folder's run has no data.
    """
    for run in (folder, folder.parent):
        if (run / "config.yaml").is_file() and (run / "data" / "interactions.parquet").is_file():
            break
    else:
        return None
    if policy.items is None:
        return None
    data = Prepared(run / "data", window=1)
    counts = dict(zip(data.items["source_id"].to_pylist(), data.popularity, strict=True))
    return np.array([counts.get(name, 0) for name in policy.items["source_id"].to_pylist()])


def shown_events(folder: Path) -> list[str]:
    """Events of a run's log that say an item was shown and passed over: "skip", unless
    `data.events` says otherwise.

    Args:
        folder: a run folder, or a stage's folder in one.
    """
    events: dict[str, Any] = {}
    for run in (folder, folder.parent):
        if (run / "data.json").is_file():
            manifest = json.loads((run / "data.json").read_text("utf-8"))
            events = manifest.get("preparation", {}).get("events") or {}
            break
    return [kind for kind, meaning in ({SKIP: "shown"} | events).items() if meaning == "shown"]


def spoken_against(folder: Path, stage: str | None) -> str | None:
    """What a run's evaluation says against serving a stage, as a sentence; None for nothing.

    It speaks against a stage that could not be shown to rank better than what it is held against,
    and against one that another ranks better than.
    """
    if stage is None or not (folder / "metrics.json").is_file():
        return None
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))
    protocol, metric = chief_metric(metrics)
    said = []
    for pair, of_protocols in metrics.get("differences", {}).items():
        first, _, second = pair.partition("-")
        if (found := of_protocols.get(protocol, {}).get(metric)) is None:
            continue
        verdict = sign_of(found)
        if stage == first and verdict != "better":
            how = "ranks worse than" if verdict == "worse" else "not shown to rank better than"
            if verdict == "undecided" and not found["low"] <= 0 <= found["high"]:
                how = "interval and test disagree against"
            said.append(f"{how} {second} ({_figures(found)})")
        elif stage == second and verdict == "better":
            said.append(f"{first} ranks better ({_figures(found)})")
    if not said:
        return None
    by = metric_name(metric) + (" among candidates" if protocol == "candidates" else "")
    return (
        f"{folder}: by {by}, its evaluation speaks against {stage}: {'; '.join(said)}. Choose "
        "another stage with --stage."
    )


def _figures(found: dict[str, Any]) -> str:
    value, low, high = (number(found[name], "+") for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}], {p_text(found['p'])}"
