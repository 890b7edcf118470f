"""The whole road: prepare → sft → align → evaluate → report.

Each stage reads what the one before left in the run folder and leaves its own result there whole;
a run that was stopped goes on where it was.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from palate.chosen_objective import chosen_objective, described
from palate.config import RunConfig, source_arguments
from palate.data.contexts import ContextSet, Prepared, sample_contexts
from palate.data.prepare import Preparation, prepare
from palate.data.simulator import Simulation
from palate.data.sources import load as load_source
from palate.environment import check_data, check_environment
from palate.evaluation.stages import Evaluation, write_metrics
from palate.files import replacing, write_json
from palate.negatives import mixture
from palate.policies import LanguagePolicy, Policy, load_policy
from palate.policies.reference import REFERENCES, Cached, Reference
from palate.run_folder import (
    RESULT,
    STAGES,
    branch,
    changed_config,
    claimed,
    forget_evaluation,
    write_config,
)
from palate.starting_policy import new_policy, warn_of_short_prompts
from palate.training.align import align
from palate.training.sft import imitate
from palate.training.trainer import Trained, Validation

Stage = Literal["prepare", "sft", "align", "evaluate"]
TRAINED = ("sft", "sft_continued", "aligned")


@dataclass(frozen=True)
class Run:
    """What the training stages share.

    Attributes:
        config: everything the run depends on.
        folder: the run folder.
        device: where policies are trained.
        data: the prepared data.
        evaluation: validates a policy, later ranks it.
        validation_contexts: what a policy is validated on.
        say: receives one line per stage.
    """

    config: RunConfig
    folder: Path
    device: torch.device
    data: Prepared
    evaluation: Evaluation
    validation_contexts: ContextSet
    say: Callable[[str], None]


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
    config, other_options = changed_config(folder, stage, changes, out is not None)
    starts_anew = stage == "sft" and not (folder / "sft").is_dir()
    device = check_environment(config, starts_anew)
    check_data(config, prepared(config, folder), starts_anew)
    if out is not None:
        branch(folder, out, stage)
        folder = out
    write_config(config, folder)
    if other_options:  # what was half trained with the former ones is of no use
        shutil.rmtree(folder / "checkpoints" / stage, ignore_errors=True)
    is_made = stage in RESULT and (folder / RESULT[stage]).is_dir()
    finished = (folder / "metrics.json").is_file()
    if not is_made and (finished or other_options):
        forget_evaluation(folder)
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
    evaluation = Evaluation(config, data, folder, _world(config))
    validation_contexts = sample_contexts(
        data.contexts("validation"),
        config.evaluation.validation_contexts,
        config.seed,
        "validation sample",
    )
    road = Run(config, folder, device, data, evaluation, validation_contexts, say)
    if "sft" in stages:
        imitate_stage(road)
    if "align" in stages:
        align_stage(road)
        continue_stage(road)
    return evaluate_stage(road) if "evaluate" in stages else {}


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
            levels=tuple(config.data.levels),
            disliked=config.data.disliked,
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
    content = json.loads(manifest.read_text("utf-8"))
    counts, contexts = content["counts"], content["contexts"]
    say(
        f"data: {counts['users']:,} users, {counts['items']:,} items, "
        f"{counts['interactions']:,} interactions; contexts: {contexts['train']:,} train, "
        f"{contexts['validation']:,} validation, {contexts['test']:,} test; "
        f"ties: {content['ties']['rule']}"
    )
    return prepared(config, folder)


def prepared(config: RunConfig, folder: Path) -> Prepared:
    """The prepared data of a run folder."""
    return Prepared(folder / "data", window_of(config), config.data.min_history)


def window_of(config: RunConfig) -> int:
    """Interactions among which a context's positives lie; 1 for the next item."""
    return 1 if config.data.positives == "next" else config.data.window


