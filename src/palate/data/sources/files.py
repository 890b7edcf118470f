# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The user's own log: a file of interactions and, if there is one, a file of items."""

import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from palate.data.reading import (
    FileContent,
    first_ragged_line,
    header_of,
    line_of_row,
    place_of,
    read_as_text,
    read_file,
)
from palate.data.reading.values import Marked, as_ids, as_numbers, as_seconds, in_one_type
from palate.data.sources.item_table import (
    DELIMITERS,
    FORMATS,
    format_of,
    read_items,
    read_parquet,
    titles_of,
)
from palate.data.tables import SKIP, SourceTables
from palate.errors import ConfigError, DataError, DataWarning, did_you_mean

COLUMNS = ("user_id", "item_id", "timestamp", "rating", "event", "position", "title")
EXPECTED = {
    "user_id": "is empty. Expected an id",
    "item_id": "is empty. Expected an id",
    "timestamp": "is no time. Expected Unix seconds or an ISO date such as 2024-03-31T18:00:00Z",
    "rating": "is not a number. Expected a finite number such as 4.5",
    "position": "is not a number. Expected the row's place within its user",
}


def files(
    path: str | Path,
    items: str | None = None,
    columns: dict[str, str] | None = None,
    item_columns: dict[str, str] | None = None,
    on_bad_rows: Literal["error", "drop"] = "error",
) -> SourceTables:
    """Your own log: a CSV, TSV or Parquet file of interactions, and one of items.

    Args:
        path: interactions (.csv, .tsv, .csv.gz, .tsv.gz or .parquet): user_id, item_id and,
            where known, timestamp (Unix seconds or an ISO date), rating, event, position (the
            order within a user) and title. Without timestamp and position the rows' order counts.
        items: file of items: item_id, title and any further columns; without one the titles in
            the interactions count, or the item ids themselves.
        columns: our name → name in the file of interactions, such as {user_id: uid}.
        item_columns: our name → name in the file of items.
        on_bad_rows: "error" stops at the first row that cannot be read; "drop" leaves such rows
            out and counts them.

    Raises:
        DataError: a file or column is missing or damaged, or a value is not readable.
        ConfigError: `columns` names a column that does not exist.
    """
    path, columns = Path(path).expanduser(), columns or {}
    for ours in columns:
        if ours not in COLUMNS:
            raise ConfigError(
                f"data.options.columns: '{ours}' is no column of interactions."
                f"{did_you_mean(ours, COLUMNS)}"
            )
    file = read_file(path, f"a file of interactions ({FORMATS})")
    log = _read_log(file, columns)
    table, bad = _parsed(log)
    table, dropped = _without_bad_rows(log, table, bad, on_bad_rows)
    if "position" in table.column_names:
        order = pc.sort_indices(table, sort_keys=[("position", "ascending")])
        table = table.take(order)
    hashes = {file.name: file.sha256}
    if items is None:
        catalogue = _items_of(table, file.name)
    else:
        items_file = read_file(place_of(items, path.parent), f"a file of items ({FORMATS})")
        hashes[items_file.name] = items_file.sha256
        hint = " Name yours with --set data.options.item_columns.OURS=YOURS."
        catalogue = read_items(items_file, item_columns or {}, hint)
        of_log, of_items = in_one_type(table["item_id"], catalogue["item_id"])
        table = _with_column(table, "item_id", of_log)
        catalogue = _with_column(catalogue, "item_id", of_items)
    if "title" in table.column_names:
        table = table.drop_columns("title")
    options = {"columns": columns, "item_columns": item_columns or {}, "on_bad_rows": on_bad_rows}
    return SourceTables(
        interactions=table,
        items=catalogue,
        origin={
            "source": "files",
            "path": str(path),
            "options": {"items": items, **options},
            "sha256": hashes,
            "rows_dropped": dropped,
        },
    )


@dataclass(frozen=True)
class _Log:
    """The interactions as they stand in the file, under our names.

    `n_ragged` lines of `n_columns` expected were left out because they have more or fewer values;
    `delimiter` is None for Parquet.
    """

    file: FileContent
    table: pa.Table
    theirs: dict[str, str]
    delimiter: str | None
    n_columns: int
    n_ragged: int = 0

    def place(self, row: int) -> str:
        """ "line 7" of delimited text, "row 6" of Parquet."""
        if self.delimiter is None:
            return f"row {row + 1}"
        return f"line {line_of_row(self.file.content, row, self.delimiter)}"


def _read_log(file: FileContent, columns: dict[str, str]) -> _Log:
    kind = format_of(file.name)
    whole = read_parquet(file) if kind == ".parquet" else None
    delimiter = DELIMITERS.get(kind)
    found = (
        whole.column_names
        if whole is not None
        else header_of(file.content, file.name, delimiter or ",")
    )
    theirs = {ours: columns.get(ours, ours) for ours in COLUMNS}
    needed = {"user_id", "item_id", *columns}
    for ours, name in theirs.items():
        if ours in needed and name not in found:
            if len(found) == 1 and delimiter:
                raise DataError(
                    f"{file.name}: the first line has one column, {found[0]!r}. Expected several, "
                    "separated by commas in .csv and by tabs in .tsv."
                )
            near = get_close_matches(name, found, n=1, cutoff=0.5)
            raise DataError(
                f"{file.name}: column '{name}' is missing; found {', '.join(found)}. Expected "
                f"user_id and item_id at least; name yours with --set data.options.columns.{ours}="
                f"{near[0] if near else '…'}."
            )
    theirs = {ours: name for ours, name in theirs.items() if name in found}
    if whole is None:
        names = list(dict.fromkeys(theirs.values()))
        whole, n_ragged = read_as_text(file.content, file.name, names, delimiter or ",")
    else:
        n_ragged = 0
    table = pa.table({ours: whole[name] for ours, name in theirs.items()})
    return _Log(file, table, theirs, delimiter, len(found), n_ragged)


