"""Token rows whose scored tokens are named, and the log-probabilities read from them.

Three layouts share one form. *Trees*: a context a row, everything its candidates share read once
(see `token_tree.py`). *Alone*: prompt and one candidate a row, as any causal language model reads
text; the definition the others are held against. *Histories*: a whole history in a row, each of its
titles scored after its predecessors.

A scored token is read at its parent; the end token is scored and never fed. Several tokens may be
read at one place, and the model's head runs at each such place once.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palate.policies.language.prompts import Tokens
from palate.policies.language.token_tree import TokenTree

Answer = Tokens | None
"""Tokens of a candidate without its end token; None for no candidate."""


def lay_trees(
    prompts: Sequence[Tokens],
    answers: Sequence[Sequence[Answer]],
    end_token: int,
    pad_token: int,
    passes: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """One row per pass: the tree of its prompts and their candidates, padded on the right.

    Args:
        prompts: tokens of each context's prompt.
        answers: of each context, its candidates.
        end_token, pad_token: of the tokenizer.
        passes: of each context, the name of its pass; None for a pass each.

    Returns:
        input_ids, position_ids (B, T); subtree_end (B, T), the column after the last one that may
        see a column; `deepest`, tokens of the longest sequence; the scored tokens (see
        `log_probs_of`).
    """
    contexts_of: dict[Hashable, list[int]] = {}
    for context, name in enumerate(range(len(prompts)) if passes is None else passes):
        contexts_of.setdefault(name, []).append(context)
    trees, scored = [], _Scored(len(answers[0]))
    for row, contexts in enumerate(contexts_of.values()):
        present = [
            (context, slot, title)
            for context in contexts
            for slot, title in enumerate(answers[context])
            if title is not None
        ]
        paths = [np.concatenate([prompts[context], title]) for context, _, title in present]
        tree = TokenTree.of(paths or [prompts[contexts[0]]])
        for (context, slot, title), path in zip(present, tree.nodes, strict=False):
            asked = len(prompts[context])
            parents = path[asked - 1 : asked + len(title)]
            scored.add(context, slot, parents, np.append(title, end_token), row)
        trees.append(tree)
    width = max(map(len, trees))
    shape = (len(trees), width)
    input_ids, position_ids = np.full(shape, pad_token, np.int64), np.zeros(shape, np.int64)
    subtree_end = np.tile(np.arange(1, width + 1), (len(trees), 1))
    for row, tree in enumerate(trees):
        input_ids[row, : len(tree)] = tree.token_ids
        # what looks at itself alone has no gradient in some models where its embedding is 0
        input_ids[row, len(tree) :] = tree.token_ids[0]
        position_ids[row, : len(tree)] = tree.depth
        subtree_end[row, : len(tree)] = tree.end
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(position_ids),
        "subtree_end": torch.from_numpy(subtree_end),
        "deepest": int(position_ids.max()) + 1,
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
    rows = rows or [prompts[0]]  # a model reads something
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


def unrolled(batch: dict[str, Any], pad_token: int) -> dict[str, Any]:
    """A batch of `lay_trees` as `lay_alone` would have laid it: a row per candidate."""
    slots, row = torch.unique(batch["scored_slot"], return_inverse=True)
    tree_row = batch["read_row"][batch["scored_place"]]
    column = batch["read_column"][batch["scored_place"]]
    last = torch.zeros_like(slots).scatter_reduce(0, row, column, "amax")
    of_tree = torch.zeros_like(slots).scatter_reduce(0, row, tree_row, "amax")
    if not len(slots):  # a model reads something
        last = of_tree = torch.zeros(1, dtype=torch.long, device=slots.device)
    columns = torch.arange(batch["input_ids"].shape[1], device=last.device)
    ends = batch["subtree_end"][of_tree]
    is_on_path = (columns <= last[:, None]) & (last[:, None] < ends)
    lengths = is_on_path.sum(dim=1, keepdim=True)
    width = int(lengths.max())
    on_path_first = (~is_on_path).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    is_real = columns[:width] < lengths
    tokens = batch["input_ids"][of_tree].gather(1, on_path_first)
    return {
        "input_ids": tokens.masked_fill(~is_real, pad_token),
        "attention_mask": is_real.long(),
        "read_row": row,
        "read_column": batch["position_ids"][tree_row, column],
        "scored_place": torch.arange(len(row), device=row.device),
        "scored_target": batch["scored_target"],
        "scored_slot": batch["scored_slot"],
        "shape": batch["shape"],
    }


def log_probs_of(batch: dict[str, Any], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of token log-probabilities, and token counts, of each (context, slot).

    Args:
        batch: a laid-out batch: `scored_slot` (n,) and the `shape` (contexts, slots).
        tokens: (n,) float32 log-probability of each scored token.

    Returns:
        (contexts, slots) float32 log-probabilities and int64 lengths; 0 for absent slots.
    """
    contexts, slots = batch["shape"]
    zeros = torch.zeros(contexts * slots, device=tokens.device)
    sums = zeros.index_add(0, batch["scored_slot"], tokens)
    counts = torch.bincount(batch["scored_slot"], minlength=contexts * slots)
    return sums.view(contexts, slots), counts.view(contexts, slots)


class _Scored:
    """Collects where tokens are read, which tokens, and for which (context, slot)."""

    def __init__(self, slots: int) -> None:
        none = np.empty(0, np.int64)  # of contexts without any candidate nothing is read
        self._slots = slots
        self._rows: list[Tokens] = [none]
        self._columns: list[Tokens] = [none]
        self._targets: list[Tokens] = [none]
        self._names: list[Tokens] = [none]

    def add(self, context: int, slot: int, columns: Tokens, targets: Tokens, row: int) -> None:
        self._rows.append(np.full(len(targets), row))
        self._columns.append(columns)
        self._targets.append(targets)
        self._names.append(np.full(len(targets), context * self._slots + slot))

    def tensors(self, contexts: int) -> dict[str, Any]:
        """`read_row`, `read_column` (places,): where the head runs; `scored_place`,
        `scored_target` and `scored_slot` (n,): at which of these places which token is read."""
        rows, columns = np.concatenate(self._rows), np.concatenate(self._columns)
        width = int(columns.max(initial=0)) + 1
        places, scored_place = np.unique(rows * width + columns, return_inverse=True)
        return {
            "read_row": torch.from_numpy(places // width),
            "read_column": torch.from_numpy(places % width),
            "scored_place": torch.from_numpy(scored_place),
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
    return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(real)}
