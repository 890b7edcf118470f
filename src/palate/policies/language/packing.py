"""Token rows whose scored positions are named, and the log-probabilities read from them.

Three layouts share one form. *Packed*: a prompt once, its candidates one after another behind it,
each seeing the prompt and itself only. *Alone*: prompt and one candidate a row, as any causal
language model reads text; the definition the others are held against. *Histories*: a whole history
in a row, each of its titles scored after its predecessors.

A scored token is read at its parent: the column before it, or the prompt's last for a first token.
The end token is scored and never fed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palate.policies.language.prompts import Tokens

Answer = Tokens | None
"""Tokens of a candidate without its end token; None for no candidate."""


def pack(
    prompts: Sequence[Tokens], answers: Sequence[Sequence[Answer]], end_token: int, pad_token: int
) -> dict[str, Any]:
    """One row per prompt, its candidates behind it; prompts end in the same column.

    Returns:
        input_ids, position_ids (B, S); subtree_end (B, S), the column after the last one that may
        see a column; the scored tokens (see `log_probs_of`).
    """
    n_prompt = max(map(len, prompts))
    totals = [sum(0 if a is None else len(a) for a in row) for row in answers]
    width = n_prompt + max(totals)
    shape = (len(prompts), width)
    input_ids = np.full(shape, pad_token, np.int64)
    position_ids = np.zeros(shape, np.int64)
    subtree_end = np.tile(np.arange(1, width + 1), (len(prompts), 1))
    scored = _Scored(len(answers[0]))
    for row, (prompt, titles) in enumerate(zip(prompts, answers, strict=True)):
        first = n_prompt - len(prompt)
        input_ids[row, first:n_prompt] = prompt
        position_ids[row, first:n_prompt] = np.arange(len(prompt))
        subtree_end[row, first:n_prompt] = width
        column = n_prompt
        for slot, title in enumerate(titles):
            if title is None:
                continue
            after = column + len(title)
            input_ids[row, column:after] = title
            position_ids[row, column:after] = len(prompt) + np.arange(len(title))
            subtree_end[row, column:after] = after
            parents = np.arange(column - 1, after)
            parents[0] = n_prompt - 1
            scored.add(row, slot, parents - (n_prompt - 1), np.append(title, end_token))
            column = after
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(position_ids),
        "subtree_end": torch.from_numpy(subtree_end),
        "kept": width - n_prompt + 1,
        **scored.tensors(len(prompts)),
    }


def lay_alone(
    prompts: Sequence[Tokens], answers: Sequence[Sequence[Answer]], end_token: int, pad_token: int
) -> dict[str, Any]:
    """One row per prompt and candidate, with the ordinary two-dimensional attention mask."""
    rows, scored = [], _Scored(len(answers[0]))
    for context, (prompt, titles) in enumerate(zip(prompts, answers, strict=True)):
        for slot, title in enumerate(titles):
            if title is None:
                continue
            parents = len(prompt) - 1 + np.arange(len(title) + 1)
            scored.add(context, slot, parents, np.append(title, end_token), row=len(rows))
            rows.append(np.concatenate([prompt, title]))
    return {**_right_padded(rows, pad_token), **scored.tensors(len(prompts))}


def lay_histories(
    openings: Sequence[Tokens],
    titles: Sequence[Sequence[Tokens]],
    first_targets: Sequence[int],
    break_tokens: Tokens,
    end_token: int,
    pad_token: int,
) -> dict[str, Any]:
    """One row per history; its titles from `first_targets` on are scored, each one slot."""
    rows, scored, slot = [], _Scored(1), 0
    for row, (opening, history, first) in enumerate(
        zip(openings, titles, first_targets, strict=True)
    ):
        parts, column = [opening], len(opening)
        for place, title in enumerate(history):
            if place >= first:
                parents = column - 1 + np.arange(len(title) + 1)
                scored.add(slot, 0, parents, np.append(title, end_token), row=row)
                slot += 1
            parts += [title, break_tokens]
            column += len(title) + len(break_tokens)
        rows.append(np.concatenate(parts[:-1]))
    return {**_right_padded(rows, pad_token), **scored.tensors(slot)}


def attention_mask(subtree_end: Tensor, n_queries: int, dtype: torch.dtype) -> Tensor:
    """Additive (B, 1, Q, S) mask for the last Q columns: column q sees k if k ≤ q < end of k."""
    columns = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    queries = columns[len(columns) - n_queries :, None]
    seen = (columns <= queries) & (queries < subtree_end[:, None, :])
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def log_probs_of(batch: dict[str, Any], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of token log-probabilities, and token counts, of each (context, slot).

    Args:
        batch: a laid-out batch: `scored_row`, `scored_column` (within the kept columns),
            `scored_target` and `scored_slot` (n,), and the `shape` (contexts, slots).
        logits: (rows, kept, vocabulary).

    Returns:
        (contexts, slots) float32 log-probabilities and int64 lengths; 0 for absent slots.
    """
    rows, columns = batch["scored_row"], batch["scored_column"]
    logits = logits.float()
    normaliser = logits.logsumexp(dim=-1)
    tokens = logits[rows, columns, batch["scored_target"]] - normaliser[rows, columns]
    contexts, slots = batch["shape"]
    zeros = torch.zeros(contexts * slots, device=logits.device)
    sums = zeros.index_add(0, batch["scored_slot"], tokens)
    counts = torch.bincount(batch["scored_slot"], minlength=contexts * slots)
    return sums.view(contexts, slots), counts.view(contexts, slots)


class _Scored:
    """Collects which logits are read, for which target token and which (context, slot)."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._rows: list[Tokens] = []
        self._columns: list[Tokens] = []
        self._targets: list[Tokens] = []
        self._names: list[Tokens] = []

    def add(
        self, context: int, slot: int, columns: Tokens, targets: Tokens, row: int | None = None
    ) -> None:
        self._rows.append(np.full(len(targets), context if row is None else row))
        self._columns.append(columns)
        self._targets.append(targets)
        self._names.append(np.full(len(targets), context * self._slots + slot))

    def tensors(self, contexts: int) -> dict[str, Any]:
        return {
            "scored_row": torch.from_numpy(np.concatenate(self._rows)),
            "scored_column": torch.from_numpy(np.concatenate(self._columns)),
            "scored_target": torch.from_numpy(np.concatenate(self._targets)),
            "scored_slot": torch.from_numpy(np.concatenate(self._names)),
            "shape": (contexts, self._slots),
        }


def _right_padded(rows: Sequence[Tokens], pad_token: int) -> dict[str, Any]:
    width = max(map(len, rows))
    input_ids = np.full((len(rows), width), pad_token, np.int64)
    real = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        real[index, : len(row)] = 1
    return {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(real),
        "kept": width,
    }
