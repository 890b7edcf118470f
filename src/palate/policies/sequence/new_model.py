"""A new sequence model for a catalogue, with what it is given: vectors, categories, popularity."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import ValidationError

from palate.config import SequenceShape
from palate.data.categories import COLUMNS
from palate.data.categories import item_categories as named_categories
from palate.data.contexts import Ids
from palate.errors import ConfigError, DataError, did_you_mean
from palate.item_vectors import ItemVectors
from palate.policies.sequence.model import SequenceConfig, SequenceModel
from palate.policies.sequence.sampled_softmax import Proposals
from palate.policies.sequence.streams import STREAMS, ProjectedVectors

OWN = ("n_items", "max_history", "vector_sizes", "n_categories", "most_categories", "seed")
"""Fields of a configuration that no one chooses as shape: catalogue and vectors give them."""


def new_model(
    items: pa.Table,
    max_history: int,
    vectors: Mapping[str, ItemVectors],
    popularity: Ids | None,
    seed: int,
    shape: dict[str, Any],
) -> SequenceModel:
    """A model with random weights.

    Args:
        items: the catalogue.
        max_history: most recent items the model reads.
        vectors: stream → given vectors; those of streams that the shape lacks are not used.
        popularity: (items,) how often each was consumed, for `sample_by="popularity"`.
        seed: names the weights and the draws.
        shape: other fields of `SequenceConfig`.

    Raises:
        ConfigError: the shape is not one, or asks for vectors or popularity that are not given.
        DataError: what is given does not fit the catalogue.
    """
    _check(shape, vectors, popularity)
    categories = np.empty((items.num_rows, 0), np.int64)
    if shape.get("category_weight"):
        categories = item_categories(items)
    given = {name: vectors[name] for name in shape.get("streams", ()) if name != "id"}
    config = SequenceConfig(
        n_items=items.num_rows,
        max_history=max_history,
        vector_sizes={name: one.vectors.shape[1] for name, one in given.items()},
        n_categories=int(categories.max(initial=-1)) + 1,
        most_categories=categories.shape[1],
        seed=seed,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequenceModel(config)
    for name, one in given.items():
        set_vectors(model, name, one)
    if config.category_weight:
        model.categories.copy_(torch.from_numpy(categories))
    if config.sampled_softmax and config.sample_by == "popularity" and popularity is not None:
        if len(popularity) != config.n_items:
            raise DataError(
                f"popularity: found {len(popularity):,} counts, expected {config.n_items:,}, one "
                "for each item of the catalogue."
            )
        model.proposals = Proposals(config.n_items, config.sampled_softmax, seed, popularity)
    return model


def set_vectors(model: SequenceModel, name: str, given: ItemVectors) -> None:
    """Put a catalogue's given vectors into a stream of a model.

    Raises:
        DataError: they are of another number of items or another width.
    """
    stream: Any = model.streams[name]
    own: ProjectedVectors = stream.vectors
    if given.vectors.shape != own.given.shape:
        rows, width = own.given.shape
        raise DataError(
            f"{name} vectors: found {given.vectors.shape[0]:,} items × {given.vectors.shape[1]}, "
            f"expected {rows:,} × {width}. Make them anew for this catalogue and model."
        )
    own.given.copy_(torch.from_numpy(given.vectors))
    own.present.copy_(torch.from_numpy(given.present))


def item_categories(items: pa.Table) -> Ids:
    """(items, most) numbers of each item's categories, in the order of their names; −1 for none.

    Raises:
        DataError: the item table names no categories.
    """
    column, of_items = named_categories(items)
    if column is None:
        raise DataError(
            f"items: there is no column '{COLUMNS[0]}' with categories, which "
            "policy.sequence.category_weight needs. Add one, separated by |, or set it to 0."
        )
    known = sorted({name for names in of_items for name in names})
    number = {name: place for place, name in enumerate(known)}
    found = np.full((len(of_items), max(map(len, of_items))), -1)
    for row, names in enumerate(of_items):
        found[row, : len(names)] = [number[name] for name in names]
    return found


def _check(
    shape: dict[str, Any], vectors: Mapping[str, ItemVectors], popularity: Ids | None
) -> None:
    known = {field.name for field in fields(SequenceConfig)} & set(SequenceConfig.__annotations__)
    known -= set(OWN)
    for name in shape:
        if name not in known:
            raise ConfigError(f"sequence shape: '{name}' is unknown.{did_you_mean(name, known)}")
    for name in shape.get("streams", ()):
        if name not in STREAMS:
            raise ConfigError(f"sequence stream '{name}' is unknown.{did_you_mean(name, STREAMS)}")
    try:
        SequenceShape.model_validate(shape)
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{part}: " for part in problem["loc"])
        found = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"sequence shape: {where}{found[0].lower()}{found[1:]}.") from error
    for name in shape.get("streams", ()):
        if name != "id" and name not in vectors:
            raise ConfigError(
                f"policy.sequence.streams: '{name}' needs {name} vectors of the items. Set "
                f"policy.vectors.{name}, or leave the stream out."
            )
    wants_counts = shape.get("sampled_softmax") and shape.get("sample_by") == "popularity"
    if wants_counts and popularity is None:
        raise ConfigError(
            "policy.sequence.sample_by: 'popularity' needs how often each item was consumed. Give "
            "popularity to SequencePolicy.create, or use sample_by=uniform."
        )
