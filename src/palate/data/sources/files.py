# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The user's own log: a file of interactions and, if there is one, a file of items."""

import shlex
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from palate.data.reading import Delimited, FileContent, place_of, read_file
from palate.data.reading.moments import as_moments
from palate.data.reading.values import Marked, as_ids, as_numbers, as_places, in_one_type, without
from palate.data.sources.item_table import (
    FORMATS,
    delimited,
    marks_said,
    read_items,
    read_parquet,
    titles_of,
)
from palate.data.tables import SKIP, SourceTables
from palate.errors import ConfigError, DataError, DataWarning, did_you_mean

COLUMNS = ("user_id", "item_id", "timestamp", "rating", "weight", "event", "position", "title")
NO_ID = "stands for no id, or has lost digits. Expected an id: text, or a whole number in full"
HEADER_AGAIN = (
    "and the other names of the columns stand there again, as where one file follows another. "
    "Expected one header, in the first line"
)
EXPECTED = {
    "user_id": NO_ID,
    "item_id": NO_ID,
    "rating": "is not a number. Expected a finite number such as 4.5",
    "weight": "is no weight. Expected a finite number of 0 or more such as 3",
    "position": "is not a number. Expected the row's place within its user",
}


def files(
    path: str | Path,
    items: str | None = None,
    columns: dict[str, str | None] | None = None,
    item_columns: dict[str, str] | None = None,
    on_bad_rows: Literal["error", "drop"] = "error",
) -> SourceTables:
    """Your own log: a CSV, TSV or Parquet file of interactions, and one of items.

    Args:
        path: interactions (.csv, .tsv, .csv.gz, .tsv.gz or .parquet): user_id, item_id and,
            where known, timestamp (Unix seconds or an ISO date), rating or weight, event,
            position (the order within a user) and title. Without timestamp and position the rows
            stand in no order unless `data.order` says so.
        items: file of items: item_id, title and any further columns; without one the titles in
            the interactions count, or the item ids themselves.
        columns: our name → name in the file of interactions, such as {user_id: uid}; null for a
            column that is not to be read.
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
    log = _graded_once(_read_log(file, columns), columns)
    table, faults = _parsed(log)
    table, dropped = _without_bad_rows(log, table, faults, on_bad_rows)
    if "position" in table.column_names:
        order = pc.sort_indices(table, sort_keys=[("position", "ascending")])
        table = table.take(order)
    read = [file]
    if items is None:
        catalogue = _items_of(table, file.name)
    else:
        items_file = read_file(place_of(items, path.parent), f"a file of items ({FORMATS})")
        read.append(items_file)
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
            "sha256": {file.name: file.sha256 for file in read},
            **marks_said(*read),
            "rows_dropped": dropped,
        },
    )


@dataclass(frozen=True)
class _Log:
    """The interactions as they stand in the file, under our names.

    `n_ragged` rows were left out because they have more or fewer values than the header; `text` is
    None for Parquet.
    """

    name: str
    table: pa.Table
    theirs: dict[str, str]
    text: Delimited | None
    n_ragged: int = 0

    def place(self, row: int) -> str:
        """ "line 7" of delimited text, "row 6" of Parquet."""
        return f"row {row + 1}" if self.text is None else f"line {self.text.line_of_row(row)}"


@dataclass(frozen=True)
class _Fault:
    """Rows of a column that cannot be read, and what is said of the first."""

    column: str
    rows: pa.ChunkedArray
    said: str


def _read_log(file: FileContent, columns: dict[str, str | None]) -> _Log:
    text = delimited(file)
    whole = read_parquet(file) if text is None else pa.table({})
    found = whole.column_names if text is None else text.header
    named = {ours: columns.get(ours, ours) for ours in COLUMNS}
    theirs = {ours: name for ours, name in named.items() if name is not None}
    for ours in ("user_id", "item_id"):
        if ours not in theirs:
            raise ConfigError(
                f"data.options.columns.{ours}: found null; every log needs this column. Name yours."
            )
    needed = {"user_id", "item_id", *(ours for ours in columns if ours in theirs)}
    for ours, name in theirs.items():
        if ours in needed and name not in found:
            if len(found) == 1 and text:
                raise DataError(
                    f"{file.name}: the first line has one column, {found[0]!r}. Expected several, "
                    "separated by commas in .csv and by tabs in .tsv."
                )
            lower = {one.lower(): one for one in found}
            near = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
            key = f"data.options.columns.{ours}={lower[near[0]] if near else '…'}"
            raise DataError(
                f"{file.name}: column '{name}' is missing; found {', '.join(found)}. Expected "
                f"user_id and item_id at least; name yours with --set {shlex.quote(key)}."
            )
    theirs = {ours: name for ours, name in theirs.items() if name in found}
    if text is not None:
        whole, n_ragged = text.as_text(list(dict.fromkeys(theirs.values())))
    else:
        n_ragged = 0
    table = pa.table({ours: whole[name] for ours, name in theirs.items()})
    return _Log(file.name, table, theirs, text, n_ragged)


def _graded_once(log: _Log, columns: dict[str, str | None]) -> _Log:
    """The log without its weights, or its ratings, where it has both: only one of them grades."""
    if not {"rating", "weight"} <= set(log.theirs):
        return log
    said = [name for name in ("rating", "weight") if name in columns]
    if len(said) == 2:
        raise ConfigError(
            "data.options.columns: 'rating' and 'weight' are both named, and only one can grade. "
            "Set one of them to null."
        )
    read = said[0] if said else "rating"
    other = "weight" if read == "rating" else "rating"
    if not said:
        warnings.warn(
            DataWarning(
                f"{log.name}: the columns 'rating' and 'weight' could both grade; 'rating' does, "
                "and 'weight' is not read. Say so with --set data.options.columns.weight=null, or "
                "choose the other with --set data.options.columns.rating=null."
            ),
            stacklevel=3,
        )
    theirs = {ours: name for ours, name in log.theirs.items() if ours != other}
    return replace(log, table=log.table.drop_columns(other), theirs=theirs)


def _parsed(log: _Log) -> tuple[pa.Table, list[_Fault]]:
    """The columns in their types, and which rows of them are bad."""
    readers: dict[str, Callable[[pa.ChunkedArray], Marked]] = {
        "user_id": as_ids,
        "item_id": as_ids,
        "rating": as_numbers,
        "weight": _weights,
        "position": as_places,
        "event": _texts,
        "title": _texts,
    }
    headers = None
    columns, faults = {}, []
    if log.text is not None:
        theirs = {log.theirs[name]: log.table[name] for name in log.table.column_names}
        headers = pa.chunked_array([log.text.headers_within(pa.table(theirs))])
        faults.append(_Fault("user_id", headers, HEADER_AGAIN))
        headers = headers if pc.any(headers).as_py() else None
    for name in log.table.column_names:
        column = log.table[name] if headers is None else without(log.table[name], headers)
        described = f"{log.name}: column '{log.theirs[name]}'"
        if pa.types.is_nested(column.type):
            raise DataError(
                f"{described} is of type {column.type}; expected one value in each row."
            )
        try:
            if name == "timestamp":
                moments = as_moments(column, described)
                columns[name] = moments.seconds
                if moments.nanoseconds is not None:
                    columns["nanosecond"] = moments.nanoseconds
                faults += [_Fault(name, rows, said) for said, rows in moments.bad.items()]
            else:
                columns[name], bad = readers[name](column)
                faults.append(_Fault(name, bad, EXPECTED.get(name, "")))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{described} of type {column.type} does not read as {name}. Expected text or "
                "numbers."
            ) from error
    if "event" in columns:
        events = columns["event"]
        if headers is not None:  # no event of its own
            events = pc.if_else(headers, SKIP, events)
        faults = [
            replace(fault, rows=pc.and_(fault.rows, _must_be_graded(log, fault, events)))
            if fault.column in ("rating", "weight")
            else fault
            for fault in faults
        ]
    return pa.table(columns), faults


def _must_be_graded(log: _Log, grade: _Fault, events: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which rows need a rating or weight: all but what was skipped. Of several other events
    `data.events` must say which ones a value grades, and those that it does not may have none."""
    consumed = pc.not_equal(events, SKIP)
    if len(pc.unique(events.filter(consumed))) < 2:
        return consumed
    values = log.table[grade.column]
    empty = pc.or_(pc.is_null(values, nan_is_null=True), pc.equal(_texts(values)[0], ""))
    return pc.and_(consumed, pc.invert(empty))


