"""The stages that train: imitation, alignment in its rounds, and the baseline for alignment.

Each stage reads what the one before left in the run folder and leaves its own result there whole; a
stage that is done is not repeated.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from palate.chosen_objective import chosen_objective, described
from palate.config import AlignConfig, RunConfig, SequenceShape
from palate.data.contexts import ContextSet
from palate.data.prepared import Prepared
from palate.errors import CheckpointError, DataError
from palate.evaluation.stages import Evaluation
from palate.files import replacing, write_json
from palate.item_vectors import item_vectors
from palate.negatives import Mixture, mixture
from palate.policies import LanguagePolicy, Policy, load_policy
from palate.policies.finite import not_finite
from palate.policies.reference import REFERENCES, Cached, Reference
from palate.starting_policy import new_policy, warn_of_short_prompts
from palate.training.align import align
from palate.training.holdout import split_training
from palate.training.rounds import Round, rounds_of
from palate.training.scored_pools import check_pool
from palate.training.sft import imitate
from palate.training.trainer import Trained, Validation


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


def imitate_stage(run: Run) -> None:
    """Supervised fine-tuning, unless done."""
    if (run.folder / "sft").is_dir():
        return
    data = split_training(run.data, run.config.align.holdout)[0]
    made = run.folder / "data" / "vectors"
    vectors = item_vectors(data.items, run.config.policy.vectors, made, run.device, run.say)
    policy = new_policy(run.config, data.items, vectors, data.popularity)
    if (name := not_finite(policy.model)) is not None:
        raise CheckpointError(
            f"policy.base: the weight {name} of '{run.config.policy.base}' is not finite, so there "
            "is nothing to train. Load or copy the model again."
        )
    if isinstance(policy, LanguagePolicy):
        warn_of_short_prompts(policy, run.data)
        _check_pool(run, policy)
    chosen = run.config.policy
    if chosen.kind == "sequence" and chosen.base and chosen.sequence != SequenceShape():
        run.say("sft: policy.base has a shape of its own; policy.sequence is passed over")
    policy.start_stage("sft")
    policy.model.to(run.device)
    sizes = [(w.numel(), w.requires_grad) for w in policy.model.parameters()]
    total, trained = sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)
    part = "" if trained == total else f" ({trained:,} of them trained)"
    run.say(f"sft: {run.config.policy.kind}, {total:,} parameters{part}, on {run.device}")
    if run.config.sft.max_steps == 0:
        run.say("sft: no step, as sft.max_steps is 0; the policy stays as it comes")
        _save(policy, run.folder / "sft", Trained(steps=0, validate_every=0))
        return
    done = imitate(
        "sft",
        policy,
        data,
        _validation(run, policy, run.config.sft.metric),
        run.config.sft,
        run.folder,
        run.config.seed,
        tuple(run.config.trackers),
    )
    _save(policy, run.folder / "sft", done)


def _check_pool(run: Run, policy: LanguagePolicy) -> None:
    """Refuse, before anything is learnt, what the policy cannot be asked in alignment."""
    options = run.config.align
    if _negatives(run, options).asks_policy:
        has_lists = run.data.lists is not None
        check_pool(options.pool, policy.kind, policy.lists_candidates, has_lists, policy.engine)


def _negatives(run: Run, options: AlignConfig) -> Mixture:
    return mixture(options.negatives, run.data, options.exclude_history, options.sampler_options)


def align_stage(run: Run) -> None:
    """Preference optimisation of the SFT policy, in rounds where so configured, unless done."""
    if (run.folder / "aligned").is_dir():
        return
    options = run.config.align
    negatives = ", ".join(f"{count} {name}" for name, count in options.negatives.items())
    in_rounds = f", {options.rounds} rounds" if options.rounds > 1 else ""
    run.say(
        f"align: {described(options)}, beta {options.beta:g}, negatives: {negatives}{in_rounds}"
    )
    newest, steps = run.folder / "sft", 0
    for one in rounds_of(options, run.config.seed):
        if one.number > 1 and options.sft_between:
            newest = _imitate_between(run, one, newest)
            steps += _trained(newest)["steps"]
        is_last = one.number == options.rounds
        end = run.folder / "aligned" if is_last else _end_of(run, one.stage)
        if not end.is_dir():
            _align_round(run, one, newest, end, steps if is_last else 0)
        newest = end
        steps += _trained(newest)["steps"]


def _align_round(run: Run, one: Round, start: Path, end: Path, steps_before: int) -> None:
    """From the policy in one folder to that in another; the next round holds neither in memory."""
    options = one.options
    policy = _started(run, start, "align")
    held_to = policy
    if one.number > 1 and not options.refresh_reference:
        held_to = _started(run, run.folder / "sft", "align")
    done = align(
        policy,
        split_training(run.data, options.holdout)[1],
        _negatives(run, options),
        chosen_objective(options),
        options.beta,
        _reference(run, held_to, one),
        _validation(run, policy, options.metric),
        options,
        run.folder,
        one.seed,
        tuple(run.config.trackers),
        options.moments_together,
        options.pool,
        one.stage,
        options.log_q,
    )
    _save(policy, end, done._replace(steps=steps_before + done.steps))


def _imitate_between(run: Run, one: Round, start: Path) -> Path:
    """A few steps of imitation before a round; where their result is."""
    stage, steps = f"{one.stage}_sft", one.options.sft_between
    end = _end_of(run, stage)
    if not end.is_dir():
        policy = _started(run, start, "sft")
        metric = one.options.metric
        done = imitate(
            stage,
            policy,
            split_training(run.data, one.options.holdout)[0],
            _validation(run, policy, metric),
            run.config.sft.model_copy(update={"max_steps": steps, "metric": metric}),
            run.folder,
            one.seed,
            tuple(run.config.trackers),
            early_stopping=False,
            validate_every=steps,
        )
        _save(policy, end, done)
    return end


def continue_stage(run: Run) -> None:
    """The baseline for alignment: imitation continued for as many steps, unless done.

    It imitates what alignment learnt from: the held-out part where there is one. Its checkpoint is
    chosen as alignment's is: by the same metric at the same steps.
    """
    if (run.folder / "sft_continued").is_dir():
        return
    alignment = _trained(run.folder / "aligned")
    steps, metric = alignment["steps"], run.config.align.metric
    run.say(f"sft_continued: {steps} more steps of imitation")
    policy = _started(run, run.folder / "sft", "sft")
    done = imitate(
        "sft_continued",
        policy,
        split_training(run.data, run.config.align.holdout)[1],
        _validation(run, policy, metric),
        run.config.sft.model_copy(update={"max_steps": steps, "metric": metric}),
        run.folder,
        run.config.seed + 1,
        tuple(run.config.trackers),
        early_stopping=False,
        validate_every=alignment["validate_every"],
    )
    _save(policy, run.folder / "sft_continued", done)


def _validation(run: Run, policy: Policy, metric: str) -> Validation:
    return lambda: run.evaluation.validate(policy, run.validation_contexts, metric)


def _reference(run: Run, policy: Policy, one: Round) -> Reference:
    options = one.options
    if options.reference != "cached":
        return REFERENCES[options.reference](policy, options.precision)
    checkpoints = run.folder / "checkpoints"
    if one.number > 1 and options.refresh_reference:  # no other run will have these weights
        folder = checkpoints / one.stage / "reference" / options.precision
    elif options.reference_cache is None:
        folder = checkpoints / "reference" / options.precision
    else:
        folder = Path(options.reference_cache)
    pairs, ahead = options.reference_pairs, options.reference_ahead
    return Cached(policy, options.precision, folder, pairs, ahead)


def loaded(folder: Path, device: torch.device) -> Policy:
    """A saved policy on a device."""
    policy = load_policy(folder)
    policy.model.to(device)
    return policy


def _started(run: Run, folder: Path, stage: Literal["sft", "align"]) -> Policy:
    """A saved policy, ready for a stage of training on the run's device."""
    policy = loaded(folder, run.device)
    policy.start_stage(stage)
    policy.model.to(run.device)
    return policy


def _end_of(run: Run, stage: str) -> Path:
    """Where the policy is that a round, or imitation between two, ended with."""
    return run.folder / "checkpoints" / stage / "end"


def _trained(folder: Path) -> dict[str, int]:
    """What a stage did; see `Trained`."""
    return json.loads((folder / "training.json").read_text("utf-8"))


def _save(policy: Policy, folder: Path, done: Trained) -> None:
    if (name := not_finite(policy.model)) is not None:
        raise DataError(
            f"{folder.name}: the weight {name} is not finite at the end of the stage, so it is not "
            "saved. Lower the learning rate or beta of this stage."
        )
    with replacing(folder) as temporary:
        temporary.mkdir()
        policy.save(temporary)
        write_json(done._asdict(), temporary / "training.json")
