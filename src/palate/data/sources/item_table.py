# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The item table as people bring it: CSV, TSV or Parquet, ids of either kind."""

import warnings

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from palate.data.reading import Delimited, FileContent
from palate.data.reading.members import PARQUET
from palate.data.reading.quotation import begins_with_mark
from palate.data.reading.values import as_ids, texts_in
from palate.errors import DataError, DataWarning

DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t"}  # the last is RecBole's
FORMATS = ".csv, .tsv, .csv.gz, .tsv.gz or .parquet"


def format_of(file: FileContent) -> str:
    """ ".csv", ".tsv", ".inter" or ".parquet", told from how a file begins and from its name."""
    if file.content.startswith(PARQUET):
        return ".parquet"
    stem = file.name.lower().removesuffix(".gz")
    for suffix in (*DELIMITERS, ".parquet"):
        if stem.endswith(suffix):
            return suffix
    raise DataError(f"{file.name} has an unknown ending. Expected {FORMATS}; convert or rename it.")


def delimited(file: FileContent) -> Delimited | None:
    """A file as delimited text, told from its name; None for Parquet."""
    kind = format_of(file)
    return None if kind == ".parquet" else Delimited(file.content, file.name, DELIMITERS[kind])


def marks_said(*files: FileContent) -> dict[str, dict[str, str]]:
    """For the manifest: what quotation marks are in tab-separated files where a field begins so."""
    texts = [delimited(file) for file in files]
    said = {
        text.name: "quoting" if text.quoted else "text"
        for text in texts
        if text and text.delimiter == "\t" and begins_with_mark(text.content, text.delimiter)
    }
    return {"quotation_marks": said} if said else {}


def read_parquet(file: FileContent, may_be_empty: bool = False) -> pa.Table:
    """A Parquet file as a table; DataError if it is damaged, or has no rows."""
    try:
        table = _with_far_times(pq.read_table(pa.BufferReader(file.content)), file)
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{file.name} is not a complete Parquet file ({reason[:120]}). Write it again."
        ) from error
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"{file.name}: two columns have one name. Expected each name once.")
    if table.num_rows == 0 and not may_be_empty:
        raise DataError(f"{file.name} is empty: it holds no rows. Expected at least one.")
    return table


def _with_far_times(table: pa.Table, file: FileContent) -> pa.Table:
    """The table with times that 64 bits of nanoseconds cannot hold, such as 9999-12-31, in
    microseconds: Arrow reads Parquet's INT96, as Spark writes it, modulo 584 years."""
    schema = pq.ParquetFile(pa.BufferReader(file.content)).schema
    physical = {
        schema.column(place).path: schema.column(place).physical_type
        for place in range(len(schema.names))
    }
    old = [name for name in table.column_names if physical.get(name) == "INT96"]
    if not old:
        return table
    read = pq.read_table(
        pa.BufferReader(file.content), columns=old, coerce_int96_timestamp_unit="us"
    )
    for name in old:
        near = pc.cast(table[name], pa.timestamp("us"), safe=False)
        if pc.all(pc.equal(near, read[name])).as_py() is False:
            table = table.set_column(table.column_names.index(name), name, read[name])
    return table


def read_items(
    file: FileContent,
    names: dict[str, str],
    hint: str = "",
    numbered: bool = False,
    title_names: tuple[str, ...] = ("title",),
) -> pa.Table:
    """An item table with item_id, title and whatever further columns the file has.

    Args:
        file: .csv, .tsv or .parquet, possibly gzipped.
        names: our name of a column → its name in the file; the rest keep their names.
        hint: how to name a column that is missing, for errors.
        numbered: a file without item_id numbers its rows from 0.
        title_names: names that the title may have where `names` has none; the first that is there.

    Raises:
        DataError: the id or title column is missing, an id is empty, or the file is damaged.
    """
    text = delimited(file)
    whole = read_parquet(file) if text is None else pa.table({})
    found = whole.column_names if text is None else text.header
    known_as = next((name for name in title_names if name in found), "title")
    theirs = {"item_id": "item_id", "title": known_as, **names}
    if numbered and theirs["item_id"] not in found:
        del theirs["item_id"]
    for name in theirs.values():
        if name not in found:
            raise DataError(
                f"{file.name}: column '{name}' is missing; found {', '.join(found)}. Expected "
                f"{', '.join(theirs.values())}.{hint}"
            )
    texts = [theirs[ours] for ours in ("item_id", "title") if ours in theirs]
    table = whole if text is None else text.inferred(texts)
    if text is not None and len(found) > 1:
        again = pc.index(text.headers_within(table.select([name for name in found if name])), True)
        if again.as_py() >= 0:
            raise DataError(
                f"{file.name} line {text.line_of_row(again.as_py())}: the names of the columns "
                "stand there again, as where one file follows another. Expected one header, in the "
                "first line; delete the line."
            )
    for name in texts:
        if pa.types.is_nested(table[name].type):
            raise _no_text(file, name, table)
    name = theirs["title"]
    try:
        title = titles_of(table[name])
        name = theirs.get("item_id", name)
        ids, bad = as_ids(table[name]) if "item_id" in theirs else (None, None)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _no_text(file, name, table) from error
    if ids is None:
        ids = pa.array(range(table.num_rows), pa.int64())
    elif pc.any(bad).as_py():
        row = pc.index(bad, True).as_py()
        place = f"row {row + 1}" if text is None else f"line {text.line_of_row(row)}"
        found = table[name][row].as_py()
        fault = "is empty" if found in (None, "") else f"{found!r} stands for no id, or lost digits"
        raise DataError(f"{file.name} {place}: item_id {fault}. Fix or delete the line.")
    read = {"item_id": ids, "title": title}
    read |= {ours: table[name] for ours, name in names.items() if ours not in read}
    taken = {*read, *theirs.values(), ""}
    _warn_of_nameless(table, found, file.name)
    return pa.table(read | {name: table[name] for name in found if name not in taken})


def _no_text(file: FileContent, name: str, table: pa.Table) -> DataError:
    kind = table[name].type
    return DataError(f"{file.name}: column '{name}' is of type {kind}. Expected text or numbers.")


def _warn_of_nameless(table: pa.Table, found: list[str], name: str) -> None:
    """Columns without a name are left out; the index of pandas, 0, 1, 2, …, says nothing anyway."""
    nameless = [table.column(place) for place, column in enumerate(found) if column == ""]
    numbers = pa.array(range(table.num_rows), pa.int64())
    if all(pa.types.is_integer(column.type) and _is(column, numbers) for column in nameless):
        return
    warnings.warn(
        DataWarning(f"{name}: left out {len(nameless)} column(s) that have no name. Name them."),
        stacklevel=3,
    )


def _is(column: pa.ChunkedArray, numbers: pa.Array) -> bool:
    return pc.all(pc.equal(column, numbers), skip_nulls=False).as_py() is True


def titles_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Titles as text without blanks around them; an empty one stays empty."""
    return pc.fill_null(texts_in(column), "")
