# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Delimited text → columns, fast, and with the line named where something is wrong.

Rows and values are those of Python's `csv` with `strict=True`: blank lines are no rows, values are
kept as they stand, and a wrong quotation mark is an error. What marks mean in tab-separated text is
told in `quotation`.
"""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from palate.data.reading.members import UTF_16, decoded
from palate.data.reading.quotation import check_marks, first_record, line_at, marks_quote
from palate.errors import DataError

KINDS = {pa.int64(): "a whole number", pa.float64(): "a number", pa.string(): "text"}
PATTERNS = {pa.int64(): r"^-?\d+$", pa.float64(): r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"}
LARGEST_BLOCK = 2**31 - 1
Types = dict[str, pa.DataType]


@dataclass(frozen=True)
class Delimited:
    """A file of delimited text.

    Attributes:
        content: its bytes, UTF-8.
        name: what to call it in errors.
        delimiter: one character.
        columns: names of the columns of a file without a header; None where the first row that is
            not blank names them.
        may_quote: False for a format that has no quoting.
    """

    content: bytes
    name: str
    delimiter: str = ","
    columns: tuple[str, ...] | None = None
    may_quote: bool = True

    @cached_property
    def quoted(self) -> bool:
        """Whether quotation marks are quoting; DataError where one is not closed as it must be."""
        if self.content[:2] in UTF_16:
            decoded(self.content, self.name)
        quoted = self.may_quote and marks_quote(self.content, self.delimiter)
        if quoted:
            check_marks(self.content, self.name, self.delimiter)
        return quoted

    @cached_property
    def header(self) -> list[str]:
        """Names of the columns; DataError if one occurs twice or there is no row below them."""
        if self.columns is not None:
            return list(self.columns)
        start, end, after = self._first
        line = decoded(self.content[start:end], self.name)
        if "\0" in line:
            raise DataError(
                f"{self.name} holds NUL bytes in its first line, as UTF-16 does. Expected UTF-8; "
                "save it as UTF-8."
            )
        if after == end:
            raise DataError(
                f"{self.name} has one line. Expected a header and rows; found {line[:60]!r}."
            )
        found = [part.strip() for part in next(self._reader(io.StringIO(line, newline="")), [])]
        twice = next((part for part in found if part and found.count(part) > 1), None)
        if twice is not None:
            raise DataError(
                f"{self.name}: two columns are named '{twice}'. Expected each name once."
            )
        return found

    @cached_property
    def _first(self) -> tuple[int, int, int]:
        return first_record(self.content, self.delimiter, self.quoted)

    @property
    def has_rows(self) -> bool:
        """Whether any row stands below the header."""
        return re.compile(rb"[^\r\n]").search(self.content, self._body) is not None

    @property
    def _body(self) -> int:
        return 0 if self.columns is not None else self._first[2]

    def require(self, wanted: list[str]) -> None:
        """DataError unless all wanted columns are there."""
        require_columns(wanted, self.header, self.name)

    def typed(self, types: Types) -> pa.Table:
        """Columns of whole numbers, numbers or text (int64, float64, string).

        Raises:
            DataError: a column is missing, a row has more or fewer values than there are columns,
                or a value is not of its type; the line is named.
        """
        self.require(list(types))
        convert = pcsv.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            strings_can_be_null=False,
            null_values=[],
        )
        table = self._read(convert, types)
        numbers = [table[column] for column, kind in types.items() if kind == pa.float64()]
        if any(pc.any(pc.invert(pc.is_finite(column))).as_py() for column in numbers):
            raise self._first_fault(types, "a number is NaN or infinite")
        return table

    def as_text(self, columns: list[str]) -> tuple[pa.Table, int]:
        """Some columns as text, whatever they hold.

        Returns:
            The table, and how many rows were left out for having more or fewer values than there
            are columns.

        Raises:
            DataError: a column is missing, or the text is not UTF-8.
        """
        self.require(columns)
        types = dict.fromkeys(columns, pa.string())
        convert = pcsv.ConvertOptions(
            include_columns=columns, column_types=types, strings_can_be_null=False, null_values=[]
        )
        ragged = count()

        def leave_out(_: object) -> str:
            next(ragged)
            return "skip"

        return self._read(convert, types, leave_out), next(ragged)

    def inferred(self, texts: list[str]) -> pa.Table:
        """All columns: some as text, the rest by their look.

        Whole numbers that begin with zeros and numbers of more digits than a float holds stay text.

        Raises:
            DataError: one of the text columns is missing, or a row does not fit the header.
        """
        self.require(texts)
        types = dict.fromkeys(texts, pa.string())
        convert = pcsv.ConvertOptions(column_types=types, strings_can_be_null=False)
        table = self._read(convert, types, whole=True)
        numeric = [
            name
            for name, kind in zip(table.column_names, table.schema.types, strict=True)
            if name and (pa.types.is_integer(kind) or pa.types.is_floating(kind))
        ]
        if numeric:
            written, _ = self.as_text(numeric)
            for name in numeric:
                place = table.column_names.index(name)
                if _is_code(written[name], table.schema.types[place]):
                    table = table.set_column(place, name, written[name])
        return table

    def headers_within(self, table: pa.Table) -> pa.Array:
        """Which rows hold the names of their columns, as files put one after the other have.

        Args:
            table: columns of this file, at least one, under their names in the file.
        """
        rows = pa.array(range(0), pa.int64())
        for number, name in enumerate(table.column_names):
            column = table[name] if number == 0 else table[name].take(rows)
            is_name = pc.match_substring(pc.cast(column, pa.string()), name)
            found = pc.indices_nonzero(pc.fill_null(is_name, False))
            rows = found if number == 0 else rows.take(found)
            if len(rows) == 0:
                break
        there = [
            row
            for row in rows.to_pylist()
            if all(_bare(str(table[name][row])) == name for name in table.column_names)
        ]
        found = np.zeros(table.num_rows, bool)
        found[there] = True
        return pa.array(found)

    def line_of_row(self, row: int) -> int:
        """1-based line on which a 0-based row begins, of the rows that fit the header."""
        n_columns = len(self.header)
        fitting = (line for line, values in self._rows() if len(values) == n_columns)
        return next(line for number, line in enumerate(fitting) if number == row)

    def first_ragged_line(self) -> tuple[int, int]:
        """Line and number of values of the first row that does not fit; (0, 0) if none."""
        n_columns = len(self.header)
        return next(
            ((line, len(row)) for line, row in self._rows() if len(row) != n_columns), (0, 0)
        )

    def _read(
        self, convert: pcsv.ConvertOptions, types: Types, ragged: Any = None, whole: bool = False
    ) -> pa.Table:
        """Arrow's table; in one block if `whole`, so that all rows decide about a column's type."""
        body = self._body
        if not self.has_rows:
            raise DataError(f"{self.name} holds no rows below its header. Expected at least one.")
        parse = pcsv.ParseOptions(
            delimiter=self.delimiter,
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted and self.delimiter != "\t",
            invalid_row_handler=ragged,
        )
        largest = min(len(self.content) - body + 1, LARGEST_BLOCK)
        try:
            for block in (largest,) if whole else (None, largest):
                read = pcsv.ReadOptions(column_names=self.header, block_size=block)
                rows = pa.BufferReader(pa.py_buffer(self.content)[body:])
                try:
                    return pcsv.read_csv(rows, read, parse, convert)
                except pa.ArrowInvalid as error:  # a row is longer than a block
                    if block == largest or "straddling" not in str(error):
                        raise
            raise AssertionError("unreachable")
        except pa.ArrowInvalid as error:
            raise self._first_fault(types, str(error)) from error

    def _first_fault(self, types: Types, reason: str) -> DataError:
        """What is wrong with a file that could not be read, found by reading it slowly."""
        try:
            decoded(self.content, self.name)
        except DataError as error:
            return error
        places = {column: self.header.index(column) for column in types}
        patterns = {kind: re.compile(pattern) for kind, pattern in PATTERNS.items()}
        for line, row in self._rows():
            if len(row) != len(self.header):
                return DataError(
                    f"{self.name} line {line}: {len(row)} values; expected {len(self.header)} "
                    f"({', '.join(self.header)}). Fix or delete the line."
                )
            for column, kind in types.items():
                value = row[places[column]].strip()
                if kind in patterns and not patterns[kind].match(value):
                    return DataError(
                        f"{self.name} line {line}: {column} {value!r:.60} is not {KINDS[kind]}. "
                        "Fix or delete the line."
                    )
        reason = " ".join(reason.split()).rstrip(".")
        return DataError(f"{self.name}: {reason}. Expected lines with {', '.join(types)}.")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """(first line, values) of every row below the header that is not blank."""
        stream = io.BytesIO(self.content)
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
        reader, first = self._reader(text), 1
        header = 0 if self.columns is not None else line_at(self.content, self._first[0])
        with _values_of_any_length():
            for row in reader:
                if row and first > header:
                    yield first, row
                first = reader.line_num + 1

    def _reader(self, text: io.TextIOBase) -> Any:
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return csv.reader(text, delimiter=self.delimiter, quoting=quoting)


def read_delimited(
    content: bytes,
    name: str,
    columns: Types,
    delimiter: str = ",",
    header: bool = True,
    may_quote: bool = True,
) -> pa.Table:
    """Parse delimited text into typed columns.

    Args:
        content: the file, UTF-8.
        name: what to call the file in errors.
        columns: the columns wanted and their types (int64, float64 or string).
        delimiter: one character.
        header: the first line names the columns; without one, `columns` are all columns in order.
        may_quote: False for a format that has no quoting, so that quotation marks are text.

    Raises:
        DataError: a column is missing, or a value is not of its type; the line is named.
    """
    names = None if header else tuple(columns)
    return Delimited(content, name, delimiter, names, may_quote).typed(columns)


def require_columns(wanted: list[str], found: list[str], name: str) -> None:
    """DataError unless all wanted columns are found."""
    for column in wanted:
        if column not in found:
            raise DataError(
                f"{name}: column '{column}' is missing; the first line has {', '.join(found)}. "
                f"Expected {', '.join(wanted)}."
            )


def _bare(value: str) -> str:
    """A value without a byte order mark, which stands where another file began, and its quotes."""
    value = value.strip()
    return value[1:].strip('"') if value.startswith("\ufeff") else value


def _is_code(written: pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Whether numbers are written so that reading them as numbers would lose something."""
    pattern = r"^\s*[+-]?0\d" if pa.types.is_integer(kind) else r"^\s*[+-]?(0\d|\d{17})"
    return bool(pc.any(pc.match_substring_regex(written, pattern)).as_py())


@contextmanager
def _values_of_any_length() -> Iterator[None]:
    """Python's `csv` reads values of up to 131,072 characters unless it is told otherwise."""
    before = csv.field_size_limit(LARGEST_BLOCK)
    try:
        yield
    finally:
        csv.field_size_limit(before)
