"""Text and image vectors of a catalogue, made once and kept in a folder."""

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from palate.config import ImageVectorsConfig, TextVectorsConfig, VectorsConfig
from palate.errors import ConfigError, DataError, DataWarning
from palate.files import file_sha256, replacing
from palate.item_vectors.encoders import encode_images, encode_texts, encoder_digest
from palate.item_vectors.image_files import image_files
from palate.item_vectors.reduction import Found, settled
from palate.item_vectors.texts import (
    item_texts,
    text_columns,
    tfidf_vectors,
    wordless_columns,
)
from palate.item_vectors.vector_files import read_vectors, source_ids

VERSION = 1
"""Counted up when the same inputs give other vectors, so that kept ones are not taken for them."""


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of a catalogue that are given, not learnt.

    Attributes:
        name: "text" or "image".
        vectors: (items, d) float32, each of length 1; zeros where there is none.
        present: (items,) whether an item has a vector.
        digest: hexadecimal SHA-256 of what made them: texts or files, encoder and options.
        own_axes: whether the axes were fitted to this catalogue (TF-IDF, principal components), so
            that vectors of another one lie on others.
    """

    name: str
    vectors: NDArray[np.float32]
    present: NDArray[np.bool_]
    digest: str
    own_axes: bool = False


@dataclass(frozen=True)
class Recipe:
    """How the vectors of one name are made, and what they depend on.

    Attributes:
        origin: what they are made of, in words.
        parts: all that they depend on, as JSON can say it.
        make: gives (items,) rows that have a vector, and the vectors.
        own_axes: whether what it makes is fitted to the catalogue, even before it is reduced.
    """

    origin: str
    parts: dict[str, Any]
    make: Callable[[], Found]
    own_axes: bool = False


def item_vectors(
    items: pa.Table,
    chosen: VectorsConfig,
    cache: Path,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = print,
) -> dict[str, ItemVectors]:
    """The text and image vectors that a configuration asks for.

    Args:
        items: the catalogue; row i is item i, with its id in the source as `source_id`.
        chosen: what makes them; nothing is made for a name that is not chosen.
        cache: folder where vectors are kept, and taken from where nothing they depend on differs.
        device: where encoders run.
        say: receives one line for each name: how many items have a vector.

    Returns:
        "text" and "image", as chosen → vectors.

    Raises:
        ConfigError: a column is unknown, or options do not go together.
        DataError: a file is missing, damaged or about other items; no item has a vector.
        CheckpointError: an encoder cannot be loaded.
    """
    recipes: dict[str, Recipe] = {}
    if chosen.text is not None:
        recipes["text"] = _text_recipe(items, chosen.text, device)
    if chosen.image is not None:
        recipes["image"] = _image_recipe(items, chosen.image, device)
    return {name: _made(name, items, recipe, cache, say) for name, recipe in recipes.items()}


def _text_recipe(items: pa.Table, chosen: TextVectorsConfig, device: torch.device | str) -> Recipe:
    size = chosen.size
    if chosen.path is not None:
        return _file_recipe(items, "text", Path(chosen.path).expanduser(), chosen)
    columns = text_columns(items, chosen.columns)
    texts = item_texts(items, columns)
    parts = {"texts": _hash(texts), "size": size}
    encoder = chosen.encoder or "tfidf"
    left_out = wordless_columns(items) if chosen.columns is None else []
    origin = f"{encoder} of {', '.join(columns)}"
    if left_out:
        origin += f" (prices and paths left out: {', '.join(left_out)})"
    if encoder == "tfidf":
        parts["tfidf"] = True
        return Recipe(origin, parts, lambda: tfidf_vectors(texts, size), own_axes=True)
    parts["encoder"] = encoder_digest(encoder, "policy.vectors.text.encoder")
    return Recipe(origin, parts, lambda: encode_texts(texts, encoder, device))


def _image_recipe(
    items: pa.Table, chosen: ImageVectorsConfig, device: torch.device | str
) -> Recipe:
    path, encoder = Path(chosen.path).expanduser(), chosen.encoder
    if not path.is_dir():
        if encoder is not None:
            raise ConfigError(
                f"policy.vectors.image: an encoder reads a folder of images, and {path} is none. "
                "Give a folder, or leave encoder out for a file of vectors or pixels."
            )
        return _file_recipe(items, "image", path, chosen)
    if encoder is None:
        raise ConfigError(
            f"policy.vectors.image: {path} is a folder of images, and no encoder is named. Use "
            "--set policy.vectors.image.encoder=NAME with a Hugging Face image model, by name or "
            "folder."
        )
    rows, files = image_files(path, items)
    parts = {
        "encoder": encoder_digest(encoder, "policy.vectors.image.encoder"),
        "images": _hash([file_sha256(file) for file in files]),
        "rows": rows.tolist(),
        "items": items.num_rows,
        "size": chosen.size,
    }
    return Recipe(
        f"{encoder} of {path}", parts, lambda: (rows, encode_images(files, encoder, device))
    )


def _file_recipe(
    items: pa.Table, name: str, path: Path, chosen: TextVectorsConfig | ImageVectorsConfig
) -> Recipe:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Expected a .npz, .parquet or .npy file of {name} vectors; "
            f"fix policy.vectors.{name}.path."
        )
    parts = {
        "file": file_sha256(path),
        "items": _hash(source_ids(items).to_pylist()),
        **chosen.model_dump(include={"ids", "vectors", "size"}),
    }
    keys = f"policy.vectors.{name}"
    return Recipe(
        str(path), parts, lambda: read_vectors(path, chosen.ids, chosen.vectors, items, keys)
    )


def _made(
    name: str, items: pa.Table, recipe: Recipe, cache: Path, say: Callable[[str], None]
) -> ItemVectors:
    """The vectors of a recipe, from the cache where it has them."""
    digest = _hash({"version": VERSION, "name": name, **recipe.parts})
    kept = cache / f"{name}-{digest[:16]}.safetensors"
    found = _read(kept, items.num_rows)
    if found is None:
        rows, given = recipe.make()
        vectors, present = settled(rows, given, items.num_rows, recipe.parts["size"])
        own_axes = recipe.own_axes or prod(given.shape[1:]) != vectors.shape[1]
        if present.any():  # an error is not kept
            whole = {"vectors": vectors, "present": present, "own_axes": np.array([own_axes])}
            with replacing(kept) as temporary:
                save_file(whole, temporary)
    else:
        vectors, present, own_axes = found
    _report(name, vectors, present, recipe.origin, say)
    return ItemVectors(name, vectors, present, digest, own_axes)


def _read(path: Path, n_items: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], bool] | None:
    """What is kept: vectors, present and own_axes of `ItemVectors`.

    None where nothing is, or the file is cut or of another shape.
    """
    if not path.is_file():
        return None
    try:
        kept = load_file(path)
        vectors, present, own_axes = kept["vectors"], kept["present"], bool(kept["own_axes"].any())
    except (SafetensorError, KeyError, OSError):  # made again
        return None
    fits = vectors.ndim == 2 and len(vectors) == n_items and present.shape == (n_items,)
    return (vectors, present, own_axes) if fits else None


def _report(
    name: str,
    vectors: NDArray[np.float32],
    present: NDArray[np.bool_],
    origin: str,
    say: Callable[[str], None],
) -> None:
    count, total = int(present.sum()), len(present)
    if count == 0:
        raise DataError(
            f"policy.vectors.{name}: none of {total:,} items has a vector from {origin}. Give "
            f"other texts or files, or leave policy.vectors.{name} out."
        )
    missing = total - count
    said = f"{name} vectors: {count:,} of {total:,} items, {vectors.shape[1]} wide, from {origin}"
    say(said + (f"; {missing:,} have none" if missing else ""))
    if 2 * missing > total:
        warnings.warn(
            f"policy.vectors.{name}: {missing:,} of {total:,} items have no {name} vector; they "
            f"share one that is learnt. Check {origin} if that is not what you expect.",
            DataWarning,
            stacklevel=4,
        )


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
