"""Ranking a whole catalogue exactly: each prompt is read once, the trie of titles passes behind it.

Chunks of the trie lie in one row, so the prompt's keys and values are used in place for all titles
and never copied, and what titles share is read once.

Where only the best are wanted, most of the trie need not be read at all: a title is less likely
than each of its beginnings, so no title is among the best whose beginning is less likely than they.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.contexts import Ids
from palate.policies.language.item_trie import ItemTrie
from palate.policies.language.prompt_cache import PromptCache
from palate.policies.language.prompts import Tokens
from palate.policies.language.reading import MOST_LOGITS

CHUNK_TOKENS = 96
"""Nodes in a chunk where several prompts are read together: more of them would make attention among
unrelated titles dear."""
READ_TOGETHER = 256
"""Tokens to pass at once, at least, to fill matrix products: fewer prompts take larger chunks."""
WORTH = 0.25
"""Share of the trie to read in search of the likely part before all of it is read instead."""
ROUNDING = 1e-2
"""How far below the least likely wanted title, in nats, a beginning must be to be left out."""


def catalogue_log_probs(
    model: nn.Module,
    prompts: Sequence[Tokens],
    trie: ItemTrie,
    end_token: int,
    pad_token: int,
    device: torch.device,
    chunk_tokens: int | None = None,
    at_least: Tensor | None = None,
) -> Tensor:
    """(B, items) float32 log-probability of every title after every prompt.

    Args:
        model: a causal language model that takes a 4-D additive attention mask.
        prompts: B token arrays.
        trie: of the items to score.
        end_token: scored after each title.
        pad_token: fills shorter prompts on the left.
        device: where the model is.
        chunk_tokens: nodes to pass at once behind each prompt; by default as many as are fast.
        at_least: (B,) the log-probability that a title must have in some context to be wanted;
            others may be left unread, and are −inf. None to read all.
    """
    cache = PromptCache(model, prompts, pad_token, device)
    wanted = chunk_tokens or max(CHUNK_TOKENS, READ_TOGETHER // len(prompts))
    size = max(1, min(wanted, MOST_LOGITS // cache.first.numel()))
    nodes = None
    if at_least is not None and bool(at_least.isfinite().all()):
        nodes = _likely(cache, trie, end_token, size, at_least)
    nodes = _all(cache, trie, end_token, size) if nodes is None else nodes
    return nodes[:, torch.from_numpy(trie.last).to(device)]


def _all(cache: PromptCache, trie: ItemTrie, end_token: int, size: int) -> Tensor:
    """(B, T) log-probabilities of the titles that end at each node; 0 where none does."""
    at, token_ids = _places(cache, trie)
    is_last = _is_last(trie)
    read = torch.zeros(len(cache.first), len(trie), device=cache.first.device)
    ended = torch.zeros_like(read)
    for start, stop, n_above, log_probs in _passed(cache, trie, size):
        nodes = np.flatnonzero(trie.parent[start:stop] >= 0) + start
        parent = trie.parent[nodes]
        place = np.where(parent < start, trie.depth[nodes] - 1, parent - start + n_above)
        read[:, at(nodes)] = log_probs[:, at(place), token_ids[at(nodes)]]
        nodes = np.flatnonzero(is_last[start:stop]) + start
        ended[:, at(nodes)] = log_probs[:, at(nodes - start + n_above), end_token]
    roots, *deeper = map(at, trie.levels)
    read[:, roots] = cache.first[:, token_ids[roots]]
    parents = at(trie.parent)
    for level in deeper:
        read[:, level] += read[:, parents[level]]
    return read + ended


def _likely(
    cache: PromptCache, trie: ItemTrie, end_token: int, size: int, at_least: Tensor
) -> Tensor | None:
    """(B, T) log-probabilities of the titles that end at each node; −inf where none does that is
    likely enough. None where too many are.

    Level by level: what stands above the likely nodes of a level is read again for them.
    """
    at, token_ids = _places(cache, trie)
    is_last = _is_last(trie)
    enough = (at_least - ROUNDING)[:, None]
    reached = torch.full((len(cache.first), len(trie)), -torch.inf, device=cache.first.device)
    ended = reached.clone()
    found, fed = trie.levels[0], 0
    reached[:, at(found)] = cache.first[:, token_ids[at(found)]]
    while len(found):
        likely = (reached[:, at(found)] >= enough).any(dim=0).cpu().numpy()
        level = found[likely]
        if not len(level):
            break
        part, names = trie.down_to(level)
        fed += len(part)
        if fed > WORTH * len(trie):
            return None
        of_level, below = _is_last(part), []
        for start, stop, n_above, log_probs in _passed(cache, part, size):
            places = np.flatnonzero(of_level[start:stop])
            nodes = names[start:stop][places]
            places = places + n_above
            ends = is_last[nodes]
            last = at(nodes[ends])
            ended[:, last] = reached[:, last] + log_probs[:, at(places[ends]), end_token]
            child, of_node = trie.children_of(nodes)
            read = log_probs[:, at(places[of_node]), token_ids[at(child)]]
            reached[:, at(child)] = reached[:, at(nodes[of_node])] + read
            below.append(child)
        found = np.concatenate(below)
    return ended


def _passed(
    cache: PromptCache, trie: ItemTrie, size: int
) -> Iterator[tuple[int, int, int, Tensor]]:
    """Chunks (start, stop) of a trie, how many columns repeat what stands above, and the (B,
    columns, vocabulary) log-probabilities of what follows each column."""
    at, token_ids = _places(cache, trie)
    for start, stop, above in trie.chunks(size):
        fed = np.concatenate([above, np.arange(start, stop)])
        ends = np.minimum(trie.end[fed], stop) - start + len(above)
        log_probs = cache.read(token_ids[at(fed)], at(trie.depth[fed]), at(ends))
        yield start, stop, len(above), log_probs


def _places(cache: PromptCache, trie: ItemTrie) -> tuple[Callable[[Ids], Tensor], Tensor]:
    """What brings places to the device, and the tokens of a trie there."""
    device = cache.first.device

    def at(places: Ids) -> Tensor:
        return torch.from_numpy(places).to(device)

    return at, at(trie.token_ids)


def _is_last(trie: ItemTrie) -> NDArray[np.bool_]:
    """(T) where titles end."""
    is_last = np.zeros(len(trie), bool)
    is_last[trie.last] = True
    return is_last
