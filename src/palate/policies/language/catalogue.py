"""Ranking a whole catalogue: each prompt is read once, titles pass in chunks behind it.

The titles of a chunk lie one after another in one row, so the prompt's keys and values are used in
place for all of them and never copied per title.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from palate.policies.language.adapters import causal_lm
from palate.policies.language.prompts import Tokens
from palate.policies.language.reading import tree_masks

CHUNK_TOKENS = 128
"""Title tokens a chunk holds: enough to fill matrix products, few enough that the square of
attention among unrelated titles stays small beside them."""
MOST_LOGITS = 2**26
"""Logits held at once, 256 MiB in float32; a large vocabulary makes chunks smaller."""


def catalogue_log_probs(
    model: nn.Module,
    prompts: Sequence[Tokens],
    titles: Sequence[Tokens],
    end_token: int,
    pad_token: int,
    device: torch.device,
    chunk_tokens: int | None = None,
) -> Tensor:
    """(B, titles) float32 log-probability of every title after every prompt.

    Args:
        model: a causal language model that takes a 4-D additive attention mask.
        prompts: B token arrays.
        titles: token arrays without end token, each at least one token long.
        end_token: scored after each title.
        pad_token: fills shorter prompts on the left.
        device: where the model is.
        chunk_tokens: title tokens to pass at once; by default as many as are fast.
    """
    width = max(map(len, prompts))
    input_ids = np.full((len(prompts), width), pad_token, np.int64)
    positions = np.zeros((len(prompts), width), np.int64)
    is_real = np.zeros((len(prompts), width), bool)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = prompt
        positions[row, width - len(prompt) :] = np.arange(len(prompt))
        is_real[row, width - len(prompt) :] = True
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    everything = np.iinfo(np.int64).max
    seen_until = np.where(is_real, everything, np.arange(1, width + 1))
    prompt_end = torch.from_numpy(seen_until).to(device)
    prompt_depth = torch.from_numpy(positions).to(device)

    config: Any = causal_lm(model).config
    dtype = next(model.parameters()).dtype
    cache = DynamicCache()
    first = _logits(
        model,
        input_ids=torch.from_numpy(input_ids).to(device),
        position_ids=prompt_depth,
        attention_mask=tree_masks(config, prompt_end, prompt_depth, width, dtype),
        past_key_values=cache,
        kept=1,
    )[:, -1].log_softmax(dim=-1)

    room = MOST_LOGITS // first.numel()
    chunk_tokens = chunk_tokens or max(1, min(CHUNK_TOKENS, room))
    scores = torch.empty(len(prompts), len(titles), device=device)
    for start, stop in _chunks(titles, chunk_tokens):
        chunk = titles[start:stop]
        counts = np.array([len(title) for title in chunk])
        tokens = torch.from_numpy(np.concatenate(chunk)).to(device)
        owner = torch.from_numpy(np.repeat(np.arange(len(chunk)), counts)).to(device)
        ends = torch.from_numpy(np.cumsum(counts)).to(device)
        begins = ends - torch.from_numpy(counts).to(device)
        depth = torch.arange(len(tokens), device=device) - begins[owner]
        subtree_end = torch.cat([prompt_end, (width + ends[owner]).expand(len(prompts), -1)], dim=1)
        chunk_depth = lengths[:, None] + depth
        every_depth = torch.cat([prompt_depth, chunk_depth], dim=1)
        logits = _logits(
            model,
            input_ids=tokens.expand(len(prompts), -1),
            position_ids=chunk_depth,
            attention_mask=tree_masks(config, subtree_end, every_depth, len(tokens), dtype),
            past_key_values=cache,
            kept=len(tokens),
        )
        cache.crop(-len(tokens))
        following = torch.full_like(tokens, end_token)
        following[:-1] = torch.where(owner[1:] == owner[:-1], tokens[1:], end_token)
        read = logits.gather(2, following.expand(len(prompts), -1)[..., None])[..., 0]
        read = read - logits.logsumexp(dim=-1)
        sums = torch.zeros(len(prompts), len(chunk), device=device).index_add(1, owner, read)
        scores[:, start:stop] = sums + first[:, tokens[begins]]
    return scores


def _logits(model: nn.Module, kept: int, **inputs: Any) -> Tensor:
    return model(**inputs, use_cache=True, logits_to_keep=kept).logits.float()


def _chunks(titles: Sequence[Tokens], chunk_tokens: int) -> list[tuple[int, int]]:
    """Consecutive (start, stop) of titles with about `chunk_tokens` tokens together."""
    bounds, start, filled = [], 0, 0
    for index, title in enumerate(titles):
        if filled and filled + len(title) > chunk_tokens:
            bounds.append((start, index))
            start, filled = index, 0
        filled += len(title)
    return [*bounds, (start, len(titles))]
