"""The stages of a sweep, each in a run folder that starts from a shared one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from palate.config import RunConfig
from palate.environment import check_data, check_environment, device_of
from palate.files import link_or_copy, replacing, write_text
from palate.pipeline import evaluate_stage, prepare_stage, road_of
from palate.report.table import markdown_table
from palate.run_folder import branch, claimed, prepared
from palate.sweep.lock import locked
from palate.sweep.plan import Kind
from palate.sweep.seconds import clocked
from palate.training_stages import Run, align_stage, continue_stage, imitate_stage

Say = Callable[[str], None]
CONTROL = "sft_continued"


def do(kind: Kind, config: RunConfig, folder: Path, source: Path | None, say: Say) -> None:
    """Do a job in its folder, or what is left of it.

    Args:
        kind: "prepare", "sft", or "run" for alignment, its baseline and the evaluation.
        config: what the job depends on.
        folder: where its result goes.
        source: the folder of the job before.
        say: receives one line per stage.

    Raises:
        PalateError: the data does not fit the configuration, or training diverged.
    """
    if source is not None and not folder.exists():
        branch(source, folder, "sft" if kind == "sft" else "align", config, link=True)
    with claimed(config, folder, resume=True, overwrite=False):
        if kind == "prepare":
            clocked("prepare", folder, lambda: prepare_stage(config, folder, say))
    if kind == "sft":
        _imitate(config, folder, say)
    elif kind == "run" and source is not None:
        _align(config, folder, source, say)


def _imitate(config: RunConfig, folder: Path, say: Say) -> None:
    data = prepared(config, folder)
    check_data(config, data)
    road = road_of(config, folder, data, device_of(config.device), say)

    def imitate() -> None:
        imitate_stage(road)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    clocked("sft", folder, imitate)


def _align(config: RunConfig, folder: Path, source: Path, say: Say) -> None:
    device = check_environment(config, starts_anew=False)
    data = prepared(config, folder)
    check_data(config, data, starts_anew=False)
    road = road_of(config, folder, data, device, say)

    def evaluate() -> None:
        metrics = evaluate_stage(road)
        size = config.evaluation.candidates
        write_text(markdown_table(metrics, size), folder / "table.md")

    clocked("align", folder, lambda: align_stage(road))
    clocked(CONTROL, folder, lambda: _continue(road, source))
    clocked("evaluate", folder, evaluate)


def _continue(road: Run, source: Path) -> None:
    """The baseline for alignment, made by the first of the runs whose baselines are the same.

    It depends on the SFT it goes on from and on three numbers of the alignment it is compared with.
    """
    if (road.folder / CONTROL).is_dir():
        return
    alignment = json.loads((road.folder / "aligned" / "training.json").read_text("utf-8"))
    agreed = (alignment["steps"], alignment["validate_every"], road.config.align.metric)
    kept = source / "continued" / "-".join(map(str, agreed))
    with locked(kept.with_name(f"{kept.name}.lock"), None, ""):
        if not kept.is_dir():
            continue_stage(road)
            with replacing(kept) as temporary:
                temporary.mkdir()
                write_text("".join(_lines(road.folder, True)), temporary / "train.jsonl")
                _link(road.folder / CONTROL, temporary / CONTROL)
            return
    road.say(f"{CONTROL}: that of another run with as many steps")
    lines = [*_lines(road.folder, False), *_lines(kept, True)]
    write_text("".join(lines), road.folder / "train.jsonl")
    with replacing(road.folder / CONTROL) as temporary:
        _link(kept / CONTROL, temporary)


def _lines(folder: Path, of_control: bool) -> list[str]:
    """Lines of `train.jsonl`, those of the baseline or the others."""
    path = folder / "train.jsonl"
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []:
        try:
            stage = json.loads(line)["stage"]
        except json.JSONDecodeError:  # the line a killed run was writing
            continue
        if (stage == CONTROL) == of_control:
            kept.append(line)
    return kept


def _link(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=link_or_copy)
