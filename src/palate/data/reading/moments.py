# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Times as people write them → whole Unix seconds and the nanoseconds after them.

Numbers are Unix seconds, or milli-, micro- or nanoseconds, told by their size; or dates written as
numbers (20240331). Texts may also be ISO dates and times, in UTC unless they name a zone. Parquet
times are taken as they are.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.reading.calendar import Integers, Mask, dates_in_numbers, look_like_torn_dates
from palate.data.reading.iso_dates import from_iso
from palate.data.reading.values import (
    NUMBER,
    exact_numbers,
    is_number,
    plain,
    texts_in,
    without,
)
from palate.errors import DataError, DataWarning

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
LATEST = 4_102_444_800
"""The year 2100: a larger number is no Unix seconds; 1,000 times as large, no milliseconds; …"""
EARLIEST = 10**8
"""March 1973: an earlier time is told from the next larger unit only by the times beside it."""
EXTREMES = (-(2**63), 2**63 - 1)
HOURS_14, YEAR = 14 * 3600, 366 * 86_400
LAST_DAY = (253_402_214_400 - HOURS_14, 253_402_300_799 + HOURS_14)
"""9999-12-31 in any zone."""
EXACT = {16: 2**11, 32: 2**24}
"""Bits of a float → the number up to which it holds every whole one."""
SPECIAL = (
    (-(2**62), -5_364_662_401),  # before 1800: 0001-01-01, 1677-09-21, 1753-01-01
    (-2_209_161_600 - HOURS_14, -2_208_988_800 + HOURS_14),  # 1899-12-30 to 1900-01-01
    (-HOURS_14, HOURS_14),  # 1970-01-01 in any zone
    (2**31 - 1, 2**31 - 1),
    (2**32 - 1, 2**32 - 1),
    (4_102_358_400, 2**62),  # from 2099-12-31: 2262-04-11, 2999-12-31, 9999-12-31
)
"""Where the moments lie, in Unix seconds, that are written for "unknown"."""
SHORTENED = r"^[+-]?\d(\.\d{0,6})?[eE]\+?0*([7-9]|[1-9]\d)$"
"""1.71191E+12: at most seven digits of a number of eight or more."""
EXPECTED = "Expected Unix seconds or an ISO date such as 2024-03-31T18:00:00Z"
OTHER_CLOCKS = {
    "ticks of .NET (100 ns since the year 1)": 621_355_968_000_000_000,
    "Windows FILETIME (100 ns since the year 1601)": 116_444_736_000_000_000,
}
"""Clocks whose numbers from 1995 to 2100 would be nanoseconds of 1974 or 1990, and their number at
the beginning of 1970."""
SINCE_1995 = (788_918_400, LATEST)
SMALL_FORMS = {
    "years": (1900, 2100, "a year"),
    "days of Excel": (36_526, 54_788, "a day between 2000 and 2050"),
}
"""Small numbers that are often no seconds: the first and the last, and what each of them is."""
NO_TIME = f"is no time. {EXPECTED}"
LONE_NUMBER = (
    "is a number before March 1973 among ISO dates, such as a year or a day of Excel. Expected an "
    "ISO date such as 2024-03-31T18:00:00Z"
)
UNKNOWN = (
    'stands for "unknown", for no other time lies within a year of it. Expected the time of the '
    "interaction"
)
UNCLEAR = (
    "is no number of seconds before the year 2100, and no number of milli-, micro- or nanoseconds "
    f"after March 1973. {EXPECTED}"
)
TORN = (
    "looks like a date whose century, or whose day and month, cannot be told. Expected 20240331 or "
    "2024-03-31"
)


@dataclass(frozen=True)
class Moments:
    """Moments, one for each row.

    Attributes:
        seconds: whole Unix seconds (int64), the last before the moment; null where it is bad.
        nanoseconds: those after the second (int64); None where all are 0.
        bad: what is said of bad rows, such as "is no time. Expected …", and which rows these are.
    """

    seconds: pa.ChunkedArray
    nanoseconds: pa.ChunkedArray | None
    bad: dict[str, pa.ChunkedArray] = field(default_factory=dict)


@dataclass
class _Rows:
    """(n,) seconds, nanoseconds after them, which rows hold a moment; what is said of others."""

    seconds: Integers
    nanoseconds: Integers
    known: Mask
    bad: dict[str, Mask] = field(default_factory=dict)


