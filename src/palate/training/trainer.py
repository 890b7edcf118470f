"""`transformers.Trainer`, told what a batch of contexts is.

What is ours: how a loss comes out of a batch, in which order batches come, and that validation
ranks held-out items. All else (optimiser, schedule, accumulation, mixed precision, checkpoints,
resuming, several processes) is the Trainer's.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import get_last_checkpoint, set_seed

from palate.config import TrainingOptions
from palate.errors import CheckpointError, DataError
from palate.policies.finite import not_finite
from palate.policies.policy import Policy
from palate.training.batches import Batches
from palate.training.callbacks import (
    CollapseWarning,
    EarlyStopping,
    JsonLines,
    ProgressBar,
    Validation,
    tensorboard,
    validations_without_gain,
)

Losses = Callable[[nn.Module, dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]
"""(module, batch) → one loss per context, and scalars to log."""


class Stateful(Protocol):
    """What may have a state of its own that a checkpoint must carry."""

    def state_dict(self) -> dict[str, Any]:
        """Its state in plain values and tensors; empty where there is none to carry."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a former state."""
        ...


class Trained(NamedTuple):
    """What a stage did: optimiser steps made, and steps between validations."""

    steps: int
    validate_every: int


class RecommenderTrainer(Trainer):
    """Minimises the mean of a per-context loss over the contexts of a step.

    Args:
        policy: what is trained.
        losses: the loss of each context of a batch.
        validation: metrics of the policy as it is.
        dataset: examples, fetched by (epoch, index); see `Batches`.
        collate: examples → batch with a number of `contexts`.
        arguments: the Trainer's own.
        states: name → what has a state that belongs to a checkpoint.
    """

    def __init__(
        self,
        policy: Policy,
        losses: Losses,
        validation: Validation,
        dataset: Any,
        collate: Callable[[Any], dict[str, Any]],
        arguments: TrainingArguments,
        states: Mapping[str, Stateful] | None = None,
    ) -> None:
        super().__init__(
            model=policy.model,
            args=arguments,
            train_dataset=dataset,
            eval_dataset=dataset if arguments.eval_strategy != "no" else None,
            data_collator=collate,
        )
        self.loss_is_scaled_for_ga = True
        self._policy = policy
        self._losses = losses
        self._validation = validation
        self._states = states or {}
        self._sums: dict[str, Tensor] = {}
        self._batches = 0

    def get_train_dataloader(self) -> DataLoader:
        """Batches in the order that (seed, epoch) names."""
        dataset: Any = self.train_dataset
        batches = Batches(
            self._policy, dataset, self.args.per_device_train_batch_size, self.args.seed
        )
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one step and how many contexts they hold over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        contexts = torch.tensor(sum(batch["contexts"] for batch in batches), device=device)
        everywhere: Any = self.accelerator.gather(contexts)
        return batches, everywhere.sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This batch's share of the mean over the contexts of the step."""
        losses, logs = self._losses(model, {**inputs, "step": self.state.global_step})
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._batches += 1
        total = inputs["contexts"] if num_items_in_batch is None else num_items_in_batch
        # processes average their gradients, but the total counts the contexts of all of them
        loss = losses.sum() * self.accelerator.num_processes / total
        return (loss, losses) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last line; stops the run where the loss is not a number."""
        if not math.isfinite(logs.get("loss", 0.0)):
            raise DataError(
                f"the loss is {logs['loss']} at step {self.state.global_step}: training diverged. "
                "Lower the learning rate or beta of this stage."
            )
        if "loss" in logs and self._batches:
            logs |= {name: float(value) / self._batches for name, value in self._sums.items()}
            self._sums, self._batches = {}, 0
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Only finite weights become a checkpoint, so that the last good one stays the last."""
        self._check_weights()
        super()._save_checkpoint(model, trial)

    def _check_weights(self) -> None:
        if (name := not_finite(self._policy.model)) is None:
            return
        kept = last_whole_checkpoint(Path(str(self.args.output_dir)))
        raise DataError(
            f"the weight {name} is not finite after step {self.state.global_step}: training "
            "diverged. Lower the learning rate or beta of this stage. "
            + (f"The last good checkpoint is {kept}." if kept else "No checkpoint was written.")
        )

    def _load_best_model(self) -> None:
        """The best checkpoint where it is now; the Trainer looks where it was written, which is
        another place once a run folder was moved or copied, or is named from another folder."""
        best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
        if not any(any(best.rglob(f"*model*.{end}")) for end in ("safetensors", "bin")):
            raise CheckpointError(
                f"{best} is the best checkpoint of this stage, and its weights are not there. Put "
                f"the folder back, or delete {best.parent} to train the stage anew."
            )
        self.state.best_model_checkpoint = str(best)
        super()._load_best_model()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Other states stand beside that of the optimiser."""
        super()._save_optimizer_and_scheduler(output_dir)
        for name, one in self._states.items():
            if state := one.state_dict():
                torch.save(state, Path(output_dir) / f"{name}_{self.args.process_index}.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        for name, one in self._states.items():
            if not one.state_dict():
                continue
            # of more processes than before, the new ones go on from the first one's state
            names = [f"{name}_{process}.pt" for process in (self.args.process_index, 0)]
            saved = [path for path in map(Path(checkpoint).joinpath, names) if path.is_file()]
            if not saved:
                raise CheckpointError(
                    f"{checkpoint} lacks {names[-1]}, a state that training goes on from. Delete "
                    "the folder to go on from an earlier checkpoint, or from the start of the "
                    "stage."
                )
            one.load_state_dict(torch.load(saved[0], weights_only=True))

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Ranks the held-out items of the validation contexts."""
        self._check_weights()
        metrics = {
            f"{metric_key_prefix}_{name}": value for name, value in self._validation().items()
        }
        chosen_by = f"{metric_key_prefix}_{self.args.metric_for_best_model}"
        if not math.isfinite(metrics.get(chosen_by, 0.0)):
            raise DataError(
                f"validation {self.args.metric_for_best_model} is {metrics[chosen_by]} at step "
                f"{self.state.global_step}, so no checkpoint can be chosen by it. Lower the "
                "learning rate or beta of this stage, or choose another metric."
            )
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def train(
    stage: str,
    policy: Policy,
    losses: Losses,
    validation: Validation,
    dataset: Dataset[Any],
    collate: Callable[[Any], dict[str, Any]],
    options: TrainingOptions,
    folder: Path,
    seed: int,
    trackers: tuple[str, ...] = ("tensorboard",),
    early_stopping: bool = True,
    validate_every: int | None = None,
    states: Mapping[str, Stateful] | None = None,
    watch_collapse: bool = False,
) -> Trained:
    """Train a policy in place and leave it at its best checkpoint.

    Args:
        stage: names the stage in the progress bar and in `train.jsonl`.
        policy: what is trained.
        losses: the loss of each context of a batch.
        validation: metrics of the policy as it is; `options.metric` is among them.
        dataset: examples, fetched by (epoch, index), with `sizes`.
        collate: examples → batch.
        options: how to train.
        folder: the run folder; checkpoints go to `checkpoints/STAGE` in it and are found there
            again by a run that was stopped.
        seed: names the order of batches and seeds dropout.
        trackers: what else to log to, by the names of the Trainer's `report_to`.
        early_stopping: stop when validation no longer improves; else all steps are made.
        validate_every: steps between validations; by default from `options.evaluations`.
        states: name → what has a state of its own, which is kept in checkpoints.
        watch_collapse: whether to validate the policy as it starts and warn of a collapse.

    Returns:
        What was done, steps after the best checkpoint included.
    """
    set_seed(seed)
    sizes: Any = dataset
    per_epoch, steps = planned_steps(options, len(sizes))
    interval = validate_every or max(1, min(round(per_epoch / options.evaluations), steps))
    checkpoints = folder / "checkpoints" / stage
    on_cuda = policy_device(policy).type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=math.ceil(options.warmup * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.clip,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=options.metric,
        greater_is_better=options.metric != "loss",
        logging_steps=min(options.log_every, steps),
        logging_nan_inf_filter=False,
        bf16=options.precision == "bf16",
        use_cpu=not on_cuda,
        seed=seed,
        dataloader_num_workers=options.workers,
        dataloader_pin_memory=on_cuda,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[name for name in trackers if name != "tensorboard"],
        run_name=f"{folder.name}-{stage}",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one device a process; no silent DataParallel
    trainer = RecommenderTrainer(policy, losses, validation, dataset, collate, arguments, states)
    bar = ProgressBar(stage, options.metric)
    lines = JsonLines(folder / "train.jsonl", stage)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(bar)
    trainer.add_callback(lines)
    if watch_collapse:
        trainer.add_callback(CollapseWarning(options.metric, validation, bar, lines))
    if "tensorboard" in trackers:
        trainer.add_callback(tensorboard(folder / "tensorboard" / stage))
    patience = options.patience if early_stopping else None
    if patience is not None:
        trainer.add_callback(EarlyStopping(options.metric, patience))
    last = last_whole_checkpoint(checkpoints)
    if last is not None:
        state = TrainerState.load_from_json(str(Path(last) / "trainer_state.json"))
        waited = validations_without_gain(state, options.metric)
        if state.global_step >= steps or (patience is not None and waited >= patience):
            trainer.state = state  # the run was stopped after the stage's end, before its result
            if state.best_global_step:
                trainer._load_best_model()
            else:
                trainer._load_from_checkpoint(last)
            return Trained(state.global_step, interval)
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        bar.close()
    return Trained(trainer.state.global_step, interval)


def planned_steps(options: TrainingOptions, examples: int) -> tuple[int, int]:
    """Optimiser steps in an epoch, and in all, unless patience ends the stage before."""
    per_epoch = math.ceil(examples / options.batch_size / options.accumulate)
    if options.max_steps is not None:
        return per_epoch, options.max_steps
    return per_epoch, math.ceil(options.epochs * per_epoch)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; what a killed run half wrote is removed.

    The Trainer writes `trainer_state.json` last.
    """
    while folder.is_dir() and (newest := get_last_checkpoint(str(folder))):
        try:
            TrainerState.load_from_json(str(Path(newest) / "trainer_state.json"))
        except (OSError, ValueError):  # missing, or cut in the middle of its JSON
            shutil.rmtree(newest)
        else:
            return newest
    return None


def policy_device(policy: Policy) -> torch.device:
    """Where a policy's weights are."""
    return next(policy.model.parameters()).device