def _weights(column: pa.ChunkedArray) -> Marked:
    weights, bad = as_numbers(column)
    return weights, pc.or_(bad, pc.fill_null(pc.less(weights, 0), False))


def _texts(column: pa.ChunkedArray) -> Marked:
    texts = titles_of(column)
    return texts, pc.equal(pc.utf8_length(texts), -1)


def _without_bad_rows(
    log: _Log, table: pa.Table, faults: list[_Fault], on_bad_rows: str
) -> tuple[pa.Table, int]:
    """The rows that can be read, and how many could not."""
    unreadable = reduce(pc.or_, (fault.rows for fault in faults))
    n_bad = (pc.sum(unreadable).as_py() or 0) + log.n_ragged
    if n_bad == 0:
        return table, 0
    if on_bad_rows == "error":
        rows = "row" if n_bad == 1 else "rows"
        raise DataError(
            f"{log.name} {_first_fault(log, faults)}. Fix it or pass "
            f"--set data.options.on_bad_rows=drop ({n_bad} {rows} would be dropped)."
        )
    n_rows = table.num_rows + log.n_ragged
    if n_bad == n_rows:
        raise DataError(
            f"{log.name}: none of {n_rows} rows can be read; {_first_fault(log, faults)}."
        )
    warnings.warn(
        DataWarning(f"{log.name}: dropped {n_bad} of {n_rows} rows, which cannot be read."),
        stacklevel=3,
    )
    return table.filter(pc.invert(unreadable)), n_bad


def _first_fault(log: _Log, faults: list[_Fault]) -> str:
    if log.n_ragged and log.text:
        line, count = log.text.first_ragged_line()
        return f"line {line}: {count} values. Expected {len(log.text.header)}, as in the first line"
    firsts = [(pc.index(fault.rows, True).as_py(), fault) for fault in faults]
    row, fault = min((found for found in firsts if found[0] >= 0), key=lambda found: found[0])
    value = log.table[fault.column][row]
    # Python has no times of nanoseconds, nor any before the year 1
    value = pc.cast(value, pa.string()) if pa.types.is_timestamp(value.type) else value
    value = value.as_py()
    value = value.strip() if isinstance(value, str) else value
    value = "" if value is None or value == "" else f" {repr(value)[:60]}"
    explained = fault.said
    if not value:
        explained = "is empty. Expected" + explained.partition("Expected")[2]
    return f"{log.place(row)}: {log.theirs[fault.column]}{value} {explained}"


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
