"""Any torch module that scores a catalogue after a history, as a policy."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palate.data.contexts import Context, History, Ids
from palate.errors import CheckpointError, ConfigError, DataError
from palate.files import write_json
from palate.policies.policy import (
    PADDING_ITEM,
    Batch,
    Ranking,
    Scored,
    check_items,
    inference,
    on_device,
    top_items,
)
from palate.policies.settings import SETTINGS, read_settings

Forward = Callable[[Any, Tensor, Tensor], Tensor]
"""(module, history (B, L), lengths (B,)) → logits (B, columns)."""
Side = Literal["left", "right"]
WEIGHTS, ITEMS = "model.safetensors", "items.parquet"


class ModulePolicy:
    """Scores items by the softmax over a module's logits after the recent items of a history.

    The module is called with `history` (B, L), in its own item ids and padded to the longest, and
    `lengths` (B,), and gives logits (B, columns), of which column j is its item j. Columns of no
    item, such as that of the padding, do not count.

    Each moment is read by itself, and imitation learns target by target. Alignment has no noise:
    the module is in evaluation mode, so dropout is off and batch statistics are fixed.

    Args:
        module: maps histories to logits.
        items: the catalogue, with the columns `source_id` and `title`; row i is item i.
        max_history: most recent items that are read.
        forward: how to call the module, where not by `module(history, lengths)`.
        ids: the module's ids: of the first item, where the others follow in order, or (items,) of
            each. 1 for modules that keep 0 for padding, as most do.
        padding_id: what fills a history up.
        padding: on which side.

    Raises:
        ConfigError: the ids are not one for each item.
    """

    kind = "module"
    learns_whole_histories = False
    lists_candidates = False
    moments_together = 1

    def __init__(
        self,
        module: nn.Module,
        items: pa.Table,
        max_history: int = 50,
        *,
        forward: Forward | None = None,
        ids: int | Sequence[int] | Ids = 1,
        padding_id: int = 0,
        padding: Side = "right",
    ) -> None:
        self.n_items = items.num_rows
        self.items: pa.Table | None = items
        self.max_history = max_history
        self.padding_id = padding_id
        self.padding: Side = padding
        self.made_by: dict[str, Any] | None = None
        """The `policy_factory` that made it and its arguments; None for a hand-made one."""
        first = np.arange(self.n_items) if np.ndim(ids) == 0 else 0
        self._ids: Ids = np.asarray(ids, np.int64) + first
        different = len(np.unique(self._ids))
        if padding not in ("left", "right"):
            raise ConfigError(f"padding='{padding}' is unknown; expected 'left' or 'right'.")
        if self._ids.shape != (self.n_items,) or different < self.n_items or (self._ids < 0).any():
            raise ConfigError(
                f"ids: found {different:,} for {self.n_items:,} items. Expected the id of the "
                "first item, or a different id for each row of the catalogue, none below 0."
            )
        self.model: nn.Module = CatalogueScores(module, torch.from_numpy(self._ids), forward)

    @classmethod
    def load(
        cls, folder: Path | str, module: nn.Module, forward: Forward | None = None
    ) -> "ModulePolicy":
        """A policy from a folder that `save` wrote, whatever made it.

        Args:
            folder: what `save` wrote.
            module: one like the saved one; its weights are replaced.
            forward: how to call it, as when it was saved.

        Raises:
            CheckpointError: the folder is incomplete, or of a module of another shape.
        """
        saved = Saved.read(Path(folder))
        ids = saved.ids.numpy()
        policy = cls(module, saved.items, forward=forward, ids=ids, **saved.reads)
        saved.restore(policy)
        policy.made_by = saved.made_by
        return policy

    def save(self, folder: Path) -> None:
        """Write weights, items and what made the module to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.model.state_dict(), folder / WEIGHTS)
        pq.write_table(self.items, folder / ITEMS)
        settings = {"kind": self.kind, "made_by": self.made_by, "reads": self.reads}
        write_json(settings, folder / SETTINGS)

    @property
    def reads(self) -> dict[str, Any]:
        """How a history becomes what the module is called with, besides the ids."""
        return {
            "max_history": self.max_history,
            "padding_id": self.padding_id,
            "padding": self.padding,
        }

    def start_stage(self, stage: Literal["sft", "align"]) -> None:
        """Nothing: whatever has gradients trains in every stage."""

    @property
    def first_item(self) -> int:
        """The item with the smallest of the module's ids."""
        return int(self._ids.argmin())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.buffers()).device

    def first_reads(self, history: Ids, moments: Ids, together: int) -> Ids:
        """See `Policy.first_reads`; no moments share a pass, so each reads what it would alone."""
        return np.maximum(moments - self.max_history, 0)

    def history_windows(self, history: History) -> list[History]:
        """See `Policy.history_windows`; nothing is cut, and the first item of all is no target."""
        return [history._replace(first_target=max(history.first_target, 1))]

    def collate(self, contexts: Sequence[Context], item_ids: Ids) -> Batch:
        """See `Policy.collate`."""
        return {**self._histories(contexts), "item_ids": torch.from_numpy(np.asarray(item_ids))}

    def log_probs(self, batch: Batch, model: nn.Module | None = None) -> Scored:
        """See `Policy.log_probs`."""
        run = model or self.model
        return Scored(run(batch["history"], batch["lengths"], batch["item_ids"]))

    def collate_histories(self, histories: Sequence[History]) -> Batch:
        """See `Policy.collate_histories`; a row for each target."""
        none = np.empty(0, np.int64)
        places = [
            (one, place)
            for one in histories
            for place in range(max(one.first_target, 1), len(one.items))
        ]
        contexts = [Context(one.items[:place], none, none) for one, place in places]
        targets = np.array([[one.items[place]] for one, place in places])
        return {**self.collate(contexts, targets), "targets": len(places)}

    def history_losses(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        """See `Policy.history_losses`: cross-entropy over the catalogue."""
        return -self.log_probs(batch, model).log_probs[:, 0]

    def score(self, contexts: Sequence[Context], item_ids: Ids) -> Scored:
        """See `Policy.score`."""
        item_ids = np.asarray(item_ids)
        check_items(item_ids, self.n_items)
        with inference(self.model):
            return self.log_probs(on_device(self.collate(contexts, item_ids), self.device))

    def catalogue_log_probs(self, contexts: Sequence[Context], pool: Ids | None = None) -> Tensor:
        """See `Policy.catalogue_log_probs`."""
        if pool is not None:
            return self.score(contexts, np.tile(np.asarray(pool), (len(contexts), 1))).log_probs
        batch = on_device(self._histories(contexts), self.device)
        with inference(self.model):
            return self.model(batch["history"], batch["lengths"])

    def rank(self, contexts: Sequence[Context], top: int = 10) -> Ranking:
        """See `Policy.rank`."""
        return top_items(self.catalogue_log_probs(contexts), contexts, top)

    def _histories(self, contexts: Sequence[Context]) -> Batch:
        read = [
            one.history[-self.max_history if one.first_read is None else one.first_read :]
            for one in contexts
        ]
        lengths = np.array([len(history) for history in read])
        if (lengths == 0).any():
            raise DataError(
                f"context {contexts[int(lengths.argmin())].context_id} has an empty history; a "
                "module policy needs at least one item. Recommend popular items to newcomers, or "
                "use a language policy."
            )
        history = np.full((len(read), lengths.max()), self.padding_id)
        places = np.arange(history.shape[1])
        if self.padding == "left":
            places = places[::-1]
        history[places < lengths[:, None]] = self._ids[np.concatenate(read)]
        return {"history": torch.from_numpy(history), "lengths": torch.from_numpy(lengths)}


class CatalogueScores(nn.Module):
    """A module's logits as log-probabilities of the items of a catalogue.

    Args:
        module: called by `forward`.
        ids: (items,) the module's id of each item.
        forward: how to call it; None for `module(history, lengths)`.
    """

    def __init__(self, module: nn.Module, ids: Tensor, forward: Forward | None) -> None:
        super().__init__()
        self.module = module
        self.ids: Tensor
        self.register_buffer("ids", ids.clone())
        self._forward = forward
        self._columns = int(ids.max()) + 1
        self.register_state_dict_post_hook(_without_sharing)

    def forward(self, history: Tensor, lengths: Tensor, item_ids: Tensor | None = None) -> Tensor:
        """Log-probabilities over the catalogue, in float32.

        Args:
            history: (B, L) the module's ids.
            lengths: (B,).
            item_ids: (B, K) items; −1 for none. None for all.

        Returns:
            (B, K) with 0 for absent candidates, or (B, items).
        """
        call = self._forward or (lambda module, *given: module(*given))
        logits: Any = call(self.module, history, lengths)
        if not isinstance(logits, Tensor):
            raise ConfigError(
                f"the module gave a {type(logits).__name__}; expected a tensor of logits. Where "
                "they are a part of what it gives, pass ModulePolicy a forward that picks them: "
                "forward=lambda module, *given: module(*given)[0]."
            )
        if logits.ndim != 2 or len(logits) != len(history) or logits.shape[1] < self._columns:
            raise ConfigError(
                f"the module gave logits of shape {tuple(logits.shape)} for {len(history)} "
                f"histories; expected ({len(history)}, {self._columns} or more): a column for each "
                "of its item ids. Where its ids begin at 0, pass ids=0 to ModulePolicy."
            )
        logits = logits.float()
        no_item = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        no_item[self.ids] = False
        logits = logits.masked_fill(no_item, -torch.inf)
        if item_ids is None:
            return logits.log_softmax(dim=1)[:, self.ids]
        chosen = logits.gather(1, self.ids[item_ids.clamp(min=0)])
        log_probs = chosen - logits.logsumexp(dim=1, keepdim=True)
        return log_probs.masked_fill(item_ids == PADDING_ITEM, 0.0)


def _without_sharing(
    module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]
) -> None:
    """A state dictionary as safetensors takes it: a copy of weights that have two names."""
    met: set[int] = set()
    for name, tensor in state.items():
        place = tensor.data_ptr()
        state[name] = tensor.clone() if place in met else tensor.contiguous()
        met.add(place)


