"""References: the log-probabilities a policy is held to while it is aligned."""

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate.utils import convert_outputs_to_fp32
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.errors import CheckpointError, ConfigError, DataWarning
from palate.policies.fingerprint import DIFFERING, context_names, fingerprint
from palate.policies.language.adapters import without_training_adapter
from palate.policies.policy import PADDING_ITEM, Asked, Batch, Policy, on_device
from palate.policies.score_store import Floats, ScoreStore
from palate.progress import progress_bar

Precision = Literal["fp32", "bf16"]
MAX_PAIRS = 20_000_000
"""Pairs that a cached reference keeps: about 11 bytes each on disk."""
WIDEST = 64
"""Candidates of a context that a cached reference scores at once."""


class Reference(Protocol):
    """Log-probabilities of a batch's candidates before alignment."""

    def log_probs(self, batch: Batch) -> Tensor | None:
        """(B, K) without gradient, or None for a reference-free objective."""
        ...


class Frozen:
    """A copy of the policy as it is now, in evaluation mode and without gradients.

    Args:
        policy: copied; its layout of batches is shared.
        precision: arithmetic in which the policy is trained; the copy is scored in the same.

    Raises:
        ConfigError: the policy's base weights are quantised.
    """

    def __init__(self, policy: Policy, precision: Precision = "fp32") -> None:
        check_reference("frozen", quantized=getattr(policy, "quantized", False))
        self._policy = policy
        self._model = deepcopy(policy.model).eval().requires_grad_(False)
        if precision == "bf16":
            _compute_in_bf16(self._model)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """See `Reference.log_probs`."""
        return self._policy.log_probs(batch, self._model).log_probs


class AdapterOff:
    """The policy itself without the adapter in training: one set of base weights in memory.

    Adapters of earlier stages belong to the reference, merged or frozen: it is what the policy was
    when its stage started.

    Args:
        policy: a language policy with an adapter in training (see `LanguagePolicy.start_stage`).
        precision: taken for the other references' sake; the policy's own module, which is what
            runs, computes in its own.

    Raises:
        ConfigError: the policy has no adapter in training.
    """

    def __init__(self, policy: Policy, precision: Precision = "fp32") -> None:
        check_reference("adapter_off", has_adapter=getattr(policy, "adapter", None) is not None)
        if getattr(policy.model, "trainable", None) is None:
            raise ConfigError(
                "align.reference: adapter_off needs an adapter in training; call "
                "policy.start_stage('align') first, or use frozen."
            )
        self._policy = policy

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """See `Reference.log_probs`."""
        model: Any = self._policy.model
        with without_training_adapter(model):
            return self._policy.log_probs(batch, model).log_probs


class NoReference:
    """None: the objective takes the policy's log-probabilities for log-ratios.

    Args:
        policy: taken, like `precision`, for the other references' sake.
    """

    def __init__(self, policy: Policy, precision: Precision = "fp32") -> None:
        pass

    def log_probs(self, batch: Batch) -> None:
        """See `Reference.log_probs`."""
        return


