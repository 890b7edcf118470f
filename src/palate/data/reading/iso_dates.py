# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""ISO 8601 dates and times → Unix seconds and nanoseconds; UTC where no zone is named."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.reading.calendar import Integers, Mask, seconds_of

COMMON = (
    r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?( ?(Z|UTC|[+-]\d{2}(:?\d{2})?))?)?$"
)
"""What Arrow reads by itself, once a comma is a point and the zone has its usual form."""
ZONE = (
    r"(?: ?(?:Z|z|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d{2})(?::?(?P<zone_minute>\d{2})"
    r"(?::?(?P<zone_second>\d{2}))?)?))?"
)
FRACTION = r"(?:[.,](?P<fraction>\d{1,9})\d*)?"
DATE = r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
TIME = r"(?P<hour>\d{2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})" + FRACTION + ")?)?"
FORMS = (
    rf"^{DATE}(?:[Tt ]{TIME}{ZONE})?$",
    rf"^{DATE.replace('-', '')}[Tt]{TIME.replace(':(?P', '(?P')}{ZONE}$",  # 20240331T180000Z
)
BILLION = 10**9


def from_iso(texts: pa.ChunkedArray) -> tuple[Integers, Integers, Mask]:
    """(seconds, nanoseconds after them, whether a row is such a date or time)."""
    n = len(texts)
    seconds, after, there = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, bool)
    common = _mask(pc.match_substring_regex(texts, COMMON))
    rest = _mask(pc.is_valid(texts)) & ~common
    if common.any():
        try:
            nanoseconds = _by_arrow(texts.filter(pa.array(common)))
        except pa.ArrowInvalid:  # a 31st of February, or a year beyond what nanoseconds reach
            rest |= common
        else:
            seconds[common], after[common] = np.divmod(nanoseconds, BILLION)
            there |= common
    if rest.any():
        seconds[rest], after[rest], there[rest] = _by_parts(texts.filter(pa.array(rest)))
    return seconds, after, there


def _by_arrow(texts: pa.ChunkedArray) -> Integers:
    """Nanoseconds since 1970."""
    texts = pc.replace_substring(texts, ",", ".")
    texts = pc.replace_substring_regex(texts, r" ?(Z|UTC)$", "Z")
    texts = pc.replace_substring_regex(texts, r" ?([+-]\d{2}):?(\d{2})?$", r"\1\2")
    zoned = _mask(pc.match_substring_regex(texts, r":.*(Z|[+-]\d{2}(\d{2})?)$"))
    moments = np.empty(len(texts), np.int64)
    for rows, kind in ((~zoned, pa.timestamp("ns")), (zoned, pa.timestamp("ns", "UTC"))):
        cast = pc.cast(texts.filter(pa.array(rows)), kind)
        moments[rows] = pc.cast(cast, pa.int64()).to_numpy()
    return moments


def _by_parts(texts: pa.ChunkedArray) -> tuple[Integers, Integers, Mask]:
    n = len(texts)
    seconds, after, there = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, bool)
    for form in FORMS:
        found = pc.extract_regex(texts, form).combine_chunks()
        rows = _mask(pc.is_valid(found))
        if not rows.any():
            continue
        found = found.filter(pa.array(rows))
        part = {
            field.name: _whole(found.field(place))
            for place, field in enumerate(found.type)
            if field.name not in ("sign", "fraction")
        }
        ahead = np.where(_mask(pc.equal(found.field("sign"), "-")), -1, 1)
        offset = part["zone_hour"] * 3600 + part["zone_minute"] * 60 + part["zone_second"]
        fits = (part["zone_hour"] < 24) & (part["zone_minute"] < 60) & (part["zone_second"] < 60)
        moment, exists = seconds_of(
            *(part[name] for name in ("year", "month", "day", "hour", "minute", "second"))
        )
        seconds[rows], there[rows] = moment - ahead * offset, exists & fits
        after[rows] = _whole(pc.utf8_rpad(found.field("fraction"), 9, "0"))
    return seconds, after, there


def _whole(texts: pa.Array) -> Integers:
    return pc.cast(pc.if_else(pc.equal(texts, ""), "0", texts), pa.int64()).to_numpy()


def _mask(rows: pa.ChunkedArray) -> Mask:
    return pc.fill_null(rows, False).to_numpy(zero_copy_only=False)
