"""A language model reading laid-out rows: masks for trees, and the head where it is needed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from palate.policies.language.adapters import causal_lm
from palate.policies.policy import Batch

MOST_LOGITS = 2**26
"""Logits held at once, 256 MiB in float32; more are made in parts: of what is read, and made again
for the gradient, or of a catalogue, or for fewer prompts together."""
FULL, SLIDING = "full_attention", "sliding_attention"


def token_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """(n,) float32 log-probability of each scored token of a laid-out batch.

    The head runs only where tokens are read. The model's own forward is called, wrapped or not, so
    that a trainer's hooks, autocast and checkpointing hold; the head's input is taken from it.

    Args:
        model: a causal language model, with adapters, wrapped by a trainer, or plain.
        batch: of `layouts`, on the model's device.
    """
    own = causal_lm(unwrapped(model))
    hidden, in_same_precision = _hidden_where_read(model, own, batch)
    targets = batch["scored_target"]

    def of_part(part: Tensor, scored: Tensor, first: int) -> Tensor:
        with in_same_precision():
            logits = _scaled(own.config, own.get_output_embeddings()(part)).float()
        places = batch["scored_place"][scored] - first
        return logits[places, targets[scored]] - logits.logsumexp(dim=-1)[places]

    vocabulary = int(own.get_output_embeddings().weight.shape[0])
    size = max(1, MOST_LOGITS // vocabulary)
    if len(hidden) <= size:
        return of_part(hidden, torch.arange(len(targets), device=targets.device), 0)
    found = torch.empty(0, device=hidden.device)
    order = []
    for first in range(0, len(hidden), size):
        place = batch["scored_place"]
        scored = ((place >= first) & (place < first + size)).nonzero()[:, 0]
        part = hidden[first : first + size]
        read: Any = checkpoint(of_part, part, scored, first, use_reentrant=False)
        found, order = torch.cat([found, read]), [*order, scored]
    return torch.empty_like(found).index_copy(0, torch.cat(order), found)


def attention_mask(
    subtree_end: Tensor,
    depth: Tensor,
    n_queries: int,
    dtype: torch.dtype,
    window: int | None = None,
) -> Tensor:
    """Additive (B, 1, Q, S) mask of the last Q columns of trees: 0 where they look, else the least.

    Column q looks at k if k ≤ q < end of k, and with a window if it is less deep by fewer tokens.

    Args:
        subtree_end: (B, S) the column after each column's subtree.
        depth: (B, S) its position; read with a window alone.
        n_queries: Q.
        dtype: of the mask.
        window: tokens that a layer looks back over, itself included; None for all.
    """
    columns = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    queries = columns[len(columns) - n_queries :, None]
    seen = (columns <= queries) & (queries < subtree_end[:, None, :])
    if window is not None:
        deep = depth[:, len(columns) - n_queries :, None]
        seen = seen & (deep - depth[:, None, :] < window)
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def tree_masks(
    config: Any, subtree_end: Tensor, depth: Tensor, n_queries: int, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The mask of every kind of layer a model has: one tensor, or kind → tensor where it mixes."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [SLIDING if window else FULL])
    masks = {
        kind: attention_mask(
            subtree_end, depth, n_queries, dtype, window if kind == SLIDING else None
        )
        for kind in kinds
    }
    takes_kinds = getattr(config, "layer_types", None) and window
    return masks if takes_kinds and len(masks) > 1 else next(iter(masks.values()))


def unwrapped(model: Any) -> Any:
    """The module within a trainer's wrappers (DistributedDataParallel and the like)."""
    while hasattr(model, "module") and isinstance(model.module, nn.Module):
        model = model.module
    return model


def _hidden_where_read(
    model: nn.Module, own: Any, batch: Batch
) -> tuple[Tensor, Callable[[], torch.autocast]]:
    """(places, width) the head's input where tokens are read, and the precision it came in."""
    taken: list[Tensor] = []
    precision: list[tuple[bool, torch.dtype]] = []
    device = batch["input_ids"].device.type

    def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (hidden,) = inputs
        taken.append(hidden[batch["read_row"], batch["read_column"]])
        precision.append((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)))
        return (hidden[:1, :1],)  # the model's own logits are not wanted

    handle = own.get_output_embeddings().register_forward_pre_hook(take)
    try:
        model(**_inputs(own, batch))
    finally:
        handle.remove()
    enabled, dtype = precision[-1]
    return taken[-1], lambda: torch.autocast(device, dtype, enabled)


def _inputs(own: Any, batch: Batch) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "use_cache": False}
    if "subtree_end" not in batch:
        return {**inputs, "attention_mask": batch["attention_mask"]}
    depth, dtype = batch["position_ids"], own.get_input_embeddings().weight.dtype
    width = batch["input_ids"].shape[1]
    masks = tree_masks(own.config, batch["subtree_end"], depth, width, dtype)
    return {**inputs, "attention_mask": masks, "position_ids": depth}


def _scaled(config: Any, logits: Tensor) -> Tensor:
    """What architectures do to the head's output: soft caps and scales."""
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    if scale := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        logits = cap * torch.tanh(logits / cap)
    return logits
