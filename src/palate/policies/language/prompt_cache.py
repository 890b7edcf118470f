"""Prompts that are read once: whatever follows them uses their keys and values in place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from palate.policies.language.adapters import causal_lm
from palate.policies.language.prompts import Tokens
from palate.policies.language.reading import text_config, tree_masks

ALWAYS = np.iinfo(np.int64).max


class PromptCache:
    """The keys and values of B prompts, and of what was read and kept behind them.

    Columns are one row of tokens per prompt: the prompt, padded on the left, and any number of
    tokens behind it that need not follow one another, as a mask says which of them each one sees.

    Args:
        model: a causal language model that takes a 4-D additive attention mask.
        prompts: B token arrays.
        pad_token: fills shorter prompts on the left.
        device: where the model is.

    Attributes:
        first: (B, vocabulary) float32 log-probabilities of what follows each prompt.
        width: columns that prompts take.
        is_real: (B, width) which of them hold a token.
    """

    def __init__(
        self, model: nn.Module, prompts: Sequence[Tokens], pad_token: int, device: torch.device
    ) -> None:
        width = max(map(len, prompts))
        shape = (len(prompts), width)
        input_ids, depth = np.full(shape, pad_token, np.int64), np.zeros(shape, np.int64)
        is_real = np.zeros(shape, bool)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt) :] = prompt
            depth[row, width - len(prompt) :] = np.arange(len(prompt))
            is_real[row, width - len(prompt) :] = True
        seen_until = np.where(is_real, ALWAYS, np.arange(1, width + 1))

        self.width = width
        self.is_real = torch.from_numpy(is_real).to(device)
        self._model = model
        self._config: Any = text_config(model)
        self._lengths = self.is_real.sum(dim=1, keepdim=True)
        # without a config the cache keeps keys beyond a window, which masks leave out
        self._cache = DynamicCache()
        self._depth = torch.empty(len(prompts), 0, dtype=torch.long, device=device)
        self._seen_until = self._depth
        tokens, depths = torch.from_numpy(input_ids).to(device), torch.from_numpy(depth).to(device)
        ends = torch.from_numpy(seen_until).to(device)
        self.first = self._read(tokens, depths, ends, None, keep=True, last_only=True)[:, 0]

    @property
    def columns(self) -> int:
        """Columns that are kept."""
        return self._depth.shape[1]

    def read(
        self,
        tokens: Tensor,
        depth: Tensor,
        seen_until: Tensor | None = None,
        seen: Tensor | None = None,
        keep: bool = False,
    ) -> Tensor:
        """(B, Q, vocabulary) float32 log-probabilities of what follows each of some tokens.

        Args:
            tokens: (B, Q) or (Q,) tokens for the next Q columns.
            depth: (Q,) tokens between the prompt and each of them.
            seen_until: (Q,) how many of the Q each is seen by, counted from the first of them,
                where they are a tree in depth-first order; by default all that come later.
            seen: (B, Q, columns + Q) which columns each sees, where they are not.
            keep: whether later tokens may see these.
        """
        rows = len(self._lengths)
        if seen_until is None:
            ends = torch.full_like(self._lengths, ALWAYS).expand(rows, len(depth))
        else:
            ends = (self.columns + seen_until).expand(rows, -1)
        return self._read(tokens.expand(rows, -1), self._lengths + depth, ends, seen, keep)

    def _read(
        self,
        tokens: Tensor,
        depth: Tensor,
        ends: Tensor,
        seen: Tensor | None,
        keep: bool,
        last_only: bool = False,
    ) -> Tensor:
        count = tokens.shape[1]
        every_end = torch.cat([self._seen_until, ends], dim=1)
        every_depth = torch.cat([self._depth, depth], dim=1)
        dtype = causal_lm(self._model).get_input_embeddings().weight.dtype
        masks = tree_masks(self._config, every_end, every_depth, count, dtype)
        if seen is not None:
            for mask in masks.values() if isinstance(masks, dict) else [masks]:
                mask.masked_fill_(~seen[:, None], torch.finfo(dtype).min)
        logits = self._model(
            input_ids=tokens,
            position_ids=depth,
            attention_mask=masks,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1 if last_only else count,
        ).logits
        if keep:
            self._seen_until, self._depth = every_end, every_depth
        else:
            self._cache.crop(-count)
        return logits.log_softmax(dim=-1, dtype=torch.float32)
