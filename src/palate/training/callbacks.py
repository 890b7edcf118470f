"""What the Trainer tells of a stage: a progress bar, JSON lines, TensorBoard."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from palate.files import write_text
from palate.objectives.collapse import Collapse, CollapseMonitor
from palate.progress import progress_bar

Validation = Callable[[], dict[str, float]]
"""Metrics of the policy as it is now."""


class ProgressBar(TrainerCallback):
    """Steps made, the last loss and the last validation."""

    def __init__(self, stage: str, metric: str) -> None:
        self._stage = stage
        self._metric = metric
        self._bar = progress_bar()
        self._loss = ""
        self._validation = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the bar."""
        self._task = self._bar.add_task(
            self._stage, total=state.max_steps, completed=state.global_step, note=""
        )
        self._bar.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the loss and the validation metric."""
        logs = logs or {}
        if "loss" in logs:
            self._loss = f"loss {logs['loss']:.4g}"
        if (value := logs.get(f"eval_{self._metric}")) is not None:
            self._validation = f"validation {self._metric} {value:.4f}"
        self._bar.update(self._task, note=f"{self._loss}  {self._validation}")

    def warn(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(f"warning: {text}", style="yellow", markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bar as it is; needed however training ended."""
        self._bar.stop()


class EarlyStopping(TrainerCallback):
    """Stops when validation has not improved for a while, judged by the log alone.

    The log is part of every checkpoint, so a resumed stage stops where an unbroken one does.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self._metric = metric
        self._patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask the Trainer to stop once patience is exhausted."""
        if validations_without_gain(state, self._metric) >= self._patience:
            control.should_training_stop = True


def validations_without_gain(state: TrainerState, metric: str) -> int:
    """Validations since the best one; 0 if the last is the best or there was none."""
    name = f"eval_{metric}"
    values = [entry[name] for entry in state.log_history if name in entry]
    if not values:
        return 0
    best = min(values) if metric == "loss" else max(values)
    return len(values) - 1 - values.index(best)


class JsonLines(TrainerCallback):
    """One line per log to `train.jsonl`; lines of steps that a resumed run repeats are dropped."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path = path
        self._stage = stage

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the other stages and the steps already made."""
        if not state.is_world_process_zero:
            return
        lines = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        kept = [line for line in lines if self._stays(line, state.global_step)]
        write_text("".join(line + "\n" for line in kept), self._path)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Append one line; of several processes only the first writes."""
        if state.is_world_process_zero:
            self.write(state.global_step, logs or {})

    def write(self, step: int, entry: Mapping[str, Any]) -> None:
        """Append a line of this stage."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"stage": self._stage, "step": step, **entry}) + "\n")

    def _stays(self, line: str, step: int) -> bool:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the line a killed run was writing
            return False
        if entry["stage"] != self._stage:
            return True
        return step > 0 and entry["step"] <= step  # a stage that starts anew writes all of its own


class CollapseWarning(TrainerCallback):
    """Warns, once, when the loss falls while the ranking gets worse.

    It watches the log, which is part of every checkpoint, so a resumed stage knows what an
    unbroken one would; what was reported before the stop is in the kept lines.
    """

    def __init__(
        self, metric: str, validation: Validation, bar: ProgressBar, lines: JsonLines
    ) -> None:
        self._name = metric
        self._validation = validation
        self._monitor = CollapseMonitor(greater_is_better=metric != "loss")
        self._bar = bar
        self._lines = lines

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Validate the policy as it starts, or read the log of a stage that goes on."""
        if state.global_step == 0:
            start = {f"start_{name}": value for name, value in self._validation().items()}
            state.log_history.append({"step": 0, **start})
            if state.is_world_process_zero:
                self._lines.write(0, start)
        for entry in state.log_history:
            self._watch(int(entry["step"]), entry)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Take an entry; say what it reveals."""
        seen = self._watch(state.global_step, logs or {})
        if seen is not None and state.is_world_process_zero:
            self._bar.warn(seen.message)
            self._lines.write(seen.step, {"warning": seen.message})

    def _watch(self, step: int, logs: Mapping[str, float]) -> Collapse | None:
        if "loss" in logs and "boundary/margin" in logs:
            margins = logs["boundary/margin"], logs["easy/margin"]
            return self._monitor.training(step, logs["loss"], *margins)
        for when in ("start", "eval"):
            if (name := f"{when}_{self._name}") in logs:
                return self._monitor.validation(step, logs[name], logs.get(f"{name}_error", 0.0))
        return None


def tensorboard(folder: Path) -> TensorBoardCallback:
    """TensorBoard's events in a folder of the run."""
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))
