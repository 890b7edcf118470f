"""Days and times of the calendar → Unix seconds, by columns; and dates written as numbers."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

READ = (
    "YYYYMM",
    "YYYYMMDD",
    "YYYYMMDDhh",
    "YYYYMMDDhhmm",
    "YYYYMMDDhhmmss",
    "YYYYMMDDhhmmssfff",
)
"""Dates written as whole numbers: 202403 (its first day), 20240331, 20240331180000, …"""
TORN = ("YYMMDD", "DDMMYYYY", "MMDDYYYY")
"""Dates whose century, or whose day and month, cannot be told apart for certain."""
CENTURIES = (1900, 2100)
SAMPLE = 1000
FEW = 5


def seconds_of(
    year: Integers,
    month: Integers,
    day: Integers,
    hour: Integers,
    minute: Integers,
    second: Integers,
) -> tuple[Integers, Mask]:
    """Unix seconds of dates and times in UTC, and which of them there are (no 31st of February)."""
    there = (year >= 1) & (year <= 9999) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    there &= (hour < 24) & (minute < 60) & (second < 60)
    months = np.where(there, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + np.where(there, day - 1, 0)
    there &= days.astype("datetime64[M]") == months
    return days.astype(np.int64) * 86_400 + hour * 3600 + minute * 60 + second, there


def dates_in_numbers(whole: Integers) -> tuple[Integers, Integers, Mask] | None:
    """Seconds, nanoseconds and which rows are dates, where most numbers are dates written as such.

    Args:
        whole: (n,) numbers, without those that stand for nothing.

    Returns:
        None where the numbers are no dates of the forms in `READ`.
    """
    sample = _sample(whole)
    for layout in READ:
        if 2 * _in_layout(sample, layout)[2].sum() > len(sample):
            return _in_layout(whole, layout)
    return None


def look_like_torn_dates(whole: Integers) -> bool:
    """Whether all numbers, at least a few, are dates of the forms in `TORN`."""
    for layout in TORN:
        if _in_layout(_sample(whole), layout)[2].all() and _in_layout(whole, layout)[2].all():
            return len(np.unique(whole)) >= FEW
    return False


def _sample(whole: Integers) -> Integers:
    return whole[:: max(1, len(whole) // SAMPLE)]


def _in_layout(whole: Integers, layout: str) -> tuple[Integers, Integers, Mask]:
    def part(letter: str, otherwise: int = 0) -> Integers:
        first, last = layout.find(letter), layout.rfind(letter) + 1
        if first < 0:
            return np.full(len(whole), otherwise)
        return whole // 10 ** (len(layout) - last) % 10 ** (last - first)

    year = part("Y") if "YYYY" in layout else part("Y") + 2000
    seconds, there = seconds_of(year, part("M"), part("D", 1), part("h"), part("m"), part("s"))
    low = 10 ** (len(layout) - (1 if layout.startswith("YYYY") else 2))  # 02012024 is 2012024
    there &= (whole >= low) & (whole < 10 ** len(layout))
    there &= (year >= CENTURIES[0]) & (year <= CENTURIES[1])
    return seconds, part("f") * 10**6, there
