"""What samplers that ask the policy choose from: each context's items, scored by the policy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.config import PoolConfig
from palate.data.contexts import Context, Ids
from palate.data.prepared import Prepared
from palate.errors import ConfigError
from palate.negatives.pool import Pool
from palate.negatives.popularity import Popularity
from palate.negatives.static import Uniform
from palate.policies.policy import PADDING_ITEM, Policy

MOST_SCORES = 2**24
"""Scores of a catalogue held at once, 64 MiB in float32."""
MOST_PAIRS = 2**11
"""(context, item) pairs of candidate sets scored in one pass."""
PLACE = -1
"""Stands in the key of a candidate set where a sampler's draw has its place in the mixture."""

Kept = tuple[int, Ids, NDArray[np.float32]]
"""The step at which a candidate set was scored, its items, and their log-probabilities."""


class ScoredPools:
    """Scores the catalogue, or a candidate set for each context, with the policy as it is.

    Args:
        policy: in training; it is asked without gradient, in evaluation mode.
        data: gives the catalogue and its popularity.
        options: which items, and for how long a candidate set is kept.

    Raises:
        ConfigError: the policy cannot be asked for such a pool.
    """

    def __init__(self, policy: Policy, data: Prepared, options: PoolConfig) -> None:
        self._policy = policy
        self._n_items = data.n_items
        policy_kind = str(getattr(policy, "kind", "custom"))
        has_lists, engine = data.lists is not None, getattr(policy, "engine", None)
        check_pool(options, policy_kind, policy.lists_candidates, has_lists, engine)
        self._kind = pool_kind(options, policy_kind)
        self._refresh = options.refresh
        self._size = min(options.size, data.n_items)
        self._kept: dict[int, Kept] = {}  # the oldest first
        popular = Popularity(data.popularity) if self._kind == "popularity" else None
        self._drawer = popular or Uniform(data.n_items)

    @property
    def _device(self) -> torch.device:
        return next(self._policy.model.parameters()).device

    @property
    def together(self) -> int:
        """Contexts whose pools are made at once, at most."""
        if self._kind == "catalogue":
            return max(1, MOST_SCORES // self._n_items)
        return max(1, MOST_PAIRS // self._size)

    def pool(
        self,
        contexts: Sequence[Context],
        barred: Sequence[Ids],
        keys: Sequence[tuple[int, ...]],
        step: int,
    ) -> Pool:
        """The scored items of some contexts.

        Args:
            contexts: B contexts.
            barred: for each, items that are never in its candidate set.
            keys: for each, integers that name its candidate set.
            step: optimiser steps made so far.
        """
        if self._kind == "catalogue":
            scores = self._policy.catalogue_log_probs(contexts).float()
            return Pool(scores, torch.arange(self._n_items, device=scores.device))
        self._forget(step)
        new = [row for row, one in enumerate(contexts) if one.context_id not in self._kept]
        made: dict[int, tuple[Tensor, Tensor]] = {}
        if new:
            some = [contexts[row] for row in new]
            items, scores = self._scored(some, [barred[r] for r in new], [keys[r] for r in new])
            made = {row: (items[i], scores[i]) for i, row in enumerate(new)}
            if self._refresh:
                host = zip(some, items.cpu().numpy(), scores.cpu().numpy(), strict=True)
                self._kept |= {one.context_id: (step, ids, found) for one, ids, found in host}
            if len(new) == len(contexts):
                return Pool(scores, items)
        for row in range(len(contexts)):
            if row not in made:
                _, ids, found = self._kept[contexts[row].context_id]
                items, scores = torch.from_numpy(ids), torch.from_numpy(found)
                made[row] = items.to(self._device), scores.to(self._device)
        rows = [made[row] for row in range(len(contexts))]
        return Pool(torch.stack([s for _, s in rows]), torch.stack([i for i, _ in rows]))

    def state_dict(self) -> dict[str, Any]:
        """The candidate sets that are kept, for a checkpoint; nothing where none ever is."""
        if not self._refresh:
            return {}
        kept = list(self._kept.values())
        shape = (len(kept), self._size)
        return {
            "contexts": torch.tensor(list(self._kept), dtype=torch.long),
            "steps": torch.tensor([step for step, _, _ in kept], dtype=torch.long),
            "item_ids": torch.tensor(np.array([ids for _, ids, _ in kept]).reshape(shape)),
            "log_probs": torch.tensor(np.array([s for _, _, s in kept], np.float32).reshape(shape)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a former `state_dict`."""
        names = ("contexts", "steps", "item_ids", "log_probs")
        columns = [state[name].numpy() for name in names]
        self._kept = {
            int(context): (int(step), ids, found)
            for context, step, ids, found in zip(*columns, strict=True)
        }

    def _forget(self, step: int) -> None:
        for context, (made, _, _) in list(self._kept.items()):
            if step - made < self._refresh:
                break
            del self._kept[context]

    def _scored(
        self, contexts: Sequence[Context], barred: Sequence[Ids], keys: Sequence[tuple[int, ...]]
    ) -> tuple[Tensor, Tensor]:
        """(B, size) items, −1 for none, and their log-probabilities, −inf for none."""
        if self._kind == "beam":
            item_ids, log_probs = self._found_by_beams(contexts, barred)
        else:
            item_ids = np.full((len(contexts), self._size), PADDING_ITEM)
            for row, one in enumerate(contexts):
                drawn = self._drawer.draw(one, self._size, barred[row], (*keys[row], PLACE))
                item_ids[row, : len(drawn)] = drawn
            log_probs = self._policy.score(contexts, item_ids).log_probs
        items = torch.from_numpy(item_ids).to(log_probs.device)
        return items, log_probs.float().masked_fill(items == PADDING_ITEM, -torch.inf)

    def _found_by_beams(
        self, contexts: Sequence[Context], barred: Sequence[Ids]
    ) -> tuple[Ids, Tensor]:
        allowed = np.ones((len(contexts), self._n_items), bool)
        for row, items in enumerate(barred):
            allowed[row, items] = False
        ask: Any = self._policy.rank
        found = ask(
            contexts,
            top=self._size,
            method="beam",
            width=self._size,
            exclude_history=False,
            allowed=allowed,
        )
        return found.item_ids, torch.from_numpy(found.scores).to(self._device)


def pool_kind(options: PoolConfig, policy_kind: str) -> str:
    """The pool's kind, with its default."""
    return options.kind or ("uniform" if policy_kind == "language" else "catalogue")


def check_pool(
    options: PoolConfig,
    policy_kind: str,
    lists_candidates: bool,
    has_lists: bool,
    engine: str | None = None,
) -> None:
    """Whether a policy can be asked for a pool, which is known before any training.

    Args:
        options: of the pool.
        policy_kind: such as "language".
        lists_candidates: whether prompts show the candidates.
        has_lists: whether the source says which.
        engine: of a language policy; None where it is not known yet.

    Raises:
        ConfigError: it cannot; says what to set instead.
    """
    kind = pool_kind(options, policy_kind)
    if kind == "catalogue" and options.refresh:
        raise ConfigError(
            f"align.pool.refresh is {options.refresh}, but scores of a whole catalogue are not "
            "kept. Set it to 0, or choose candidate sets with --set align.pool.kind=uniform."
        )
    if kind == "beam" and policy_kind != "language":
        raise ConfigError(
            f"align.pool.kind: only a language policy has beams, and this is a {policy_kind} "
            "policy; leave it out to score the whole catalogue."
        )
    if kind == "beam" and engine == "plain":
        raise ConfigError(
            "align.pool.kind: beams need titles read as a tree, and this model's are scored alone. "
            "Use --set align.pool.kind=uniform."
        )
    if lists_candidates and (not has_lists or kind in ("catalogue", "beam")):
        raise ConfigError(
            "align.negatives: the prompts list candidates, so the policy cannot be asked for "
            "scores before these are drawn. Use --set policy.prompts=history, or samplers that do "
            "not ask it: uniform, popularity, observed, fixed, in_batch."
        )


def check_pool_size(options: PoolConfig, policy_kind: str, needed: int) -> None:
    """Raise a ConfigError where candidate sets are smaller than what samplers choose among."""
    if pool_kind(options, policy_kind) != "catalogue" and options.size < needed:
        raise ConfigError(
            f"align.pool.size is {options.size}, but the samplers choose among {needed} items of a "
            f"candidate set. Use --set align.pool.size={2 * needed}, or a smaller k or count."
        )
