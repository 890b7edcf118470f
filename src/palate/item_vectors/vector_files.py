# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Vectors that people bring: .npz and .parquet with ids, .npy in the order of the item table."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate.data.catalogue import plainer
from palate.data.reading.values import as_ids, composed, in_one_type
from palate.errors import DataError, did_you_mean
from palate.item_vectors.reduction import Found


def source_ids(items: pa.Table) -> pa.ChunkedArray:
    """The items' ids in their source, as text: 7 is "7" whether it was a number or not."""
    return pc.cast(items["source_id"], pa.string())


def read_vectors(path: Path, ids: str, vectors: str, items: pa.Table, keys: str) -> Found:
    """The vectors, or the pixels, of a catalogue's items from a file.

    Args:
        path: .npz or .parquet with ids and vectors; .npy with one row per item in their order.
        ids: array or column with the source's item ids.
        vectors: array or column with the vectors: (n, d), in arrays also (n, …).
        items: the catalogue.
        keys: the section of the configuration, for errors.

    Returns:
        (m,) rows of the items that have one; (m, …) numbers as the file has them.

    Raises:
        DataError: the file is damaged, lacks an array or column, names an item twice or none of
            the catalogue, or a vector is not finite or of another width than the rest.
    """
    kind = path.suffix.lower()
    if kind == ".npy":
        numbers = _load(path)
        if numbers.ndim == 0 or len(numbers) != items.num_rows:
            raise DataError(
                f"{path} has shape {numbers.shape}, and there are {items.num_rows:,} items. "
                "Expected one row per item of the run's data/items.parquet; bring ids along in a "
                ".npz or .parquet file if yours are in another order."
            )
        rows = np.arange(items.num_rows)
        _check_numbers(path, "the array", numbers)
    elif kind == ".npz":
        rows, numbers = _from_arrays(path, ids, vectors, items, keys)
    elif kind == ".parquet":
        rows, numbers = _from_parquet(path, ids, vectors, items, keys)
    else:
        raise DataError(f"{path} has an unknown ending. Expected .npz, .parquet or .npy.")
    _check_finite(path, rows, numbers, items)
    return rows, numbers


def _from_arrays(path: Path, ids: str, vectors: str, items: pa.Table, keys: str) -> Found:
    archive = _load(path)
    try:
        names = archive.files
        for key, name in (("ids", ids), ("vectors", vectors)):
            _require(path, "array", name, names, f"{keys}.{key}")
        given, numbers = (_member(path, archive, name) for name in (ids, vectors))
    finally:
        archive.close()
    _check_numbers(path, f"array '{vectors}'", numbers)
    if given.shape != (len(numbers),):
        raise DataError(
            f"{path}: array '{ids}' has shape {given.shape} and '{vectors}' {numbers.shape}. "
            "Expected one id for each vector."
        )
    if given.dtype.kind == "S":
        try:
            given = np.char.decode(given, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: array '{ids}' holds bytes that are not UTF-8.") from error
    if given.dtype.kind not in "iufU":
        raise DataError(
            f"{path}: array '{ids}' is of type {given.dtype}. Expected whole numbers or text."
        )
    rows, places = _matched(path, ids, pa.chunked_array([pa.array(given)]), items, keys)
    return rows, numbers[places]


def _from_parquet(path: Path, ids: str, vectors: str, items: pa.Table, keys: str) -> Found:
    try:
        names = pq.read_schema(path).names
        for key, name in (("ids", ids), ("vectors", vectors)):
            _require(path, "column", name, names, f"{keys}.{key}")
        table = pq.read_table(path, columns=[ids, vectors])
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, "Parquet", error) from error
    rows, places = _matched(path, ids, table[ids], items, keys)
    lists = table[vectors]
    lists = pc.cast(lists, plainer(lists.type)).take(places).combine_chunks()
    kind = lists.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list or pa.types.is_fixed_size_list(kind)) or not _is_number(kind.value_type):
        raise DataError(
            f"{path}: column '{vectors}' is of type {kind}. Expected a list of numbers per item."
        )
    full = pc.is_valid(lists).to_numpy(zero_copy_only=False)
    rows, lists = rows[full], lists.filter(pa.array(full))
    widths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    differing = np.flatnonzero(widths != widths[:1])
    if len(differing):
        one, other = (
            f"item {source_ids(items)[rows[i]]} has {widths[i]}" for i in (0, differing[0])
        )
        raise DataError(
            f"{path}: the lists of column '{vectors}' have different lengths: {one} numbers, "
            f"{other}. Expected one length; fix or delete the others."
        )
    width = int(widths[0]) if len(widths) else 0
    flat = pc.cast(pc.list_flatten(lists), pa.float32(), safe=False)
    return rows, flat.to_numpy(zero_copy_only=False).reshape(len(rows), width)


