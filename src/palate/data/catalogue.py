# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The items that are kept, with all their columns: of any name and of any type Parquet can hold."""

import io
import warnings

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from palate.errors import DataWarning

OURS = ("item_id", "source_id", "title")
"""Columns of `items.parquet` that no column of the user's may stand for."""


def catalogue(codes: pa.Table, items: pa.Table) -> pa.Table:
    """The kept items in order of their codes; an empty title becomes "item" and the source id.

    No engine sees the items' columns but the ids, so that their names and types do not matter.

    Args:
        codes: item_id and item_code, 0, 1, 2, …, of the kept items.
        items: an item table with one row per item.

    Returns:
        item_id (the code), source_id (the id in the user's files), title, and the further columns.
        Columns that Parquet cannot hold, or that are named like one of ours, are left out with a
        DataWarning.
    """
    codes = codes.sort_by("item_code")
    rows = pc.index_in(codes["item_id"], value_set=items["item_id"].combine_chunks())
    ids = codes["item_id"]
    titles = [
        title if title.strip() else f"item {source_id}"
        for title, source_id in zip(
            pc.cast(items["title"], pa.string()).take(rows).to_pylist(),
            ids.to_pylist(),
            strict=True,
        )
    ]
    kept: dict[str, pa.ChunkedArray] = {}
    lost: dict[str, str] = {}
    for name, column in zip(items.column_names, items.columns, strict=True):
        if name in ("item_id", "title"):
            continue
        if name in OURS:
            lost[name] = "the name is taken"
        elif (held := in_parquet(column, rows)) is None:
            lost[name] = str(column.type)
        else:
            kept[name] = held
    if lost:
        said = ", ".join(f"'{name}' ({reason})" for name, reason in lost.items())
        warnings.warn(
            DataWarning(
                f"items: left out {said}: Parquet cannot hold the type, or the name is one of "
                f"{', '.join(OURS)}. Rename or convert what is needed."
            ),
            stacklevel=3,
        )
    dense = pa.array(range(len(ids)), pa.int64())
    return pa.table({"item_id": dense, "source_id": ids, "title": pa.array(titles), **kept})


def in_parquet(column: pa.ChunkedArray, rows: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Some rows of a column in a type that Parquet can hold, or None if there is none."""
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    for kind in dict.fromkeys((column.type, plainer(column.type))):
        try:
            taken = pc.cast(column, kind).take(rows)
            _written_and_read(pa.table({"column": taken.slice(0, 2)}))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            continue
        return taken
    return None


def plainer(kind: pa.DataType) -> pa.DataType:
    """A type for the same values without views, categories, runs and extensions, at any depth."""
    is_a = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plainer(kind.storage_type)
    if is_a.is_dictionary(kind) or is_a.is_run_end_encoded(kind):
        return plainer(kind.value_type)
    if is_a.is_string_view(kind):
        return pa.string()
    if is_a.is_binary_view(kind):
        return pa.binary()
    if is_a.is_map(kind):
        return pa.map_(plainer(kind.key_type), plainer(kind.item_type))
    if is_a.is_fixed_size_list(kind):
        return pa.list_(plainer(kind.value_type), kind.list_size)
    if is_a.is_list(kind) or is_a.is_list_view(kind):
        return pa.list_(plainer(kind.value_type))
    if is_a.is_large_list(kind) or is_a.is_large_list_view(kind):
        return pa.large_list(plainer(kind.value_type))
    if is_a.is_struct(kind):
        return pa.struct([(field.name, plainer(field.type)) for field in kind])
    return kind


def _written_and_read(table: pa.Table) -> None:
    file = io.BytesIO()
    pq.write_table(table, file)
    pq.read_table(pa.BufferReader(file.getvalue()))
