# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Columns as people write them → ids, numbers and Unix seconds, with the bad rows marked."""

import re
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from palate.errors import DataError

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
ZONE = r" ?(Z|UTC|[+-]\d{2}:?\d{2})$"
DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?( ?(Z|UTC|[+-]\d{2}:?\d{2}))?)?$"
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
LATEST = 10**11
"""Seconds (the year 5138) from which a number is read as milliseconds, and so on by thousands."""

Marked = tuple[pa.ChunkedArray, pa.ChunkedArray]
"""Values, and which of them could not be read (those are null)."""


def as_ids(column: pa.ChunkedArray) -> Marked:
    """Ids as int64 where all are whole numbers in plain writing, otherwise as text; empty is bad.

    "007" and "7" are different ids, so a column with leading zeros stays text.
    """
    if pa.types.is_integer(column.type):
        whole = _tried(column, pa.int64())  # hashes of 64 bits without sign do not fit
        return (pc.cast(column, pa.string()) if whole is None else whole), pc.is_null(column)
    if pa.types.is_floating(column.type):
        bad = pc.invert(pc.fill_null(pc.is_finite(column), False))
        column = _without(column, bad)
        whole = _tried(column, pa.int64())
        return (pc.cast(column, pa.string()) if whole is None else whole), bad
    texts = _texts(column)
    bad = pc.fill_null(pc.equal(texts, ""), True)
    texts = _without(texts, bad)
    numbers = _tried(texts, pa.int64())
    if numbers is None or not pc.all(pc.equal(pc.cast(numbers, pa.string()), texts)).as_py():
        return texts, bad
    return numbers, bad


def as_numbers(column: pa.ChunkedArray) -> Marked:
    """Finite numbers as float64."""
    numbers = _tried(_texts(column), pa.float64()) if not _is_number(column.type) else column
    if numbers is None:
        texts = _texts(column)
        written = pc.fill_null(pc.match_substring_regex(texts, NUMBER), False)
        numbers = pc.cast(pc.utf8_ltrim(_without(texts, pc.invert(written)), "+"), pa.float64())
    numbers = pc.cast(numbers, pa.float64())
    bad = pc.invert(pc.fill_null(pc.is_finite(numbers), False))
    return _without(numbers, bad), bad


def as_seconds(column: pa.ChunkedArray, name: str) -> Marked:
    """Moments as whole Unix seconds (int64).

    Numbers are Unix seconds, or milli-, micro- or nanoseconds, told by their size; texts may also
    be ISO dates and times, in UTC unless they name a zone; Parquet times are taken as they are.

    Raises:
        DataError: numbers of different units stand in the column.
    """
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        moments = pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
        return pc.cast(_whole_seconds(moments), pa.int64()), pc.is_null(column)
    texts = None if _is_number(column.type) else _texts(column)
    whole = _tried(column if texts is None else texts, pa.int64())
    if whole is not None:
        return _in_seconds(whole, name), pc.is_null(whole)
    numbers, bad = as_numbers(column)
    seconds = _in_seconds(pc.cast(pc.floor(numbers), pa.int64(), safe=False), name)
    if texts is None:
        return seconds, bad
    dates = pc.fill_null(pc.match_substring_regex(texts, DATE), False)
    seconds = pc.coalesce(seconds, _from_dates(_without(texts, pc.invert(dates))))
    return seconds, pc.is_null(seconds)


def in_one_type(
    one: pa.ChunkedArray, other: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns of ids in the type both can have: int64 if both are, otherwise text."""
    if one.type == other.type:
        return one, other
    return pc.cast(one, pa.string()), pc.cast(other, pa.string())


def _in_seconds(numbers: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    ends = pc.min_max(numbers).as_py()
    if ends["max"] is None:
        return numbers
    low, high = sorted((_unit(ends["min"]), _unit(ends["max"])), key=lambda unit: UNITS[unit])
    if low != high:
        raise DataError(
            f"{name}: column 'timestamp' mixes {low} and {high} ({ends['min']} to {ends['max']}). "
            "Expected one unit; give Unix seconds throughout."
        )
    return pc.divide(numbers, UNITS[high])


def _unit(number: int) -> str:
    limits = ((unit, LATEST * factor) for unit, factor in UNITS.items())
    return next((unit for unit, limit in limits if abs(number) < limit), "nanoseconds")


def _from_dates(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Unix seconds of ISO dates and times; null where there is no such date."""
    zoned = pc.fill_null(pc.match_substring_regex(texts, ":.*" + ZONE), False)
    texts = pc.replace_substring(texts, ",", ".")
    plain, aware = _without(texts, zoned), _without(texts, pc.invert(zoned))
    aware = pc.replace_substring_regex(aware, r" ?(Z|UTC)$", "Z")
    aware = pc.replace_substring_regex(aware, r" ?([+-]\d{2}):?(\d{2})$", r"\1:\2")
    utc = pa.timestamp("ns", "UTC")
    try:
        plain = pc.cast(pc.cast(plain, pa.timestamp("ns")), utc)
        moments = pc.coalesce(plain, pc.cast(aware, utc))
    except pa.ArrowInvalid:  # a 31st of February, or a year beyond what nanoseconds reach
        return pa.chunked_array([pa.array(map(_from_date, texts.to_pylist()), pa.int64())])
    return pc.cast(_whole_seconds(moments), pa.int64())


def _from_date(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(re.sub(" ?(Z|UTC)$", "+00:00", text).replace(" +", "+"))
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)


def _whole_seconds(moments: pa.ChunkedArray) -> pa.ChunkedArray:
    """Moments cut down to the second before them."""
    kind = pa.timestamp("s", moments.type.tz)
    return pc.cast(pc.floor_temporal(moments, unit="second"), kind)


def _is_number(kind: pa.DataType) -> bool:
    is_a = pa.types
    return is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_decimal(kind)


def _tried(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        return pc.cast(column, kind)
    except pa.ArrowInvalid:
        return None


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.utf8_trim_whitespace(pc.cast(column, pa.string()))


def _without(column: pa.ChunkedArray, bad: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(bad, pa.scalar(None, column.type), column)
