"""How long stages took, kept beside their results, and what that says of those to come."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import TypedDict

import torch

from palate.files import write_json

KEPT = "seconds.json"
TRACES = {
    "prepare": ("data",),
    "sft": ("sft", "checkpoints/sft*"),
    "align": ("aligned", "checkpoints/align*"),
    "sft_continued": ("sft_continued", "checkpoints/sft_continued*"),
    "evaluate": ("metrics.json", "checkpoints/ranks"),
}
"""What a stage leaves in a folder, begun or done."""


class Taken(TypedDict):
    """What a stage took: seconds, unknown where it was stopped and went on; threads it had."""

    seconds: float | None
    threads: int


def clocked(stage: str, folder: Path, work: Callable[[], object]) -> None:
    """Do a stage and keep how long it took; one that has been kept is not done again."""
    if stage in seconds_of(folder):
        return
    went_on = any(any(folder.glob(trace)) for trace in TRACES[stage])
    start = time.perf_counter()
    work()
    elapsed = None if went_on else round(time.perf_counter() - start, 2)
    taken: Taken = {"seconds": elapsed, "threads": torch.get_num_threads()}
    write_json({**seconds_of(folder), stage: taken}, folder / KEPT)


def seconds_of(folder: Path) -> dict[str, Taken]:
    """Stage → what it took, for the stages of a folder that are done."""
    path = folder / KEPT
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def expected_seconds(
    ahead: Iterable[str], done: Iterable[dict[str, Taken]], threads: int
) -> tuple[float, set[str]]:
    """What stages will take in all, by the mean of those that are done.

    Args:
        ahead: the stages to come, each as often as it will be made.
        done: `seconds_of` folders.
        threads: how many a stage will have; those made with another number tell nothing.

    Returns:
        Seconds of processes, and the stages among those ahead of which nothing is known.
    """
    known: dict[str, list[float]] = {}
    for folder in done:
        for stage, taken in folder.items():
            if taken["seconds"] is not None and taken["threads"] == threads:
                known.setdefault(stage, []).append(taken["seconds"])
    total, unknown = 0.0, set()
    for stage in ahead:
        if stage in known:
            total += fmean(known[stage])
        else:
            unknown.add(stage)
    return total, unknown
