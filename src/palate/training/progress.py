"""What a person and a plotting tool see of training: a bar, JSON lines, TensorBoard."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from palate.files import write_text

console = Console(stderr=True)


def progress_bar() -> Progress:
    """The bar all long work shows, on standard error."""
    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


class ProgressBar(TrainerCallback):
    """Steps made, the last loss and the best validation metric."""

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

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


class JsonLines(TrainerCallback):
    """One line per log to `train.jsonl`; lines of steps that a resumed run repeats are dropped."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path = path
        self._stage = stage

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the other stages and the steps already made."""
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
        """Append one line."""
        entry = {"stage": self._stage, "step": state.global_step, **(logs or {})}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def _stays(self, line: str, step: int) -> bool:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the line a killed run was writing
            return False
        return entry["stage"] != self._stage or entry["step"] <= step


def tensorboard(folder: Path) -> TensorBoardCallback:
    """TensorBoard's events in a folder of the run."""
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))