class Saved(NamedTuple):
    """What `ModulePolicy.save` wrote.

    Attributes:
        folder: where.
        made_by: the `policy_factory` that made the policy and its arguments; None for none.
        reads: how the policy reads histories.
        ids: the module's id of each item.
        items: the catalogue.
        weights: of the module, and the ids among them.
    """

    folder: Path
    made_by: dict[str, Any] | None
    reads: dict[str, Any]
    ids: Tensor
    items: pa.Table
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> "Saved":
        """Read a folder; raises a CheckpointError where something is missing, cut, or another
        policy's."""
        settings = read_settings(folder, ModulePolicy.kind)
        try:
            items, weights = pq.read_table(folder / ITEMS), load_file(folder / WEIGHTS)
            made_by, reads, ids = settings["made_by"], settings["reads"], weights["ids"]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} holds no whole policy ({str(error).splitlines()[0]}). Expected "
                f"{SETTINGS}, {ITEMS} and {WEIGHTS}; train or copy it again."
            ) from error
        return cls(folder, made_by, reads, ids, items, weights)

    def restore(self, policy: ModulePolicy) -> None:
        """Put the weights into a policy.

        Raises:
            CheckpointError: they are of another module, or the policy reads histories otherwise.
        """
        if policy.reads != self.reads:
            raise CheckpointError(
                f"{self.folder} was saved with {self.reads}, but its module now comes "
                f"with {policy.reads}. Make the former ones again."
            )
        own = policy.model.state_dict()["ids"].cpu()
        if not torch.equal(own, self.ids):
            raise CheckpointError(
                f"{self.folder} was saved with other ids of the items than its module now comes "
                "with. Make it from the same data."
            )
        try:
            policy.model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.folder / WEIGHTS} holds weights of another module "
                f"({' '.join(str(error).split())}). Give one of the class and shape that was saved."
            ) from error
