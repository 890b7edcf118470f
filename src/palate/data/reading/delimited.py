# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Delimited text → columns, fast, and with the line named where something is wrong."""

import csv
import io
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from palate.data.reading.members import decoded
from palate.errors import DataError

KINDS = {pa.int64(): "a whole number", pa.float64(): "a number", pa.string(): "text"}
PATTERNS = {pa.int64(): r"^-?\d+$", pa.float64(): r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"}


def read_delimited(
    content: bytes,
    name: str,
    columns: dict[str, pa.DataType],
    delimiter: str = ",",
    header: bool = True,
    quoted: bool = True,
) -> pa.Table:
    """Parse delimited text into typed columns.

    Args:
        content: the file, UTF-8.
        name: what to call the file in errors.
        columns: the columns wanted and their types (int64, float64 or string).
        delimiter: one character.
        header: the first line names the columns; without one, `columns` are all columns in order.
        quoted: values may stand in quotation marks, and may then hold line breaks.

    Raises:
        DataError: a column is missing, or a value is not of its type; the line is named.
    """
    found = header_of(content, name, delimiter) if header else list(columns)
    require_columns(list(columns), found, name)
    layout = _Layout(name, found, delimiter, header, quoted)
    convert = pcsv.ConvertOptions(
        include_columns=list(columns),
        column_types=columns,
        strings_can_be_null=False,
        null_values=[],
    )
    try:
        table = layout.read(content, convert)
    except pa.ArrowInvalid as error:
        raise layout.first_fault(content, columns, str(error)) from error
    numbers = [table[column] for column, kind in columns.items() if kind == pa.float64()]
    if any(pc.any(pc.invert(pc.is_finite(column))).as_py() for column in numbers):
        raise layout.first_fault(content, columns, "a number is NaN or infinite")
    return table


def read_as_text(
    content: bytes, name: str, columns: list[str], delimiter: str = ","
) -> tuple[pa.Table, int]:
    """Parse some columns of delimited text with a header as text, whatever they hold.

    Returns:
        The table, and how many lines were left out for having more or fewer values than the
        header has names.

    Raises:
        DataError: a column is missing, or the text is not UTF-8.
    """
    found = header_of(content, name, delimiter)
    require_columns(columns, found, name)
    layout = _Layout(name, found, delimiter)
    kinds = dict.fromkeys(columns, pa.string())
    convert = pcsv.ConvertOptions(
        include_columns=columns, column_types=kinds, strings_can_be_null=False, null_values=[]
    )
    ragged = 0

    def leave_out(_: object) -> str:
        nonlocal ragged
        ragged += 1
        return "skip"

    try:
        return layout.read(content, convert, leave_out), ragged
    except pa.ArrowInvalid as error:
        raise layout.first_fault(content, kinds, str(error)) from error


def read_inferred(content: bytes, name: str, texts: list[str], delimiter: str = ",") -> pa.Table:
    """Parse all columns of delimited text with a header, some as text and the rest by their look.

    Raises:
        DataError: one of the text columns is missing, or a line does not fit the header.
    """
    found = header_of(content, name, delimiter)
    require_columns(texts, found, name)
    layout = _Layout(name, found, delimiter)
    kinds = dict.fromkeys(texts, pa.string())
    convert = pcsv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
    try:
        return layout.read(content, convert, block_size=min(len(content) + 1, 2**31 - 1))
    except pa.ArrowInvalid as error:
        raise layout.first_fault(content, kinds, str(error)) from error


def header_of(content: bytes, name: str, delimiter: str = ",") -> list[str]:
    """Column names on the first line; DataError if a name occurs twice."""
    end = content.find(b"\n")
    line = decoded(content if end < 0 else content[:end], name)
    if end < 0:
        raise DataError(f"{name} has one line. Expected a header and rows; found {line[:60]!r}.")
    found = [part.strip() for part in next(csv.reader([line.strip("\r")], delimiter=delimiter), [])]
    twice = next((part for part in found if part and found.count(part) > 1), None)
    if twice is not None:
        raise DataError(f"{name}: two columns are named '{twice}'. Expected each name once.")
    return found


def require_columns(wanted: list[str], found: list[str], name: str) -> None:
    """DataError unless all wanted columns are found."""
    for column in wanted:
        if column not in found:
            raise DataError(
                f"{name}: column '{column}' is missing; the first line has {', '.join(found)}. "
                f"Expected {', '.join(wanted)}."
            )


def line_of_row(content: bytes, row: int, delimiter: str = ",") -> int:
    """1-based line on which a 0-based row begins, in delimited text with a header."""
    for number, (line, _) in enumerate(_records(content, delimiter, quoted=True)):
        if number == row + 1:
            return line
    raise IndexError(row)


def first_ragged_line(content: bytes, n_columns: int, delimiter: str = ",") -> tuple[int, int]:
    """Line and number of values of the first row that does not fit the header; (0, 0) if none."""
    records = _records(content, delimiter, quoted=True)
    return next(((line, len(row)) for line, row in records if len(row) != n_columns), (0, 0))


class _Layout:
    """How one file is laid out: its columns, delimiter, header and quotation."""

    def __init__(
        self, name: str, found: list[str], delimiter: str, header: bool = True, quoted: bool = True
    ) -> None:
        self.name, self.found, self.delimiter = name, found, delimiter
        self.header, self.quoted = header, quoted

    def read(
        self,
        content: bytes,
        convert: pcsv.ConvertOptions,
        ragged: object = None,
        block_size: int | None = None,
    ) -> pa.Table:
        read = pcsv.ReadOptions(
            column_names=self.found, skip_rows=int(self.header), block_size=block_size
        )
        parse = pcsv.ParseOptions(
            delimiter=self.delimiter,
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted and b'"' in content,
            invalid_row_handler=ragged,
        )
        return pcsv.read_csv(pa.BufferReader(content), read, parse, convert)

    def first_fault(
        self, content: bytes, columns: dict[str, pa.DataType], reason: str
    ) -> DataError:
        """What is wrong with a file that could not be read, found by reading it slowly."""
        try:
            decoded(content, self.name)
            return self._faulty_line(content, columns, reason)
        except DataError as error:
            return error

    def _faulty_line(
        self, content: bytes, columns: dict[str, pa.DataType], reason: str
    ) -> DataError:
        line, places = 1, {column: self.found.index(column) for column in columns}
        patterns = {kind: re.compile(pattern) for kind, pattern in PATTERNS.items()}
        try:
            for line, row in _records(content, self.delimiter, self.quoted):
                if line == 1 and self.header:
                    continue
                if len(row) != len(self.found):
                    return DataError(
                        f"{self.name} line {line}: {len(row)} values; expected "
                        f"{len(self.found)} ({', '.join(self.found)}). Mend or delete the line."
                    )
                for column, kind in columns.items():
                    value = row[places[column]].strip()
                    if kind in patterns and not patterns[kind].match(value):
                        return DataError(
                            f"{self.name} line {line}: {column} {value!r} is not {KINDS[kind]}. "
                            "Mend or delete the line."
                        )
        except csv.Error:
            return DataError(
                f"{self.name} line {line + 1} or after: a quotation mark is opened and not closed. "
                "Mend the line."
            )
        return DataError(f"{self.name}: {reason}. Expected lines with {', '.join(columns)}.")


def _records(content: bytes, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """(first line, values) of every row that is not blank."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", errors="replace", newline="")
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting)
    first = 1
    for row in reader:
        if row:
            yield first, row
        first = reader.line_num + 1
