"""A sequence model as a policy: an item is a symbol, and one pass scores the whole catalogue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from palate.data.contexts import Context, History, Ids
from palate.errors import CheckpointError, DataError
from palate.files import write_json
from palate.policies.policy import (
    PADDING_ITEM,
    Batch,
    Ranking,
    Scored,
    check_items,
    first_reads,
    inference,
    on_device,
    top_items,
    windows,
)
from palate.policies.sequence.model import SequenceConfig, SequenceModel


class SequencePolicy:
    """Scores items by the softmax over the catalogue after the most recent items of a history.

    Args:
        model: gives logits over the catalogue at places of some histories.
        items: the catalogue; row i is item i.

    Raises:
        CheckpointError: the model was made for another number of items.
    """

    kind = "sequence"
    learns_whole_histories = True
    lists_candidates = False

    def __init__(self, model: SequenceModel, items: pa.Table) -> None:
        self.model: nn.Module = model
        self.items: pa.Table | None = items
        self.n_items: int = model.config.n_items
        self.max_history: int = model.config.max_history
        if items.num_rows != self.n_items:
            raise CheckpointError(
                f"the sequence model scores {self.n_items:,} items, but the catalogue has "
                f"{items.num_rows:,}. Train it anew on this catalogue."
            )

    @classmethod
    def create(
        cls,
        items: pa.Table,
        max_history: int = 50,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 2,
        inner: int = 256,
        dropout: float = 0.5,
        seed: int = 0,
    ) -> "SequencePolicy":
        """SASRec with random weights; see `SequenceConfig` for the shape.

        Args:
            items: the catalogue.
            max_history: most recent items the model reads.
            hidden, layers, heads, inner, dropout: shape of the encoder.
            seed: names the weights.
        """
        config = SequenceConfig(
            n_items=items.num_rows,
            max_history=max_history,
            hidden=hidden,
            layers=layers,
            heads=heads,
            inner=inner,
            dropout=dropout,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(SequenceModel(config), items)

    @classmethod
    def load(cls, folder: Path) -> "SequencePolicy":
        """A policy from a folder that `save` wrote."""
        try:
            items = pq.read_table(folder / "items.parquet")
            model = SequenceModel.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # missing, cut, other
            raise CheckpointError(
                f"{folder} holds no whole policy ({str(error).splitlines()[0]}). Expected "
                "palate.json, items.parquet, config.json and model.safetensors; train or copy it "
                "again."
            ) from error
        return cls(model, items)

    def save(self, folder: Path) -> None:
        """Write weights and items to a folder."""
        model: Any = self.model
        model.save_pretrained(folder)
        pq.write_table(self.items, folder / "items.parquet")
        write_json({"kind": self.kind}, folder / "palate.json")

    def start_stage(self, stage: Literal["sft", "align"]) -> None:
        """Nothing: all weights train in every stage."""

    def check_catalogue(self, items: pa.Table) -> None:
        """Raise a CheckpointError unless `items` is the catalogue the policy was trained on."""
        own = [] if self.items is None else self.items["source_id"].to_pylist()
        given = items["source_id"].to_pylist()
        if own != given:
            unknown = sorted(set(map(str, given)) - set(map(str, own)))
            named = f", such as item {unknown[0]}" if unknown else ", in another order"
            raise CheckpointError(
                f"the saved sequence policy knows a catalogue of {len(own):,} items, but the data "
                f"has {len(given):,}{named}. It knows items by their ids alone: train it anew on "
                "this data."
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def moments_together(self) -> int:
        """As many as one pass reads."""
        return self.max_history

    def first_reads(self, history: Ids, moments: Ids, together: int) -> Ids:
        """See `Policy.first_reads`; a later pass repeats half of what it can read."""
        return first_reads(history, moments, together, self.max_history, self.max_history // 2)

    def history_windows(self, history: History) -> list[History]:
        """See `Policy.history_windows`; a window has one item more than is read, the last target,
        and the first item of all is never one."""
        learnt = History(history.items, max(history.first_target, 1))
        return windows(learnt, self.max_history + 1, self.max_history // 2 + 1)

    def collate(self, contexts: Sequence[Context], item_ids: Ids) -> Batch:
        """See `Policy.collate`; moments of one history become places in one row."""
        return {**self._places(contexts), "item_ids": torch.from_numpy(np.asarray(item_ids))}

    def log_probs(self, batch: Batch, model: nn.Module | None = None) -> Scored:
        """See `Policy.log_probs`."""
        logits = self._logits(batch, model)
        wanted = batch["item_ids"]
        chosen = logits.gather(1, wanted.clamp(min=0)) - logits.logsumexp(dim=1, keepdim=True)
        return Scored(chosen.masked_fill(wanted == PADDING_ITEM, 0.0))

    def collate_histories(self, histories: Sequence[History]) -> Batch:
        """See `Policy.collate_histories`."""
        firsts = [max(first, 1) for _, first in histories]
        columns = [
            np.arange(f - 1, len(h.items) - 1) for f, h in zip(firsts, histories, strict=True)
        ]
        rows = np.repeat(np.arange(len(histories)), [len(column) for column in columns])
        targets = np.concatenate([h.items[f:] for f, h in zip(firsts, histories, strict=True)])
        return {
            "history": torch.from_numpy(_right_padded([items[:-1] for items, _ in histories])),
            "rows": torch.from_numpy(rows),
            "columns": torch.from_numpy(np.concatenate(columns)),
            "target_ids": torch.from_numpy(targets),
            "targets": len(targets),
        }

    def history_losses(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        """See `Policy.history_losses`: cross-entropy over the whole catalogue."""
        return F.cross_entropy(self._logits(batch, model), batch["target_ids"], reduction="none")

    def score(self, contexts: Sequence[Context], item_ids: Ids) -> Scored:
        """See `Policy.score`."""
        item_ids = np.asarray(item_ids)
        check_items(item_ids, self.n_items)
        with inference(self.model):
            return self.log_probs(on_device(self.collate(contexts, item_ids), self.device))

    def catalogue_log_probs(self, contexts: Sequence[Context], pool: Ids | None = None) -> Tensor:
        """See `Policy.catalogue_log_probs`."""
        with inference(self.model):
            logits = self._logits(on_device(self._places(contexts), self.device))
            scores = logits.log_softmax(dim=1)
        if pool is None:
            return scores
        return scores[:, torch.from_numpy(np.asarray(pool)).to(self.device)]

    def rank(self, contexts: Sequence[Context], top: int = 10) -> Ranking:
        """See `Policy.rank`."""
        return top_items(self.catalogue_log_probs(contexts), contexts, top)

    def _logits(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        run = model or self.model
        return run(batch["history"], batch["rows"], batch["columns"]).float()

    def _places(self, contexts: Sequence[Context]) -> Batch:
        """Histories (R, L), and for each context its row and its column in them.

        A history that begins another one of the batch is not read twice.
        """
        windows = [
            c.history[-self.max_history if c.first_read is None else c.first_read :]
            for c in contexts
        ]
        read: dict[int, tuple[int, Ids]] = {}
        histories: list[Ids] = []
        rows = np.zeros(len(contexts), np.int64)
        for place in sorted(range(len(windows)), key=lambda place: -len(windows[place])):
            window, user = windows[place], contexts[place].user_id
            if len(window) == 0:
                raise DataError(
                    f"context {contexts[place].context_id} has an empty history; a sequence "
                    "policy needs at least one item. Recommend popular items to newcomers, or use "
                    "a language policy."
                )
            row, longer = read.get(user, (-1, window))
            if row < 0 or not np.array_equal(longer[: len(window)], window):
                row = len(histories)
                histories.append(window)
                read[user] = (row, window)
            rows[place] = row
        columns = np.array([len(window) - 1 for window in windows])
        return {
            "history": torch.from_numpy(_right_padded(histories)),
            "rows": torch.from_numpy(rows),
            "columns": torch.from_numpy(columns),
        }


def _right_padded(histories: Sequence[Ids]) -> Ids:
    padded = np.zeros((len(histories), max(map(len, histories))), np.int64)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = history
    return padded