def as_moments(column: pa.ChunkedArray, name: str) -> Moments:
    """Read a column of times.

    Args:
        column: numbers, texts, or Parquet dates and times.
        name: what to call it in errors: "log.csv: column 'when'".

    Raises:
        DataError: the type is that of no moment, or numbers of several units stand in the column.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        rows = _from_parquet(column)
    elif pa.types.is_temporal(kind):
        what = "a time of day" if pa.types.is_time(kind) else "a length of time"
        raise DataError(f"{name} is of type {kind}, which is {what} and no moment. {EXPECTED}.")
    elif is_number(kind):
        _check_precision(column, name)
        rows = _from_numbers(*exact_numbers(column), name)
        _warn_of_small_numbers(rows, name)
    else:
        texts = texts_in(column)
        numbers = exact_numbers(texts)
        _check_digits(texts, name)
        rows = _from_numbers(*numbers, name)
        is_text, has_dates = ~numbers[2], False
        if is_text.any():
            dates = from_iso(without(texts, pa.array(~is_text)))
            has_dates = bool(dates[2].any())
            if has_dates:
                _leave_lone_numbers(rows)
            for mine, found in zip(
                (rows.seconds, rows.nanoseconds, rows.known), dates, strict=True
            ):
                mine[is_text] = found[is_text]
        if not has_dates:
            _warn_of_small_numbers(rows, name)
    unknown = _stands_for_unknown(rows.seconds, rows.known)
    rows.bad[UNKNOWN] = rows.bad.get(UNKNOWN, False) | unknown
    rows.known &= ~unknown
    rows.bad[NO_TIME] = ~rows.known & ~np.logical_or.reduce([*rows.bad.values()])
    is_bad = pa.array(~rows.known)
    seconds, nanoseconds = (
        without(pa.chunked_array([column]), is_bad) for column in (rows.seconds, rows.nanoseconds)
    )
    return Moments(
        seconds,
        nanoseconds if rows.nanoseconds[rows.known].any() else None,
        {said: pa.chunked_array([mask]) for said, mask in rows.bad.items() if mask.any()},
    )


def _check_precision(column: pa.ChunkedArray, name: str) -> None:
    """DataError for floats of 16 or 32 bits that hold Unix seconds to minutes only."""
    kind = column.type
    if pa.types.is_floating(kind) and kind.bit_width in EXACT:
        size = pc.max(pc.abs(pc.cast(column, pa.float64()))).as_py() or 0
        if size > EXACT[kind.bit_width]:
            raise DataError(
                f"{name} is of type {kind}, in which seconds are rounded, so that the order of "
                "rows is lost. Write the times as whole numbers or as timestamps."
            )


def _check_digits(texts: pa.ChunkedArray, name: str) -> None:
    """DataError where most times are long numbers of which a program kept the first digits.

    Days and hours in Unix seconds have eight digits before their zeros, so times written whole,
    as 1.7119008e+18, are not taken for such.
    """
    short = pc.fill_null(pc.match_substring_regex(texts, SHORTENED), False)
    n_short = pc.sum(short).as_py() or 0
    if n_short == 0:
        return
    n_numbers = pc.sum(pc.fill_null(pc.match_substring_regex(texts, NUMBER), False)).as_py()
    if 2 * n_short > n_numbers:
        example = texts[pc.index(short, True).as_py()].as_py()
        raise DataError(
            f"{name} has lost digits: {n_short:,} of {n_numbers:,} numbers are written with their "
            f"first few digits only, such as {example}, as spreadsheets and awk write long "
            "numbers, so that the order of rows is lost. Write the times as whole numbers in full, "
            "or as ISO dates."
        )


def _leave_lone_numbers(rows: _Rows) -> None:
    """Marks numbers that would be early Unix seconds, in a column that also holds ISO dates."""
    lone = rows.known & (np.abs(rows.seconds) < EARLIEST) & ~np.isin(rows.seconds, (0, -1))
    rows.bad[LONE_NUMBER] = lone
    rows.known &= ~lone


def _from_parquet(column: pa.ChunkedArray) -> _Rows:
    """Dates and timestamps, whose zone is only how they are shown."""
    known = _numpy(pc.is_valid(column))
    if pa.types.is_date(column.type):
        whole = pc.cast(pc.cast(column, pa.timestamp("s"), safe=False), pa.int64())
        per_second = 1
    else:
        whole = pc.cast(column, pa.int64())
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    seconds, rest = np.divmod(_numpy(pc.fill_null(whole, 0)), per_second)
    return _Rows(seconds, rest * (10**9 // per_second), known)


def _from_numbers(whole: Integers, billionths: Integers, known: Mask, name: str) -> _Rows:
    """Numbers of one unit, or dates written as numbers; `billionths` stand behind the point."""
    n = len(whole)
    rows = _Rows(np.zeros(n, np.int64), np.zeros(n, np.int64), known.copy())
    extreme = known & np.isin(whole, EXTREMES)
    rows.bad[UNKNOWN] = extreme
    rows.known &= ~extreme
    telling = rows.known & ~np.isin(whole, (0, -1))  # 0 and -1 tell no unit
    if not telling.any():
        rows.seconds[rows.known] = whole[rows.known]
        rows.nanoseconds[rows.known] = billionths[rows.known]
        return rows
    if dates := dates_in_numbers(whole[telling]):
        seconds, nanoseconds, there = dates
        after = billionths[telling]
        rows.seconds[telling], rows.nanoseconds[telling] = seconds, nanoseconds + after
        rows.known[telling] = there & ((after == 0) | (whole[telling] >= 10**13))
        return rows
    if look_like_torn_dates(whole[telling]):
        rows.bad[TORN] = telling
        rows.known &= ~telling
        return rows
    _check_clock(whole[telling], name)
    unit, unclear = _unit(whole, telling, name)
    per_second = 1000**unit
    seconds, rest = np.divmod(whole, per_second)
    rows.seconds[:] = seconds
    rows.nanoseconds[:] = rest * (10**9 // per_second) + billionths // per_second
    rows.bad[UNCLEAR] = unclear
    rows.known &= ~unclear
    return rows


def _check_clock(whole: Integers, name: str) -> None:
    """DataError where most numbers are those of another clock."""
    for clock, start in OTHER_CLOCKS.items():
        first, last = (start + 10**7 * second for second in SINCE_1995)
        theirs = (whole >= first) & (whole < last)
        if 2 * theirs.sum() > len(whole):
            example = whole[theirs][0]
            year = np.datetime64(int(example - start) // 10**7, "s").astype("datetime64[Y]")
            raise DataError(
                f"{name} holds {example}, which looks like {clock}, of the year {year}. "
                f"{EXPECTED}: (number - {start}) / 10000000 gives Unix seconds."
            )


def _warn_of_small_numbers(rows: _Rows, name: str) -> None:
    """A DataWarning where numbers read as seconds may all be years or days of Excel."""
    seconds = rows.seconds[rows.known]
    if len(seconds) == 0:
        return
    lowest, highest = int(seconds.min()), int(seconds.max())
    for form, (first, last, meaning) in SMALL_FORMS.items():
        if first <= lowest and highest <= last:
            warnings.warn(
                DataWarning(
                    f"{name} holds numbers from {lowest} to {highest} only, each of which could be "
                    f"{meaning}. They are read as seconds: the order is kept, and lengths of time "
                    f"are wrong if they are {form}. Write the times as ISO dates, such as "
                    "2024-03-31, unless seconds are meant."
                ),
                stacklevel=4,
            )


def _unit(whole: Integers, telling: Mask, name: str) -> tuple[int, Mask]:
    """The unit of most numbers as a power of 1,000, and which numbers are a time in no unit.

    Raises:
        DataError: numbers are times in different units.
    """
    size = np.abs(np.where(telling, whole, 0))
    limits = [1]
    for unit in range(len(UNITS)):
        limits += [LATEST * 1000**unit, EARLIEST * 1000 ** (unit + 1)]
    place = np.searchsorted(np.array(limits[:-1]), size, side="right")
    unit_of = np.where(place % 2 == 1, place // 2, -1)  # even places lie between two units
    counts = np.bincount(unit_of[unit_of >= 0], minlength=len(UNITS))
    unit = int(counts.argmax())
    before_1973 = (place == 2 * unit) & (unit > 0)
    sentinel = (whole // 1000**unit >= LAST_DAY[0]) & (whole // 1000**unit <= LAST_DAY[1])
    if counts.any():
        others = (unit_of >= 0) & (unit_of != unit) & ~sentinel
        if others.any():
            ends = min(unit, other := int(unit_of[others][0])), max(unit, other)
            line = int(np.flatnonzero(others)[0])
            raise DataError(
                f"{name} mixes {UNITS[ends[0]]} and {UNITS[ends[1]]} ({whole[unit_of == unit][0]} "
                f"and {whole[line]}). Expected one unit; give Unix seconds throughout."
            )
    return unit, telling & (unit_of != unit) & ~before_1973 & ~sentinel


def _stands_for_unknown(seconds: Integers, known: Mask) -> Mask:
    """Which moments are ones written for "unknown" and lie years away from all others."""
    special = [known & (seconds >= low) & (seconds <= high) for low, high in SPECIAL]
    for rows in special[1:3]:  # the beginning of a day in some zone, and 1 s before 1970
        rows &= (seconds % 900 == 0) | (seconds == -1)
    ordinary = known & ~np.logical_or.reduce(special)
    found = np.zeros(len(seconds), bool)
    for rows in special:
        if rows.any():
            first, last = seconds[rows].min(), seconds[rows].max()
            near = (ordinary & (seconds >= first - YEAR) & (seconds <= last + YEAR)).any()
            at_one = first == last and not 0 < first < YEAR  # one value, which tells nothing
            if not near and (ordinary.any() or (at_one and rows.sum() == known.sum())):
                found |= rows
    return found


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy()
