"""Beam search over the trie of a catalogue: the likeliest titles, most of it unread.

What a beam may go on with are the children of its node, so no other text can come out. The beams of
a prompt are branches in one row behind it: a mask says which columns each of them sees, so neither
the prompt nor the beams are ever copied, and a step is one pass for all beams of all prompts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from palate.policies.language.item_trie import ItemTrie
from palate.policies.language.prompt_cache import PromptCache
from palate.policies.language.prompts import Tokens
from palate.policies.language.reading import MOST_LOGITS, text_config
from palate.policies.policy import PADDING_ITEM, Ranking


def beam_search(
    model: nn.Module,
    prompts: Sequence[Tokens],
    trie: ItemTrie,
    end_token: int,
    pad_token: int,
    device: torch.device,
    top: int,
    width: int,
    legal: NDArray[np.bool_] | None = None,
) -> Ranking:
    """The likeliest items among the titles that beams find, with exact log-probabilities.

    A title that has ended keeps its place among the best `top` while longer ones go on. A beam that
    is less likely than all of these is given up, since it can only become less likely.

    Args:
        model: a causal language model that takes a 4-D additive attention mask.
        prompts: B token arrays.
        trie: of the catalogue.
        end_token: ends a title.
        pad_token: fills shorter prompts on the left.
        device: where the model is.
        top: items to return, at most as many as there are beams.
        width: beams. With as many as there are titles nothing can be missed.
        legal: (B, items) which items each context may be given; None for all.

    Returns:
        (B, top) items, best first; −1 with score −inf where no further title was found.
    """
    together = max(1, MOST_LOGITS // (width * int(text_config(model).vocab_size)))
    found = [
        _search(
            PromptCache(model, prompts[first : first + together], pad_token, device),
            trie,
            end_token,
            top,
            width,
            None if legal is None else legal[first : first + together],
        )
        for first in range(0, len(prompts), together)
    ]
    return Ranking(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _search(
    cache: PromptCache,
    trie: ItemTrie,
    end_token: int,
    top: int,
    width: int,
    legal: NDArray[np.bool_] | None,
) -> Ranking:
    device, rows = cache.first.device, len(cache.first)
    token_ids, end = (torch.from_numpy(part).to(device) for part in (trie.token_ids, trie.end))
    children, first_child = (torch.from_numpy(part).to(device) for part in trie.children)
    # (B or 1, T): how many items end at a node, and (…, T + 1) before a node
    at_node = np.bincount(trie.last, minlength=len(trie))[None]
    if legal is not None:
        at_node = trie.allowed_at(legal)
    ends_here = torch.from_numpy(at_node > 0).to(device).expand(rows, -1)
    until = torch.from_numpy(trie.items_until(at_node)).to(device).expand(rows, -1)
    row = torch.arange(rows, device=device)[:, None]

    node = torch.full((rows, 1), -1, device=device)
    score = torch.zeros(rows, 1, device=device)
    path = torch.empty(rows, 1, 0, dtype=torch.long, device=device)  # columns of a beam's tokens
    log_probs = cache.first[:, None]
    best_score = torch.full((rows, top), -torch.inf, device=device)
    best_node = torch.full((rows, top), -1, device=device)
    for depth in range(len(trie.levels)):
        first, last = first_child[node + 1], first_child[node + 2]
        most = int((last - first).max())
        if most == 0:
            break
        # (B, beams, children): a beam's children, and behind them others' that are left out
        place = first[..., None] + torch.arange(most, device=device)
        is_child = place < last[..., None]
        child = children[place.clamp(max=len(trie) - 1)]
        is_open = until[row[..., None], end[child]] > until[row[..., None], child]
        reached = score[..., None] + log_probs.gather(2, token_ids[child])
        enough = reached > best_score[:, -1, None, None]
        reached = reached.masked_fill(~(is_child & is_open & enough), -torch.inf).flatten(1)
        score, chosen = reached.topk(min(width, reached.shape[1]), dim=1)
        beams = int((score > -torch.inf).sum(dim=1).max())
        if beams == 0:
            break
        score, chosen = score[:, :beams], chosen[:, :beams]
        node = child.flatten(1).gather(1, chosen)
        columns = cache.columns + torch.arange(beams, device=device).expand(rows, -1)
        path = torch.cat([path[row, chosen // most], columns[..., None]], dim=2)

        seen = cache.is_real[:, None].expand(-1, beams, -1)
        seen = torch.nn.functional.pad(seen, (0, cache.columns + beams - cache.width))
        seen = seen.scatter(2, path, True)
        log_probs = cache.read(
            token_ids[node],
            torch.full((beams,), depth, device=device),
            seen=seen,
            keep=True,
        )
        ended = score + log_probs[..., end_token]
        ended = ended.masked_fill(~ends_here[row, node], -torch.inf)
        best_score, kept = torch.cat([best_score, ended], dim=1).topk(top, dim=1)
        best_node = torch.cat([best_node, node], dim=1).gather(1, kept)
    return _items_of(trie, best_node.cpu().numpy(), best_score.cpu().numpy(), legal)


def _items_of(
    trie: ItemTrie,
    nodes: NDArray[np.int64],
    scores: NDArray[np.float32],
    legal: NDArray[np.bool_] | None,
) -> Ranking:
    """The items of the best titles, those of one title beside each other; (B, top) as given."""
    items, first = trie.items_at
    found = scores > -np.inf
    counts = np.where(found, first[nodes + 1] - first[nodes], 0)
    shown = np.arange(counts.max(initial=1))
    places = np.minimum(first[nodes][..., None] + shown, len(items) - 1)
    item = items[places].reshape(len(nodes), -1)
    is_there = (shown < counts[..., None]).reshape(item.shape)
    if legal is not None:
        is_there &= np.take_along_axis(legal, item, axis=1)
    score = np.where(is_there, np.repeat(scores, len(shown), axis=1), np.float32(-np.inf))
    order = np.argsort(-score, axis=1, kind="stable")[:, : nodes.shape[1]]
    item, score = np.take_along_axis(item, order, axis=1), np.take_along_axis(score, order, axis=1)
    return Ranking(np.where(score > -np.inf, item, PADDING_ITEM), score)
