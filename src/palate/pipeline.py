"""The whole road: prepare → sft → align → evaluate → report.

Each stage reads what the one before left in the run folder and leaves its own result there whole;
a run that was stopped goes on where it was.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from palate.audit import audit
from palate.config import RunConfig, checked, source_arguments
from palate.data.categories import item_categories, lacks_categories
from palate.data.funnel import funnel_lines
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared, sample_contexts
from palate.data.simulator import Simulation
from palate.data.sources import load as load_source
from palate.environment import check_data, check_environment
from palate.evaluation.examples import write_examples
from palate.evaluation.stages import Evaluation, write_metrics
from palate.files import by_name, write_json
from palate.run_folder import (
    RESULT,
    STAGES,
    branch,
    changed_config,
    claimed,
    forget_evaluation,
    prepared,
    window_of,
    write_config,
)
from palate.training_stages import Run, align_stage, continue_stage, imitate_stage, loaded

Stage = Literal["prepare", "sft", "align", "evaluate"]
TRAINED = ("sft", "sft_continued", "aligned")


def run(
    config: RunConfig,
    folder: Path,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    until: Stage = "evaluate",
) -> dict[str, Any]:
    """Run the whole road into a folder, or its beginning.

    Args:
        config: everything the run depends on.
        folder: the run folder.
        resume: go on with the run that the folder holds.
        overwrite: delete the folder first.
        say: receives one line per stage.
        until: the last stage to run.

    Returns:
        What `metrics.json` holds: [stage][protocol][metric] → value, low, high; empty where the
        run ends before it is evaluated.

    Raises:
        PalateError: the folder exists and neither flag is set, it holds a run of another
            configuration, or the data is wrong.
    """
    config, folder = checked(config), by_name(folder)
    starts_anew = overwrite or not (folder / "sft").is_dir()
    device = check_environment(config, starts_anew)
    with claimed(config, folder, resume, overwrite):
        data = prepare_stage(config, folder, say)
        check_data(config, data, starts_anew)
    if (folder / "metrics.json").is_file():
        say(f"{folder} is finished; its table again:")
        return json.loads((folder / "metrics.json").read_text("utf-8"))
    stages = STAGES[1 : STAGES.index(until) + 1]
    return _after_preparing(config, folder, data, device, say, stages)


def go_on(
    folder: Path,
    stage: Stage,
    changes: Sequence[str] = (),
    out: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run one stage in a folder that holds the stage before it.

    Args:
        folder: a run folder.
        stage: "sft", "align" or "evaluate"; one that is done already is not repeated, except
            "evaluate".
        changes: such as "align.beta=0.5"; what a finished stage depends on cannot be changed.
        out: leave `folder` as it is and go on in a new folder with a copy of it.
        say: receives one line per stage.

    Returns:
        As `run`.

    Raises:
        PalateError: the stage before is missing, a change comes too late, or `out` exists.
    """
    folder, out = by_name(folder), out and by_name(out)
    config, other_options = changed_config(folder, stage, changes, out is not None)
    starts_anew = stage == "sft" and not (folder / "sft").is_dir()
    device = check_environment(config, starts_anew)
    check_data(config, prepared(config, folder), starts_anew)
    if out is not None:
        branch(folder, out, stage)
        folder = out
    # before the options are written: a run that is killed here has the former ones and less done
    if other_options:  # what was half trained with the former ones is of no use
        for left in folder.glob(f"checkpoints/{stage}*"):  # of alignment, those of all rounds
            shutil.rmtree(left)
    is_made = stage in RESULT and (folder / RESULT[stage]).is_dir()
    finished = (folder / "metrics.json").is_file()
    if not is_made and (finished or other_options):
        forget_evaluation(folder)
    write_config(config, folder)
    data = prepare_stage(config, folder, say)
    return _after_preparing(config, folder, data, device, say, (stage,))


def _after_preparing(
    config: RunConfig,
    folder: Path,
    data: Prepared,
    device: torch.device,
    say: Callable[[str], None],
    stages: Sequence[str],
) -> dict[str, Any]:
    road = road_of(config, folder, data, device, say)
    if "sft" in stages:
        imitate_stage(road)
    if "align" in stages:
        align_stage(road)
        continue_stage(road)
    return evaluate_stage(road) if "evaluate" in stages else {}


def road_of(
    config: RunConfig,
    folder: Path,
    data: Prepared,
    device: torch.device,
    say: Callable[[str], None],
) -> Run:
    """What the stages after preparing share."""
    validation_contexts = sample_contexts(
        data.contexts("validation"),
        config.evaluation.validation_contexts,
        config.seed,
        "validation sample",
    )
    evaluation = Evaluation(config, data, folder, _world(config))
    return Run(config, folder, device, data, evaluation, validation_contexts, say)


def prepare_stage(config: RunConfig, folder: Path, say: Callable[[str], None]) -> Prepared:
    """Load the source and prepare it, unless the folder holds the result."""
    manifest = folder / "data.json"
    if not manifest.is_file():
        say(f"prepare: {config.data.source}")
        how = Preparation(
            k_core=config.data.k_core,
            split=config.data.split,
            fractions=config.data.fractions,
            validation_share=config.data.validation_share,
            levels=None if config.data.levels is None else tuple(config.data.levels),
            disliked=config.data.disliked,
            events=config.data.events,
            order=config.data.order,
            window=window_of(config),
            duplicates=config.data.duplicates,
            min_history=config.data.min_history,
        )
        tables = load_source(config.data.source, source_arguments(config))
        content = prepare(tables, folder / "data", how, config.seed)
        data = prepared(config, folder)
        splits = ("train", "validation", "test")
        content["contexts"] = {split: len(data.contexts(split)) for split in splits}
        write_json(content, manifest)
        for line in funnel_lines(content["funnel"]):
            say(line)
    content = json.loads(manifest.read_text("utf-8"))
    counts, contexts = content["counts"], content["contexts"]
    say(
        f"data: {counts['users']:,} users, {counts['items']:,} items, "
        f"{counts['interactions']:,} interactions; contexts: {contexts['train']:,} train, "
        f"{contexts['validation']:,} validation, {contexts['test']:,} test; "
        f"ties: {content['ties']['rule']}"
    )
    return prepared(config, folder)


def evaluate_stage(run: Run) -> dict[str, Any]:
    """Rank the test contexts with every stage that is there, and compare."""
    trained = [name for name in TRAINED if (run.folder / name).is_dir()]
    run.say(f"evaluate: {len(run.evaluation.contexts):,} test contexts, every stage")
    for stage in trained:
        load = partial(loaded, run.folder / stage, run.device)
        run.evaluation.rank_policy(stage, load)
        run.evaluation.generate(stage, load)
    write_examples(run.evaluation, run.folder)
    ranks_all = "catalogue" in run.config.evaluation.protocols
    if ranks_all and item_categories(run.data.items)[0] is None:
        run.say(lacks_categories(run.data.items))
    metrics = write_metrics(run.evaluation, run.folder)
    write_json(audit(run.folder, seed=run.config.seed).to_json(), run.folder / "audit.json")
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return metrics


def _world(config: RunConfig) -> Simulation | None:
    is_simulated = config.data.source == "simulate"
    return Simulation(**source_arguments(config)) if is_simulated else None