def imitate_stage(run: Run) -> None:
    """Supervised fine-tuning, unless done."""
    if (run.folder / "sft").is_dir():
        return
    policy = new_policy(run.config, run.data.items)
    if isinstance(policy, LanguagePolicy):
        warn_of_short_prompts(policy, run.data)
    policy.start_stage("sft")
    policy.model.to(run.device)
    sizes = [(w.numel(), w.requires_grad) for w in policy.model.parameters()]
    total, trained = sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)
    part = "" if trained == total else f" ({trained:,} of them trained)"
    run.say(f"sft: {run.config.policy.kind}, {total:,} parameters{part}, on {run.device}")
    done = imitate(
        "sft",
        policy,
        run.data,
        _validation(run, policy, run.config.sft.metric),
        run.config.sft,
        run.folder,
        run.config.seed,
        tuple(run.config.trackers),
    )
    _save(policy, run.folder / "sft", done)


def align_stage(run: Run) -> None:
    """Preference optimisation of the SFT policy, unless done."""
    if (run.folder / "aligned").is_dir():
        return
    options = run.config.align
    negatives = ", ".join(f"{count} {name}" for name, count in options.negatives.items())
    run.say(f"align: {described(options)}, beta {options.beta:g}, negatives: {negatives}")
    policy = _load(run.folder / "sft", run.device)
    policy.start_stage("align")
    policy.model.to(run.device)
    done = align(
        policy,
        run.data,
        mixture(options.negatives, run.data, options.exclude_history, options.sampler_options),
        chosen_objective(options),
        options.beta,
        _reference(run, policy),
        _validation(run, policy, options.metric),
        options,
        run.folder,
        run.config.seed,
        tuple(run.config.trackers),
        options.moments_together,
    )
    _save(policy, run.folder / "aligned", done)


def continue_stage(run: Run) -> None:
    """The baseline for alignment: imitation continued for as many steps, unless done.

    Its checkpoint is chosen as alignment's is: by the same metric at the same steps.
    """
    if (run.folder / "sft_continued").is_dir():
        return
    alignment = json.loads((run.folder / "aligned" / "training.json").read_text("utf-8"))
    steps, metric = alignment["steps"], run.config.align.metric
    run.say(f"sft_continued: {steps} more steps of imitation")
    policy = _load(run.folder / "sft", run.device)
    policy.start_stage("sft")
    policy.model.to(run.device)
    done = imitate(
        "sft_continued",
        policy,
        run.data,
        _validation(run, policy, metric),
        run.config.sft.model_copy(update={"max_steps": steps, "metric": metric}),
        run.folder,
        run.config.seed + 1,
        tuple(run.config.trackers),
        early_stopping=False,
        validate_every=alignment["validate_every"],
    )
    _save(policy, run.folder / "sft_continued", done)


def evaluate_stage(run: Run) -> dict[str, Any]:
    """Rank the test contexts with every stage that is there, and compare."""
    trained = [name for name in TRAINED if (run.folder / name).is_dir()]
    run.say(f"evaluate: {len(run.evaluation.contexts):,} test contexts, every stage")
    for stage in trained:
        load = partial(_load, run.folder / stage, run.device)
        run.evaluation.rank_policy(stage, load)
        run.evaluation.generate(stage, load)
    metrics = write_metrics(run.evaluation, run.folder)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return metrics


def _validation(run: Run, policy: Policy, metric: str) -> Validation:
    return lambda: run.evaluation.validate(policy, run.validation_contexts, metric)


def _reference(run: Run, policy: Policy) -> Reference:
    options = run.config.align
    if options.reference != "cached":
        return REFERENCES[options.reference](policy, options.precision)
    own = run.folder / "checkpoints" / "reference" / options.precision
    folder = own if options.reference_cache is None else Path(options.reference_cache)
    pairs, ahead = options.reference_pairs, options.reference_ahead
    return Cached(policy, options.precision, folder, pairs, ahead)


def _world(config: RunConfig) -> Simulation | None:
    is_simulated = config.data.source == "simulate"
    return Simulation(**source_arguments(config)) if is_simulated else None


def _load(folder: Path, device: torch.device) -> Policy:
    policy = load_policy(folder)
    policy.model.to(device)
    return policy


def _save(policy: Policy, folder: Path, done: Trained) -> None:
    with replacing(folder) as temporary:
        temporary.mkdir()
        policy.save(temporary)
        write_json(done._asdict(), temporary / "training.json")
