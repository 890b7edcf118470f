"""What a ranking may contain, and how its items are looked for."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.contexts import Context, Ids
from palate.errors import ConfigError, DataError, did_you_mean
from palate.policies.language.beam import beam_search
from palate.policies.language.catalogue import catalogue_log_probs
from palate.policies.language.item_trie import ItemTrie
from palate.policies.language.prompts import Tokens
from palate.policies.policy import PADDING_ITEM, Ranking, check_items

Method = Literal["exact", "beam"]
Allowed = NDArray[np.bool_] | Sequence[Ids]
"""Items that may be ranked: (items,) or (B, items) truth values, or B arrays of item ids."""

ENOUGH_BEAMS = 100
"""Beams that find good titles before the best are looked for; lists longer than this are not worth
it, and read the whole catalogue."""


def check_search(method: str, top: int, width: int, engine: str) -> None:
    """Raise a ConfigError where a catalogue cannot be searched like this."""
    if method not in get_args(Method):
        raise ConfigError(
            f"method='{method}' is no way to rank.{did_you_mean(method, get_args(Method))}"
        )
    if method == "exact":
        return
    if width < top:
        raise ConfigError(
            f"width={width} is less than top={top}: that many beams end in no more than {width} "
            f"titles. Expected width >= {top}."
        )
    if engine == "plain":
        raise ConfigError(
            "method='beam' needs an engine that reads trees, and this model's titles are scored "
            "alone. Use method='exact'."
        )


def legal_items(
    contexts: Sequence[Context], n_items: int, exclude_history: bool, allowed: Allowed | None
) -> NDArray[np.bool_]:
    """(B, items) which items each context may be given.

    Args:
        contexts: B contexts.
        n_items: size of the catalogue.
        exclude_history: leave out what a context's history holds.
        allowed: items to choose from, the same for all contexts or for each; None for all.

    Raises:
        DataError: `allowed` has another shape, names an unknown item, or holds none.
    """
    rows = len(contexts)
    legal = np.ones((rows, n_items), bool)
    if isinstance(allowed, np.ndarray):
        if allowed.dtype != np.bool_ or allowed.shape not in ((n_items,), (rows, n_items)):
            raise DataError(
                f"allowed is an array of {allowed.dtype} of shape {allowed.shape}. Expected truth "
                f"values of shape ({n_items},) or ({rows}, {n_items}), or {rows} arrays of ids."
            )
        legal &= allowed
    elif allowed is not None:
        if len(allowed) != rows:
            raise DataError(
                f"allowed holds {len(allowed)} arrays of item ids for {rows} contexts. Expected "
                "one each."
            )
        legal[:] = False
        for row, ids in enumerate(allowed):
            ids = np.asarray(ids, np.int64)
            check_items(ids, n_items)
            legal[row, ids[ids != PADDING_ITEM]] = True
    for row in np.flatnonzero(~legal.any(axis=1)).tolist():
        raise DataError(
            f"context {contexts[row].context_id} (row {row}) may be given no item, as its allowed "
            "set is empty. Allow at least one, or leave the context out."
        )
    if exclude_history:
        for row, context in enumerate(contexts):
            legal[row, context.history] = False
    return legal


def best_titles(
    model: nn.Module,
    prompts: Sequence[Tokens],
    trie: ItemTrie,
    end_token: int,
    pad_token: int,
    device: torch.device,
    top: int,
    legal: NDArray[np.bool_],
) -> Ranking:
    """The best `top` titles after each prompt, none missed, most of the catalogue unread.

    Beams find good titles first; then all that may be better than the worst of them is read.

    Args:
        model, prompts, trie, end_token, pad_token, device: as in `catalogue_log_probs`.
        top: items to return, at most `ENOUGH_BEAMS`.
        legal: (B, items) which items each context may be given.
    """
    found = beam_search(
        model, prompts, trie, end_token, pad_token, device, top, ENOUGH_BEAMS, legal
    )
    at_least = torch.from_numpy(found.scores[:, -1]).to(device)
    pool = np.flatnonzero(legal.any(axis=0))
    log_probs = catalogue_log_probs(
        model, prompts, trie.restricted(pool), end_token, pad_token, device, at_least=at_least
    )
    return best_items(log_probs, pool, legal, top)


def best_items(log_probs: Tensor, pool: Ids, legal: NDArray[np.bool_], top: int) -> Ranking:
    """The best `top` items of each context, among those that it may be given.

    Args:
        log_probs: (B, pool) scores of some items.
        pool: their ids; every legal item is one of them.
        legal: (B, items) which items each context may be given.
        top: items to return.

    Returns:
        (B, top) items, best first; −1 with score −inf where no legal item was left.
    """
    is_legal = torch.from_numpy(legal[:, pool]).to(log_probs.device)
    found = log_probs.float().masked_fill(~is_legal, -torch.inf).topk(min(top, len(pool)), dim=1)
    scores = np.full((len(log_probs), top), -np.inf, np.float32)
    scores[:, : found.values.shape[1]] = found.values.cpu().numpy()
    item_ids = np.full(scores.shape, PADDING_ITEM)
    item_ids[:, : found.values.shape[1]] = pool[found.indices.cpu().numpy()]
    return Ranking(np.where(scores > -np.inf, item_ids, PADDING_ITEM), scores)