class Cached:
    """A frozen reference that computes each (context, item) pair once and keeps it on disk.

    What is missing of a batch is computed in one pass, of the missing pairs alone, by a frozen
    copy, or, for a policy with an adapter, by the policy with its adapter off. `fill` computes
    ahead; where that was all, the copy is let go and training holds one set of weights.

    A context is named by what the policy may read of it (see `context_names`), so what is kept is
    right for other negatives, other splits and other runs of the same weights.

    Args:
        policy: as alignment starts.
        precision: arithmetic in which the policy is trained.
        folder: where to keep them; None for a temporary folder.
        max_pairs: pairs to keep, at most; those that come later are computed each time.
        ahead: epochs that alignment lets it `fill` before training; None for all.

    Raises:
        CheckpointError: the folder holds log-probabilities of another policy or precision.
        ConfigError: the policy has an adapter, but none in training.
    """

    def __init__(
        self,
        policy: Policy,
        precision: Precision = "fp32",
        folder: Path | None = None,
        max_pairs: int = MAX_PAIRS,
        ahead: int | None = None,
    ) -> None:
        self.ahead = ahead
        self._policy = policy
        self._precision: Precision = precision
        self._shares_weights = getattr(policy, "adapter", None) is not None
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="palate-reference-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        made_of = fingerprint(policy, precision)
        self.store = ScoreStore(folder, made_of, max_pairs, DIFFERING)
        live = AdapterOff if self._shares_weights else Frozen
        self._live: Frozen | AdapterOff | None = live(policy, precision)
        self._is_complete = True
        self.computed = 0
        """Pairs computed so far, by this object."""

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """See `Reference.log_probs`; of a batch with what it `asked`, as `collate_sets` makes."""
        device = next(self._policy.model.parameters()).device
        return torch.from_numpy(self._numbers(batch["asked"])).to(device)

    @torch.no_grad()
    def fill(self, blocks: Iterable[Asked], number: int, is_all: bool) -> None:
        """Compute what is missing of some blocks ahead of training.

        Args:
            blocks: what will be asked, a pass of the reference each.
            number: how many blocks, for the progress bar.
            is_all: whether nothing else will be asked; a copy of the policy is then let go.
        """
        with progress_bar() as bar:
            task = bar.add_task("reference", total=number, note="")
            for asked in blocks:
                self._numbers(asked)
                bar.update(task, advance=1, note=f"batches  {self.computed:,} pairs computed")
        if not self._is_complete:
            warnings.warn(
                f"align.reference_pairs: the cached reference keeps {self.store.max_pairs:,} pairs "
                "and computes the others each time. Set more, or use frozen.",
                DataWarning,
                stacklevel=2,
            )
        elif is_all and not self._shares_weights:
            self._live = None

    def _numbers(self, asked: Asked) -> Floats:
        """(B, K) log-probabilities, 0 for absent candidates."""
        names = context_names(self._policy, asked.contexts, asked.item_ids)
        numbers, known = self.store.find(names, asked.item_ids)
        missing = (asked.item_ids != PADDING_ITEM) & ~known
        if missing.any():
            rows = np.flatnonzero(missing.any(axis=1))
            contexts = [asked.contexts[int(row)] for row in rows]
            some = Asked(contexts, asked.item_ids[rows])
            found = self._compute(some, missing[rows])
            self._is_complete &= self.store.add(names[rows], some.item_ids, found, missing[rows])
            numbers[rows] = np.where(missing[rows], found, numbers[rows])
        return numbers

    def _compute(self, asked: Asked, missing: NDArray[np.bool_]) -> Floats:
        """(B, K) log-probabilities of the missing pairs, by the reference itself."""
        if self._live is None:
            raise CheckpointError(
                f"{self.store.folder} lost pairs that it held when training began. Leave it alone "
                "while a run uses it, and start again with --resume."
            )
        shows = np.array([one.candidates is None for one in asked.contexts])
        shows &= self._policy.lists_candidates  # then the others of a row are read with it
        wanted = missing | (shows[:, None] & (asked.item_ids != PADDING_ITEM))
        width = wanted.shape[1] if shows.any() else WIDEST
        columns = np.argsort(~wanted, axis=1, kind="stable")[:, : wanted.sum(axis=1).max()]
        found = np.zeros(missing.shape, np.float32)
        for start in range(0, columns.shape[1], width):
            places = columns[:, start : start + width]
            rows = np.flatnonzero(np.take_along_axis(wanted, places, axis=1).any(axis=1))
            places = places[rows]
            ids = np.where(wanted, asked.item_ids, PADDING_ITEM)
            some = Asked([asked.contexts[int(i)] for i in rows], ids[rows[:, None], places])
            found[rows[:, None], places] = self._score(self._live, some)
        return found

    def _score(self, live: Frozen | AdapterOff, asked: Asked) -> Floats:
        policy = self._policy
        batch = {**policy.collate(asked.contexts, asked.item_ids), "asked": asked}
        device = next(policy.model.parameters()).device
        with _as_in_training(policy.model, self._precision):
            log_probs = live.log_probs(on_device(batch, device))
        self.computed += int((asked.item_ids != PADDING_ITEM).sum())
        return log_probs.float().cpu().numpy()


REFERENCES: dict[str, Callable[..., Reference]] = {
    "frozen": Frozen,
    "adapter_off": AdapterOff,
    "cached": Cached,
    "none": NoReference,
}
"""Name → what makes the reference of (policy, precision)."""


def check_reference(name: str, has_adapter: bool = True, quantized: bool = False) -> None:
    """Whether a reference makes sense, which is known before any training.

    Args:
        name: one of `REFERENCES`.
        has_adapter: whether the policy trains an adapter.
        quantized: whether its base weights have 4 bits.

    Raises:
        ConfigError: it does not; says what to set instead.
    """
    if name == "adapter_off" and not has_adapter:
        raise ConfigError(
            "align.reference: adapter_off needs a policy with an adapter; set policy.adapter, or "
            "use --set align.reference=frozen."
        )
    if name == "frozen" and quantized:
        raise ConfigError(
            "align.reference: frozen would hold the base weights twice, which policy.quantize is "
            "there to avoid; use --set align.reference=adapter_off."
        )


def _compute_in_bf16(model: nn.Module) -> None:
    """Let a module compute as accelerate lets the one in training: in place, under autocast."""
    device = next(model.parameters()).device.type
    under_autocast = torch.autocast(device, dtype=torch.bfloat16)(model.forward)
    model.forward = convert_outputs_to_fp32(under_autocast)


@contextmanager
def _as_in_training(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Let a module compute as it will once accelerate has prepared it, which may be done or not."""
    if precision == "fp32":
        yield
        return
    before = vars(model).get("forward")
    _compute_in_bf16(model)
    try:
        yield
    finally:
        if before is None:
            del model.forward
        else:
            model.forward = before