def _parsed(log: _Log) -> tuple[pa.Table, dict[str, pa.ChunkedArray]]:
    """The columns in their types, and for each which rows are bad."""
    readers: dict[str, Any] = {
        "user_id": as_ids,
        "item_id": as_ids,
        "rating": as_numbers,
        "position": as_numbers,
        "timestamp": lambda column: as_seconds(column, log.file.name),
        "event": _texts,
        "title": _texts,
    }
    columns, bad = {}, {}
    for name in log.table.column_names:
        column = log.table[name]
        if pa.types.is_nested(column.type):
            raise DataError(
                f"{log.file.name}: column '{log.theirs[name]}' is of type {column.type}; expected "
                "one value in each row."
            )
        try:
            columns[name], bad[name] = readers[name](column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{log.file.name}: column '{log.theirs[name]}' of type {column.type} does not read "
                f"as {name}. Expected text or numbers."
            ) from error
    if "event" in columns and "rating" in bad:
        consumed = pc.not_equal(columns["event"], SKIP)
        bad["rating"] = pc.and_(bad["rating"], consumed)
    return pa.table(columns), bad


def _texts(column: pa.ChunkedArray) -> Marked:
    texts = titles_of(column)
    return texts, pc.equal(pc.utf8_length(texts), -1)


def _without_bad_rows(
    log: _Log, table: pa.Table, bad: dict[str, pa.ChunkedArray], on_bad_rows: str
) -> tuple[pa.Table, int]:
    """The rows that can be read, and how many could not."""
    unreadable = reduce(pc.or_, bad.values())
    n_bad = (pc.sum(unreadable).as_py() or 0) + log.n_ragged
    if n_bad == 0:
        return table, 0
    if on_bad_rows == "error":
        rows = "row" if n_bad == 1 else "rows"
        raise DataError(
            f"{log.file.name} {_first_fault(log, bad)}. Fix it or pass "
            f"--set data.options.on_bad_rows=drop ({n_bad} {rows} would be dropped)."
        )
    n_rows = table.num_rows + log.n_ragged
    if n_bad == n_rows:
        raise DataError(
            f"{log.file.name}: none of {n_rows} rows can be read; {_first_fault(log, bad)}."
        )
    warnings.warn(
        DataWarning(f"{log.file.name}: dropped {n_bad} of {n_rows} rows, which cannot be read."),
        stacklevel=3,
    )
    return table.filter(pc.invert(unreadable)), n_bad


def _first_fault(log: _Log, bad: dict[str, pa.ChunkedArray]) -> str:
    if log.n_ragged:
        delimiter = log.delimiter or ","
        line, count = first_ragged_line(log.file.content, log.n_columns, delimiter)
        return f"line {line}: {count} values. Expected {log.n_columns}, as in the first line"
    firsts = {name: pc.index(mask, True).as_py() for name, mask in bad.items()}
    name = min((name for name in firsts if firsts[name] >= 0), key=lambda name: firsts[name])
    value = log.table[name][firsts[name]].as_py()
    value = value.strip() if isinstance(value, str) else value
    value = "" if value is None or value == "" else f" {repr(value)[:60]}"
    explained = EXPECTED[name]
    if not value:
        explained = "is empty. Expected" + explained.partition("Expected")[2]
    return f"{log.place(firsts[name])}: {log.theirs[name]}{value} {explained}"


def _items_of(table: pa.Table, name: str) -> pa.Table:
    """The items that occur, by first appearance, with their first title or their id as title."""
    if "title" not in table.column_names:
        ids = pc.unique(table["item_id"])
        return pa.table({"item_id": ids, "title": pc.cast(ids, pa.string())})
    pairs = table.select(["item_id", "title"]).group_by(["item_id", "title"], use_threads=False)
    named = pairs.aggregate([])
    first: dict[Any, str] = {}
    several: set[Any] = set()
    for item, title in zip(*(named[key].to_pylist() for key in ("item_id", "title")), strict=True):
        if first.get(item) and title:
            several.add(item)
        first[item] = first.get(item) or title
    if several:
        warnings.warn(
            DataWarning(
                f"{name}: {len(several)} of {len(first)} items have several titles, such as "
                f"item {min(several)!r}; the first counts."
            ),
            stacklevel=3,
        )
    kind = table["item_id"].type
    titles = [title or str(item) for item, title in first.items()]
    return pa.table({"item_id": pa.array(list(first), kind), "title": pa.array(titles)})


def _with_column(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
