"""TRL's `DPOTrainer` as a side of `language_step.py`, with the torch that Palate runs on.

TRL is no dependency of Palate. It and what it misses are installed, without their dependencies, in
a folder that this benchmark alone puts on its path, so that both sides share one process.

TRL gets prompts and titles as text, tokenises them, adds the end token and lays the batch itself;
the ids come out as Palate's. Its `training_step` runs forward (chosen and rejected in one batch),
the reference's forward, loss and backward. Set against its defaults: float32 for bfloat16, and no
activation checkpointing where not asked for. Learning-rate schedule and clipping are left out.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch import Tensor

LISTED = Path(__file__).parents[1] / "tests" / "peers" / "trl.txt"
PACKAGES = tuple(
    line for line in LISTED.read_text("utf-8").splitlines() if line and not line.startswith("#")
)
"""TRL and what it needs besides Palate's own dependencies and `[dev]`."""
FOLDERS = Path.home() / ".cache" / "palate-benchmarks"
TRL, TRL_KNOWN, TRL_CHECKPOINTING = "TRL", "TRL, reference known", "TRL, checkpointing"


class PairTrainer:
    """TRL's trainer with one batch: a chosen and a rejected title after each prompt.

    Args:
        model: the policy; it, the reference and the optimiser are used as they are.
        reference: the frozen reference.
        optimiser: moves the policy.
        tokenizer: theirs.
        pairs: rows of `prompt`, `chosen` and `rejected`, as text.
    """

    def __init__(
        self,
        model: Any,
        reference: Any,
        optimiser: torch.optim.Optimizer,
        tokenizer: Any,
        pairs: Sequence[dict[str, str]],
    ) -> None:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # a benchmark is nobody's use of TRL
        sys.path.append(str(installed()))
        trl, datasets = import_module("trl"), import_module("datasets")
        datasets.disable_progress_bars()
        with tempfile.TemporaryDirectory() as folder:
            self.trainer = trl.DPOTrainer(
                model,
                reference,
                trl.DPOConfig(
                    folder,
                    per_device_train_batch_size=len(pairs),
                    bf16=False,
                    activation_checkpointing=False,
                    use_cpu=True,
                    report_to="none",
                ),
                train_dataset=datasets.Dataset.from_list(list(pairs)),
                processing_class=tokenizer,
                optimizers=(optimiser, None),
            )
        self.trainer.current_gradient_accumulation_steps = 1  # else set by its training loop
        rows = list(self.trainer.train_dataset)
        batch = self.trainer.data_collator(rows)
        self.reference = torch.stack(self.trainer.compute_ref_log_probs(reference, batch), dim=1)
        names = ("ref_chosen_logps", "ref_rejected_logps")
        self.batch = {**batch, **dict(zip(names, self.reference.unbind(dim=1), strict=True))}

    def check(self, expected: Tensor) -> None:
        """The reference's log-probabilities (contexts, 2) are those that Palate computes."""
        torch.testing.assert_close(self.reference, expected, atol=1e-3, rtol=0)

    def sides(self) -> dict[str, Callable[[], None]]:
        """Name → one step."""
        return {
            TRL: self.step,
            TRL_KNOWN: partial(self.step, known=True),
            TRL_CHECKPOINTING: partial(self.step, checkpointing=True),
        }

    def step(self, known: bool = False, checkpointing: bool = False) -> None:
        """TRL's training step, and the optimiser's.

        Args:
            known: take the reference's log-probabilities as after `precompute_ref_log_probs`.
            checkpointing: compute activations again in the backward pass, as TRL does by default.
        """
        model, optimiser = self.trainer.model, self.trainer.optimizer
        self.trainer.precompute_ref_logps = known
        if checkpointing:
            model.activation_checkpointing_enable()
        self.trainer.training_step(model, self.batch)
        if checkpointing:
            model.activation_checkpointing_disable()
        optimiser.step()
        optimiser.zero_grad()


def installed() -> Path:
    """A folder with TRL and what it misses, made by pip on first use."""
    key = hashlib.sha256(" ".join([sys.version, *PACKAGES]).encode()).hexdigest()[:12]
    folder = FOLDERS / f"trl-{key}"
    if not folder.exists():
        FOLDERS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDERS) as partial_folder:
            made = Path(partial_folder) / "packages"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
            if subprocess.run([*pip, str(made), *PACKAGES], stdout=sys.stderr).returncode:
                raise SystemExit(
                    f"pip could not install {PACKAGES[0]} in {FOLDERS}; its words are above. Mend "
                    "that, or leave TRL out with --no-trl."
                )
            made.rename(folder)
    return folder
