# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The item table as people bring it: CSV, TSV or Parquet, ids of either kind."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from palate.data.reading import FileContent, header_of, line_of_row, read_inferred
from palate.data.reading.values import as_ids
from palate.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t"}  # the last is RecBole's
FORMATS = ".csv, .tsv, .csv.gz, .tsv.gz or .parquet"


def format_of(name: str) -> str:
    """ ".csv", ".tsv" or ".parquet", told from a file's name."""
    stem = name.lower().removesuffix(".gz")
    for suffix in (*DELIMITERS, ".parquet"):
        if stem.endswith(suffix):
            return suffix
    raise DataError(f"{name} has an unknown ending. Expected {FORMATS}; convert or rename it.")


def read_parquet(file: FileContent) -> pa.Table:
    """A Parquet file as a table; DataError if it is damaged."""
    try:
        table = pq.read_table(pa.BufferReader(file.content))
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{file.name} is not a complete Parquet file ({reason[:120]}). Write it again."
        ) from error
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"{file.name}: two columns have one name. Expected each name once.")
    return table


def read_items(
    file: FileContent, names: dict[str, str], hint: str = "", numbered: bool = False
) -> pa.Table:
    """An item table with item_id, title and whatever further columns the file has.

    Args:
        file: .csv, .tsv or .parquet, possibly gzipped.
        names: our name of a column → its name in the file; the rest keep their names.
        hint: how to name a column that is missing, for errors.
        numbered: a file without item_id numbers its rows from 0.

    Raises:
        DataError: the id or title column is missing, an id is empty, or the file is damaged.
    """
    kind = format_of(file.name)
    whole = read_parquet(file) if kind == ".parquet" else None
    delimiter = DELIMITERS.get(kind, ",")
    found = (
        whole.column_names if whole is not None else header_of(file.content, file.name, delimiter)
    )
    theirs = {"item_id": "item_id", "title": "title", **names}
    if numbered and theirs["item_id"] not in found:
        del theirs["item_id"]
    for name in theirs.values():
        if name not in found:
            raise DataError(
                f"{file.name}: column '{name}' is missing; found {', '.join(found)}. Expected "
                f"{', '.join(theirs.values())}.{hint}"
            )
    texts = [theirs[ours] for ours in ("item_id", "title") if ours in theirs]
    table = whole or read_inferred(file.content, file.name, texts, delimiter)
    for name in texts:
        if pa.types.is_nested(table[name].type) or pa.types.is_binary(table[name].type):
            raise DataError(
                f"{file.name}: column '{name}' is of type {table[name].type}. Expected text or "
                "numbers."
            )
    if "item_id" in theirs:
        ids, bad = as_ids(table[theirs["item_id"]])
        if pc.any(bad).as_py():
            row = pc.index(bad, True).as_py()
            place = f"row {row + 1}"
            if whole is None:
                place = f"line {line_of_row(file.content, row, delimiter)}"
            raise DataError(f"{file.name} {place}: item_id is empty. Mend or delete the line.")
    else:
        ids = pa.array(range(table.num_rows), pa.int64())
    columns = {"item_id": ids, "title": titles_of(table[theirs["title"]])}
    columns |= {ours: table[name] for ours, name in names.items() if ours not in columns}
    taken = {*columns, *theirs.values(), ""}  # pandas writes its index without a name
    return pa.table(columns | {name: table[name] for name in found if name not in taken})


def titles_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Titles as text without blanks around them; an empty one stays empty."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.utf8_trim_whitespace(pc.fill_null(pc.cast(column, pa.string()), ""))
