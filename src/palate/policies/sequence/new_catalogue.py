"""A trained sequence model over a catalogue that it was not trained on."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NoReturn

import pyarrow as pa
import torch
from torch import Tensor

from palate.errors import CheckpointError, ConfigError
from palate.item_vectors import ItemVectors
from palate.item_vectors.vector_files import source_ids
from palate.policies.sequence.model import SequenceModel
from palate.policies.sequence.new_model import set_vectors

UNKNOWN_ITEM = -1


def on_catalogue(
    model: SequenceModel, own: pa.Table, items: pa.Table, vectors: Mapping[str, ItemVectors]
) -> SequenceModel:
    """The same weights over other items.

    Items that the model knows keep their learnt id vectors. A new one gets their mean, so that it
    is ranked by its given vectors alone, as an average item is by its id. A sampled softmax draws
    from the other catalogue uniformly.

    Args:
        model: trained, with a stream of texts or images.
        own: the catalogue it was trained on.
        items: the other one.
        vectors: stream → given vectors of the other catalogue.

    Raises:
        ConfigError: vectors of a stream are not given, or are on axes that were fitted to the other
            catalogue alone.
        DataError: vectors are of another number of items, or of another width than the model's.
    """
    config: Any = deepcopy(model.config)
    given = [name for name in config.streams if name != "id"]
    if missing := [name for name in given if name not in vectors]:
        raise ConfigError(
            f"the saved sequence policy reads {missing[0]} vectors, which are not given for this "
            f"catalogue. Set policy.vectors.{missing[0]} as it was in training."
        )
    if own_axes := [name for name in given if vectors[name].own_axes]:
        raise ConfigError(
            f"the {own_axes[0]} vectors are TF-IDF or principal components, fitted to this "
            "catalogue alone, and mean nothing to a policy trained on another. Train it with "
            f"policy.vectors.{own_axes[0]} from an encoder or a file, and without a smaller size."
        )
    config.n_items = items.num_rows
    with torch.random.fork_rng(devices=[]):
        other = SequenceModel(config)
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith(("vectors.given", "vectors.present"))
    }
    chosen = torch.tensor(_rows(own, items))
    for name, of_new in _of_new_items(state).items():
        state[name] = torch.cat([state[name], of_new[None]])[chosen]
    if "proposals.cumulative" in state:
        state["proposals.cumulative"] = torch.arange(1, items.num_rows + 1)
    other.load_state_dict(state, strict=False)
    for name in given:
        set_vectors(other, name, vectors[name])
    return other.train(model.training)


def refuse_catalogue(own: pa.Table, items: pa.Table) -> NoReturn:
    """Say that a model that knows items by their ids alone cannot rank other ones.

    Raises:
        CheckpointError: always.
    """
    rows = _rows(own, items)
    named = ", in another order"
    if UNKNOWN_ITEM in rows:
        named = f", such as item {items['source_id'][rows.index(UNKNOWN_ITEM)]}"
    raise CheckpointError(
        f"the saved sequence policy knows a catalogue of {own.num_rows:,} items, but the data has "
        f"{items.num_rows:,}{named}. It knows items by their ids alone: train it anew on this data."
    )


def _rows(own: pa.Table, items: pa.Table) -> list[int]:
    """For each item the row it has in the model's own catalogue, −1 for a new one."""
    row_of = {source_id: row for row, source_id in enumerate(source_ids(own).to_pylist())}
    return [row_of.get(source_id, UNKNOWN_ITEM) for source_id in source_ids(items).to_pylist()]


def _of_new_items(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is kept for each item, and what a new one gets."""
    found = {}
    if (ids := state.get("streams.id.vectors.weight")) is not None:
        found["streams.id.vectors.weight"] = ids.mean(dim=0)
    if (categories := state.get("categories")) is not None:
        found["categories"] = torch.full_like(categories[0], -1)
    return found
