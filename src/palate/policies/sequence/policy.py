"""A sequence model as a policy: an item is a symbol, and one pass scores the whole catalogue."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.contexts import Context, History, Ids
from palate.errors import CheckpointError, ConfigError, DataWarning
from palate.files import write_json
from palate.item_vectors import ItemVectors
from palate.item_vectors.vector_files import source_ids
from palate.loading import DAMAGE, first_line, loaded, named
from palate.policies.policy import (
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
from palate.policies.sequence.model import SequenceModel
from palate.policies.sequence.new_catalogue import on_catalogue, refuse_catalogue
from palate.policies.sequence.new_model import new_model
from palate.policies.sequence.places import history_tensors, moments_of, places
from palate.policies.sequence.sparse_experts import load_counts
from palate.policies.settings import SETTINGS, read_settings

WINDOWS_TOGETHER = 64
"""Histories read at once where nobody says how many."""


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
        self._reads_times: bool = model.config.reads_times
        self._reads_vectors: bool = model.config.streams != ["id"]
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
        *,
        vectors: Mapping[str, ItemVectors] | None = None,
        popularity: Ids | None = None,
        seed: int = 0,
        **shape: Any,
    ) -> "SequencePolicy":
        """A policy with random weights: SASRec, unless its shape says more.

        Args:
            items: the catalogue.
            max_history: most recent items the model reads.
            vectors: stream → given vectors of the items, for the streams "text" and "image".
            popularity: (items,) how often each was consumed, for `sample_by="popularity"`.
            seed: names the weights and the draws.
            shape: other fields of `SequenceConfig`, such as hidden=64.

        Raises:
            ConfigError: the shape is not one, or asks for vectors or popularity that are not given.
            DataError: what is given does not fit the catalogue.
        """
        return cls(new_model(items, max_history, vectors or {}, popularity, seed, shape), items)

    @classmethod
    def load(cls, folder: Path) -> "SequencePolicy":
        """A policy from a folder that `save` wrote.

        Raises:
            CheckpointError: the folder holds no whole sequence policy.
        """
        read_settings(folder, cls.kind)
        try:
            items = pq.read_table(folder / "items.parquet")
            found = loaded(SequenceModel.from_pretrained, folder)
        except DAMAGE as error:
            raise CheckpointError(
                f"{folder} holds no whole policy ({first_line(error)}). Expected palate.json, "
                "items.parquet, config.json and model.safetensors; train or copy it again."
            ) from error
        if found.fault is not None:
            raise CheckpointError(
                f"{folder} holds no whole policy: its files {found.fault}, which would be filled "
                "at random. Give the folder of a whole one, or train it again."
            )
        if found.extra:
            warnings.warn(
                f"{folder}: its model has no place for {len(found.extra):,} of the tensors in its "
                f"files ({named(found.extra)}); they are left out.",
                DataWarning,
                stacklevel=2,
            )
        return cls(found.model, items)

    def save(self, folder: Path) -> None:
        """Write weights and items to a folder."""
        model: Any = self.model
        model.save_pretrained(folder)
        pq.write_table(self.items, folder / "items.parquet")
        write_json({"kind": self.kind}, folder / SETTINGS)

    def start_stage(self, stage: Literal["sft", "align"]) -> None:
        """Nothing: all weights train in every stage."""

    def knows(self, items: pa.Table) -> bool:
        """Whether `items` is the catalogue the policy was trained on."""
        own = self.items
        return own is not None and source_ids(own).to_pylist() == source_ids(items).to_pylist()

    def check_catalogue(self, items: pa.Table) -> None:
        """Raise a CheckpointError unless the policy can rank `items`: those it was trained on, or
        any where it reads vectors of their texts or images."""
        own = self.items
        if own is not None and not self.knows(items) and not self._reads_vectors:
            refuse_catalogue(own, items)

    def on_catalogue(
        self, items: pa.Table, vectors: Mapping[str, ItemVectors] | None = None
    ) -> "SequencePolicy":
        """The same weights over other items, which are ranked by their vectors.

        Args:
            items: the other catalogue.
            vectors: stream → its vectors, made as those of training were.

        Raises:
            CheckpointError: the policy knows items by their ids alone.
            ConfigError: vectors of a stream are not given, or mean nothing in another catalogue.
            DataError: vectors do not fit the catalogue or the model.
        """
        self.check_catalogue(items)
        model: Any = self.model
        own = items if self.items is None else self.items
        moved: Any = on_catalogue(model, own, items, vectors or {})
        return SequencePolicy(moved.to(self.device), items)

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
        learnt = history._replace(first_target=max(history.first_target, 1))
        return windows(learnt, self.max_history + 1, self.max_history // 2 + 1)

    def collate(self, contexts: Sequence[Context], item_ids: Ids) -> Batch:
        """See `Policy.collate`; moments of one history become places in one row."""
        return {**self._places(contexts), "item_ids": torch.from_numpy(np.asarray(item_ids))}

    def log_probs(self, batch: Batch, model: nn.Module | None = None) -> Scored:
        """See `Policy.log_probs`."""
        return Scored(self._run(batch, model, item_ids=batch["item_ids"]))

    def collate_histories(self, histories: Sequence[History]) -> Batch:
        """See `Policy.collate_histories`."""
        firsts = [max(history.first_target, 1) for history in histories]
        columns = [
            np.arange(f - 1, len(h.items) - 1) for f, h in zip(firsts, histories, strict=True)
        ]
        rows = np.repeat(np.arange(len(histories)), [len(column) for column in columns])
        targets = np.concatenate([h.items[f:] for f, h in zip(firsts, histories, strict=True)])
        return {
            **self._histories([h.items[:-1] for h in histories], [h.times for h in histories]),
            "rows": torch.from_numpy(rows),
            "columns": torch.from_numpy(np.concatenate(columns)),
            "target_ids": torch.from_numpy(targets),
            "targets": len(targets),
        }

    def history_losses(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        """See `Policy.history_losses`: cross-entropy over the catalogue; in training over a sample
        of it where there is one, and with each auxiliary loss of the batch added to every target's.
        """
        return self._run(batch, model, target_ids=batch["target_ids"])

    def score(self, contexts: Sequence[Context], item_ids: Ids) -> Scored:
        """See `Policy.score`."""
        item_ids = np.asarray(item_ids)
        check_items(item_ids, self.n_items)
        with inference(self.model):
            return self.log_probs(on_device(self.collate(contexts, item_ids), self.device))

    def catalogue_log_probs(self, contexts: Sequence[Context], pool: Ids | None = None) -> Tensor:
        """See `Policy.catalogue_log_probs`."""
        with inference(self.model):
            logits = self._run(on_device(self._places(contexts), self.device))
            scores = logits.log_softmax(dim=1)
        if pool is None:
            return scores
        return scores[:, torch.from_numpy(np.asarray(pool)).to(self.device)]

    def rank(self, contexts: Sequence[Context], top: int = 10) -> Ranking:
        """See `Policy.rank`."""
        return top_items(self.catalogue_log_probs(contexts), contexts, top)

    def expert_load(self, histories: Sequence[History]) -> NDArray[np.float64]:
        """(streams, layers, experts) share of the items of some histories that each expert of a
        sparse feed-forward layer reads; the shares of a layer add up to `experts_per_item`.

        Raises:
            ConfigError: the model has no such experts.
        """
        model: Any = self.model
        config = model.config
        if not config.experts:
            raise ConfigError(
                "this sequence policy has plain feed-forward layers and no load of experts to "
                "show. Train one with policy.sequence.experts=8, say."
            )
        counts = np.zeros((len(config.streams), config.layers, config.experts))
        cut = [window for history in histories for window in self.history_windows(history)]
        for start in range(0, len(cut), WINDOWS_TOGETHER):
            batch = self.collate_histories(cut[start : start + WINDOWS_TOGETHER])
            with inference(model):
                routed = model.read(moments_of(on_device(batch, self.device))).routed
            found = [load_counts(one, config.experts_per_item).cpu().numpy() for one in routed]
            counts += np.stack(found).reshape(counts.shape)
        return counts * config.experts_per_item / counts.sum(axis=2, keepdims=True)

    def _run(self, batch: Batch, model: nn.Module | None = None, **asked: Tensor) -> Tensor:
        run = model or self.model
        return run(**moments_of(batch)._asdict(), **asked).float()

    def _histories(self, histories: Sequence[Ids], times: Sequence[Ids | None]) -> Batch:
        return history_tensors(histories, times if self._reads_times else None)

    def _places(self, contexts: Sequence[Context]) -> Batch:
        return places(contexts, self.max_history, self._reads_times)