def _matched(
    path: Path, name: str, given: pa.ChunkedArray, items: pa.Table, keys: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(m,) rows of the items whose id is given, and (m,) its place among the ids given."""
    try:
        read, bad = as_ids(given)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{path}: '{name}' is of type {given.type}. Expected whole numbers or text."
        ) from error
    if len(read) == 0:
        raise DataError(f"{path} is empty: it holds no ids in '{name}'. Expected one per vector.")
    if pc.any(bad).as_py():
        row = pc.index(bad, True).as_py()
        raise DataError(f"{path}: '{name}' has no id in row {row + 1}. Fix or delete it.")
    read, wanted = (pc.cast(ids, pa.string()) for ids in in_one_type(read, items["source_id"]))
    read, wanted = read.combine_chunks(), composed(wanted)
    if len(pc.unique(read)) < len(read):
        counts = pc.value_counts(read)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0]
        raise DataError(f"{path}: '{name}' has item {twice} twice. Expected one vector per item.")
    places = pc.index_in(wanted, value_set=read)
    rows = np.flatnonzero(pc.is_valid(places).to_numpy())
    if len(rows) == 0:
        examples = [", ".join(column.slice(0, 3).to_pylist()) for column in (read, wanted)]
        raise DataError(
            f"{path}: none of the {len(read):,} ids in '{name}' ({examples[0]}, …) is that of an "
            f"item ({examples[1]}, …). Expected ids as in the source; if another array or column "
            f"has them, name it in {keys}.ids."
        )
    return rows, pc.drop_null(places).to_numpy().astype(np.int64)


def _load(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray) != (path.suffix.lower() == ".npy"):
            raise ValueError("its content is that of another ending")
        return loaded
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, "NumPy", error) from error


def _member(path: Path, archive: Any, name: str) -> np.ndarray:
    try:
        return archive[name]
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _damaged(path, "NumPy", error) from error


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()).rstrip(".")[:120]
    return DataError(f"{path} is not a whole {kind} file of plain numbers ({reason}).")


def _require(path: Path, what: str, name: str, names: list[str], key: str) -> None:
    if name not in names:
        hint = did_you_mean(name, names)
        raise DataError(f"{path} has no {what} '{name}'.{hint} Name it in {key}.")


def _check_numbers(path: Path, what: str, numbers: np.ndarray) -> None:
    if numbers.dtype.kind not in "iufb" or numbers.ndim < 2 or 0 in numbers.shape:
        raise DataError(
            f"{path}: {what} has type {numbers.dtype} and shape {numbers.shape}. Expected numbers, "
            "a row for each item."
        )


def _check_finite(
    path: Path, rows: NDArray[np.int64], numbers: NDArray[np.generic], items: pa.Table
) -> None:
    if numbers.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(numbers.astype(np.float32))
    bad = np.flatnonzero(~finite.all(axis=tuple(range(1, numbers.ndim))))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad):,} vectors have numbers that are empty, NaN or infinite in "
            f"float32, the first of them that of item {source_ids(items)[rows[bad[0]]]}. Fix or "
            "delete them; an item without a vector is no error."
        )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)
