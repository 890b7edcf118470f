"""A language model reading laid-out rows: masks for trees, and the logits where they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from palate.policies.language.adapters import causal_lm
from palate.policies.language.head import HeadInParts, read_logits
from palate.policies.policy import Batch

MOST_LOGITS = 2**26
"""Logits held at once, 256 MiB in float32; more are made in parts: of what is read, and made again
for the gradient, or of a catalogue, or for fewer prompts together."""
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


@dataclass(frozen=True)
class Ways:
    """How a model may be read so that its scores are its own."""

    together: bool = True
    """Rows of one batch in one pass, shorter ones padded; else each in a pass of its own."""
    gathered: bool = True
    """The head runs where tokens are read, and there alone; else everywhere."""
    in_parts: bool | None = None
    """Many logits may be made part by part; None where that was not looked at."""


DEFAULT = Ways()


def token_log_probs(
    model: nn.Module, batch: Batch, ways: Ways = DEFAULT, at_once: int | None = None
) -> Tensor:
    """(n,) float32 log-probability of each scored token of a laid-out batch.

    The model's own forward is called, wrapped or not, so that a trainer's hooks, autocast and
    checkpointing hold, and logits are what it returns.

    Args:
        model: a causal language model, with adapters, wrapped by a trainer, or plain.
        batch: of `layouts`, on the model's device.
        ways: how the model may be read (see `self_check.py`).
        at_once: places whose logits are held at once; by default `places_at_once`.
    """
    at_once = at_once or places_at_once(model)
    own = causal_lm(unwrapped(model))
    if "subtree_end" in batch or ways.together:
        return _of_rows(model, own, _inputs(own, batch), batch, ways, at_once)
    found, order = [], []
    for row, inputs in enumerate(_lone_inputs(batch)):
        part, scored = _rows_own(batch, row)
        found.append(_of_rows(model, own, inputs, part, ways, at_once))
        order.append(scored)
    together = torch.cat(found)
    return torch.empty_like(together).index_copy(0, torch.cat(order), together)


def places_at_once(model: Any) -> int:
    """Places whose logits are held at once."""
    return max(1, MOST_LOGITS // int(text_config(model).vocab_size))


def attention_mask(
    subtree_end: Tensor,
    depth: Tensor,
    n_queries: int,
    dtype: torch.dtype,
    window: int | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Additive (B, 1, Q, S) mask of the last Q columns of trees: 0 where they look, else the least.

    Column q looks at k if k ≤ q < end of k, and with a window if it is less deep by fewer tokens,
    or with chunks if it is in the same.

    Args:
        subtree_end: (B, S) the column after each column's subtree.
        depth: (B, S) its position; read with a window or chunks alone.
        n_queries: Q.
        dtype: of the mask.
        window: tokens that a layer looks back over, itself included; None for all.
        chunk: tokens of a chunk that a layer does not look out of; None for all.
    """
    columns = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    queries = columns[len(columns) - n_queries :, None]
    seen = (columns <= queries) & (queries < subtree_end[:, None, :])
    if window is not None:
        deep = depth[:, len(columns) - n_queries :, None]
        seen = seen & (deep - depth[:, None, :] < window)
    if chunk is not None:
        deep = depth[:, len(columns) - n_queries :, None]
        seen = seen & (deep // chunk == depth[:, None, :] // chunk)
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def tree_masks(
    config: Any, subtree_end: Tensor, depth: Tensor, n_queries: int, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The mask of every kind of layer a model has: one tensor, or kind → tensor where it mixes.

    Args:
        config: of the language model, a multimodal one's text part (`text_config`).
        subtree_end, depth, n_queries, dtype: as in `attention_mask`.
    """
    window = getattr(config, "sliding_window", None)
    chunk = getattr(config, "attention_chunk_size", None)
    layer_types = getattr(config, "layer_types", None)
    limits = {SLIDING: {"window": window}, CHUNKED: {"chunk": chunk}}
    masks = {
        kind: attention_mask(subtree_end, depth, n_queries, dtype, **limits.get(kind, {}))
        for kind in set(layer_types or [SLIDING if window else FULL])
    }
    takes_kinds = layer_types and (window or (chunk and CHUNKED in masks))
    return masks if takes_kinds and len(masks) > 1 else next(iter(masks.values()))


def text_config(model: Any) -> Any:
    """The configuration of a model's language part: its own, or what a multimodal one holds."""
    return causal_lm(unwrapped(model)).config.get_text_config()


def unwrapped(model: Any) -> Any:
    """The module within a trainer's wrappers (DistributedDataParallel and the like)."""
    while hasattr(model, "module") and isinstance(model.module, nn.Module):
        model = model.module
    return model


def _of_rows(
    model: nn.Module, own: Any, inputs: dict[str, Any], batch: Batch, ways: Ways, size: int
) -> Tensor:
    """(n,) log-probabilities of the scored tokens of one pass."""
    rows, columns = batch["read_row"], batch["read_column"]
    place, targets = batch["scored_place"], batch["scored_target"]

    def of_logits(logits: Tensor, scored: Tensor, first: int) -> Tensor:
        logits, places = logits.float(), place[scored] - first
        return logits[places, targets[scored]] - logits.logsumexp(dim=-1)[places]

    if len(rows) <= size or not (ways.gathered and ways.in_parts):
        logits = read_logits(model, own, inputs, rows, columns, ways.gathered)
        return of_logits(logits, torch.arange(len(targets), device=targets.device), 0)
    head = HeadInParts(model, own, inputs, rows, columns)

    def of_part(hidden: Tensor, scored: Tensor, first: int) -> Tensor:
        return of_logits(head.logits(hidden), scored, first)

    found = torch.empty(0, device=rows.device)
    order = []
    for first in range(0, len(rows), size):
        scored = ((place >= first) & (place < first + size)).nonzero()[:, 0]
        part = head.hidden[first : first + size]
        read: Any = checkpoint(of_part, part, scored, first, use_reentrant=False)
        found, order = torch.cat([found, read]), [*order, scored]
    return torch.empty_like(found).index_copy(0, torch.cat(order), found)


def _inputs(own: Any, batch: Batch) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "use_cache": False}
    if "subtree_end" not in batch:
        return {**inputs, "attention_mask": batch["attention_mask"]}
    depth, dtype = batch["position_ids"], own.get_input_embeddings().weight.dtype
    width = batch["input_ids"].shape[1]
    masks = tree_masks(text_config(own), batch["subtree_end"], depth, width, dtype)
    return {**inputs, "attention_mask": masks, "position_ids": depth}


def _lone_inputs(batch: Batch) -> Iterator[dict[str, Any]]:
    """Each row without its padding, as an ordinary forward takes it."""
    for tokens, real in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
        yield {"input_ids": tokens[real][None], "use_cache": False}


def _rows_own(batch: Batch, row: int) -> tuple[Batch, Tensor]:
    """What is read in one row of plain rows, as if it were the only one, and which of the scored
    tokens that is."""
    mine = (batch["read_row"] == row).nonzero()[:, 0]
    scored = (batch["read_row"][batch["scored_place"]] == row).nonzero()[:, 0]
    return {
        "read_row": torch.zeros_like(mine),
        "read_column": batch["read_column"][mine],
        "scored_place": torch.searchsorted(mine, batch["scored_place"][scored]),
        "scored_target": batch["scored_target"][scored],
    }, scored
