"""What every policy must do: given contexts and candidates, return log-probabilities (B, K)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.contexts import Context, History, Ids
from palate.errors import DataError

PADDING_ITEM = -1
"""Item id of an absent candidate in a (B, K) array."""

STRIPS = 16
"""Strips that a long row of scores is searched in."""
LEAST_WIDTH = 10
"""Width of a strip, in items that are looked for, from which on strips pay."""

Batch = dict[str, Any]


class Scored(NamedTuple):
    """Log-probabilities of candidates.

    Attributes:
        log_probs: (B, K) float32, log π(candidate | context) in nats; 0 for absent candidates.
        lengths: (B, K) scored tokens of each candidate, end token included; None where an item is
            one symbol.
    """

    log_probs: Tensor
    lengths: Tensor | None = None


@dataclass(frozen=True)
class Asked:
    """What a batch asks: it stays on the host, as the Trainer moves tensors, lists and tuples only.

    Attributes:
        contexts: B contexts.
        item_ids: (B, K) candidates; −1 for none.
    """

    contexts: Sequence[Context]
    item_ids: Ids


class Ranking(NamedTuple):
    """The best items of each context.

    Attributes:
        item_ids: (B, top) int64, best first.
        scores: (B, top) float32, their log-probabilities; −inf where nothing was left to rank.
    """

    item_ids: Ids
    scores: NDArray[np.float32]


class Policy(Protocol):
    """A recommender that gives each item of its catalogue a log-probability in a context.

    `collate` and `log_probs` are the two halves of `score`: the first runs where batches are
    made, on the CPU and without the model; the second is differentiable and takes the module to
    run, so that a trainer can pass its wrapped one and a reference its frozen copy.
    """

    model: nn.Module
    items: pa.Table | None

    def start_stage(self, stage: Literal["sft", "align"]) -> None:
        """Make ready for a stage of training, before the model is moved to its device."""
        ...

    def collate(self, contexts: Sequence[Context], item_ids: Ids) -> Batch:
        """Tensors from which `log_probs` scores (B, K) candidates; item id −1 is no candidate."""
        ...

    def log_probs(self, batch: Batch, model: nn.Module | None = None) -> Scored:
        """Differentiable (B, K) log-probabilities of a collated batch."""
        ...

    def collate_histories(self, histories: Sequence[History]) -> Batch:
        """Tensors from which `history_losses` learns items from their predecessors, and the
        number of `targets`."""
        ...

    def history_losses(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        """(targets,) differentiable negative log-likelihoods of the items of some histories."""
        ...

    @property
    def learns_whole_histories(self) -> bool:
        """Whether one pass over a history can learn all its items."""
        ...

    def history_windows(self, history: History) -> list[History]:
        """A history cut into what one such pass can learn, each target once; see `windows`."""
        ...

    @property
    def moments_together(self) -> int:
        """Moments of one history that alignment reads together, at most, if not told otherwise."""
        ...

    def first_reads(self, history: Ids, moments: Ids, together: int) -> Ids:
        """(moments,) places from which on `history[:moment]` is read, so that one pass can read
        up to `together` successive moments that have the same; see `first_reads`."""
        ...

    @property
    def lists_candidates(self) -> bool:
        """Whether a context shows its candidates, so that a score depends on all of them."""
        ...

    def score(self, contexts: Sequence[Context], item_ids: Ids) -> Scored:
        """(B, K) log-probabilities, without gradient, in evaluation mode."""
        ...

    def catalogue_log_probs(self, contexts: Sequence[Context], pool: Ids | None = None) -> Tensor:
        """(B, items) log-probabilities of the whole catalogue, or (B, pool) of some items."""
        ...

    def rank(self, contexts: Sequence[Context], top: int = 10) -> Ranking:
        """The `top` items of the catalogue for each context, its history left out."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that ranking needs."""
        ...


def windows(
    history: History, longest: int, overlap: int, fits: Callable[[Ids], int] = len
) -> list[History]:
    """A history cut into windows in which each of its targets is one exactly once.

    Args:
        history: items with their times, and the first one to learn.
        longest: items in a window, at most.
        overlap: items that a later window repeats before its targets, where there is room.
        fits: how many of some items, from the first one on, a window has room for; at least one.
    """
    items, learnt, times = history
    begin, found = max(0, learnt - overlap), []
    while learnt < len(items):
        end = begin + fits(items[begin : begin + longest])
        if end <= learnt:
            begin += 1
            continue
        since = None if times is None else times[begin:end]
        found.append(History(items[begin:end], learnt - begin, since))
        learnt, begin = end, max(begin + 1, end - overlap)
    return found


def first_reads(
    history: Ids,
    moments: Ids,
    together: int,
    longest: int,
    overlap: int,
    fits: Callable[[Ids], int] = len,
) -> Ids:
    """(moments,) places from which on the items before each moment are read.

    Successive moments of one pass have the same place: that of the first of them.

    Args:
        history: items, oldest first.
        moments: rising places in it; a moment is what comes after `history[:moment]`.
        together: moments in a pass, at most.
        longest: items in a pass, at most.
        overlap: items that the first moment of a pass sees, where there is room; at least one.
        fits: how many of some items, from the first one on, a pass has room for; at least one.
    """
    places = np.zeros(len(moments), np.int64)
    begin = end = count = 0
    for index, moment in enumerate(moments.tolist()):
        if count in (0, together) or moment > end:
            begin, count = max(0, moment - max(1, overlap)), 0
            while (end := begin + fits(history[begin : begin + longest])) < moment:
                begin += 1
        places[index] = begin
        count += 1
    return places


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; the mode that each module was in comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors on a device."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def check_items(item_ids: Ids, n_items: int) -> None:
    """Raise a DataError for an id that is neither padding nor in the catalogue."""
    outside = (item_ids < PADDING_ITEM) | (item_ids >= n_items)
    if outside.any():
        raise DataError(
            f"item id {item_ids[outside][0]} is not in the catalogue; expected 0 to {n_items - 1} "
            "(row numbers of items.parquet)."
        )


def top_items(
    log_probs: Tensor, contexts: Sequence[Context], top: int, exclude_history: bool = True
) -> Ranking:
    """The best `top` items of (B, items) scores, those of the history left out by default."""
    scores = log_probs.clone()
    if exclude_history:
        for row, context in enumerate(contexts):
            scores[row, torch.tensor(context.history, device=scores.device)] = -torch.inf
    values, items = highest(scores, top)
    return Ranking(items.cpu().numpy(), values.float().cpu().numpy())


def highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `Tensor.topk` gives along rows; for few of many columns on a CPU in a third of its time.

    A row is laid in strips below each other; the k best stand where the k best maxima do.

    Args:
        scores: (B, columns), higher is better; NaN counts as highest.
        k: how many; no more than there are columns are given.

    Returns:
        (B, k) scores of each row, best first, and their columns; ties in any order.
    """
    k = min(k, scores.shape[1])
    width = scores.shape[1] // STRIPS
    if scores.device.type != "cpu" or width < LEAST_WIDTH * k:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    starts = width * torch.arange(STRIPS)
    below = scores[:, : STRIPS * width].unflatten(1, (STRIPS, width)).amax(dim=1)
    columns = (below.topk(k, dim=1).indices[:, :, None] + starts).flatten(1)
    rest = torch.arange(STRIPS * width, scores.shape[1]).expand(len(scores), -1)
    columns = torch.cat([columns, rest], dim=1)
    values, places = scores.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, places)
