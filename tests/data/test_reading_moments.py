"""Times in all forms people write, against Python's `datetime`."""

import datetime as dt
import random
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from palate.data.reading.moments import (
    LONE_NUMBER,
    NO_TIME,
    TORN,
    UNCLEAR,
    UNKNOWN,
    as_moments,
)
from palate.errors import DataError, DataWarning

ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Pacific/Chatham", "Europe/Berlin")
US = dt.timedelta(microseconds=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FALL_BACK = dt.datetime(2023, 11, 5, 5, 30, tzinfo=dt.UTC)  # 01:30 in New York, twice


def microseconds(moment: dt.datetime) -> int:
    return (moment - EPOCH) // US


def offset(moment: dt.datetime, form: str) -> str:
    text = moment.strftime("%z")
    return {"+hhmm": text, "+hh:mm": f"{text[:3]}:{text[3:]}", "+hh": text[:3]}[form]


def texts(form, *, cut: int = 1):
    """A form of text, and the microseconds it cannot write."""
    return lambda moments: pa.array([form(moment) for moment in moments]), cut


def numbers(per_second: int):
    cut = max(1, 10**6 // per_second)
    return lambda moments: pa.array([microseconds(m) * per_second // 10**6 for m in moments]), cut


def timestamps(unit: str, cut: int):
    def column(moments):
        zone = str(moments[0].tzinfo)
        return pa.array(
            [microseconds(m) // cut * (1000 if unit == "ns" else 1) for m in moments],
            pa.timestamp(unit, zone),
        )

    return column, cut


def utc(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC)


SECOND, MINUTE, DAY = 10**6, 60 * 10**6, 86_400 * 10**6
FORMS = {
    "isoformat": texts(lambda m: m.isoformat(timespec="microseconds")),
    "blank": texts(lambda m: m.isoformat(" ", "microseconds")),
    "milliseconds": texts(lambda m: m.isoformat(timespec="milliseconds"), cut=1000),
    "nanoseconds": texts(lambda m: m.strftime("%Y-%m-%dT%H:%M:%S.%f000") + offset(m, "+hh:mm")),
    "comma": texts(lambda m: m.isoformat(timespec="microseconds").replace(".", ",")),
    "+hhmm": texts(lambda m: m.strftime("%Y-%m-%d %H:%M:%S.%f") + offset(m, "+hhmm")),
    "blank before the offset": texts(lambda m: m.strftime("%Y-%m-%d %H:%M:%S.%f %z")),
    "seconds": texts(lambda m: m.isoformat(timespec="seconds"), cut=SECOND),
    "minutes": texts(lambda m: m.isoformat(timespec="minutes"), cut=MINUTE),
    "basic": texts(lambda m: m.strftime("%Y%m%dT%H%M%S.%f%z")),
    "Z": texts(lambda m: utc(m).strftime("%Y-%m-%dT%H:%M:%S.%fZ")),
    "UTC": texts(lambda m: utc(m).strftime("%Y-%m-%d %H:%M:%S.%f UTC")),
    "+00": texts(lambda m: utc(m).strftime("%Y-%m-%d %H:%M:%S.%f+00")),
    "no zone is UTC": texts(lambda m: utc(m).strftime("%Y-%m-%d %H:%M:%S.%f")),
    "date": texts(lambda m: utc(m).strftime("%Y-%m-%d"), cut=DAY),
    "date as a number": texts(lambda m: utc(m).strftime("%Y%m%d"), cut=DAY),
    "moment as a number": texts(lambda m: utc(m).strftime("%Y%m%d%H%M%S"), cut=SECOND),
    "integers of s": numbers(1),
    "integers of ms": numbers(10**3),
    "integers of us": numbers(10**6),
    "integers of ns": numbers(10**9),
    "text of ms": texts(lambda m: str(microseconds(m) // 1000), cut=1000),
    "decimal text of s": texts(lambda m: str(Decimal(microseconds(m)) / 10**6)),
    "decimals of s": (
        lambda ms: pa.array([Decimal(microseconds(m)) / 10**6 for m in ms], pa.decimal128(20, 6)),
        1,
    ),
    "timestamp[s]": timestamps("s", SECOND),
    "timestamp[ms]": timestamps("ms", 1000),
    "timestamp[us]": timestamps("us", 1),
    "timestamp[ns]": timestamps("ns", 1),
}


def read(values, kind=None):
    """(seconds, nanoseconds) of each row, and the rows of which something is said."""
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    moments = as_moments(pa.chunked_array([column]), "log: column 'when'")
    seconds = moments.seconds.to_pylist()
    nanoseconds = [None] * len(seconds)
    if moments.nanoseconds is not None:
        nanoseconds = moments.nanoseconds.to_pylist()
    bad = {
        said: [i for i, is_bad in enumerate(rows.to_pylist()) if is_bad]
        for said, rows in moments.bad.items()
    }
    return [(s, n or 0) for s, n in zip(seconds, nanoseconds, strict=True)], bad


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("form", FORMS)
def test_times_are_those_of_datetime(form, zone):
    draw = random.Random(f"{form} {zone}")
    begin, end = microseconds(dt.datetime(2001, 9, 9, tzinfo=dt.UTC)), 4_000_000_000 * 10**6
    moments = [EPOCH + draw.randrange(begin, end) * US for _ in range(40)]
    moments += [FALL_BACK + draw.randrange(7200 * 10**6) * US for _ in range(20)]
    moments = [moment.astimezone(ZoneInfo(zone)) for moment in moments]
    column, cut = FORMS[form]
    found, bad = read(column(moments))
    whole = [microseconds(moment) // cut * cut for moment in moments]
    assert found == [(us // 10**6, us % 10**6 * 1000) for us in whole]
    assert not bad


def test_order_within_a_second_is_kept_in_every_unit():
    start = 1_700_000_000
    for values, kind in (
        ([start * 10**9 + 1, start * 10**9], pa.int64()),
        ([f"{start}{n:09d}" for n in (1, 0)] + ["NULL"], None),
        ([float(start) + 0.25, float(start)], pa.float64()),
        ([f"{start}.000000002", f"{start}.000000001"], None),
        ([start * 1000 + 0.5, start * 1000 + 0.25], pa.float64()),
        ([f"2023-11-14T22:13:20.00000000{n}Z" for n in (2, 1)], None),
        (["-1.25", "-1.5"], None),
    ):
        (one, other), _ = read(values, kind)[0][:2], None
        assert one[0] == other[0]
        assert one[1] > other[1]


def test_dates_written_as_numbers():
    def day(*parts):
        return int(dt.datetime(*parts, tzinfo=dt.UTC).timestamp())

    assert read([20230102, 20240229])[0] == [(day(2023, 1, 2), 0), (day(2024, 2, 29), 0)]
    assert read([202301, 202412])[0] == [(day(2023, 1, 1), 0), (day(2024, 12, 1), 0)]
    assert read(["20230102030405.5"])[0] == [(day(2023, 1, 2, 3, 4, 5), 500_000_000)]
    assert read([20230102030405678])[0] == [(day(2023, 1, 2, 3, 4, 5), 678_000_000)]
    assert read([2023010203, 2023010204])[0][1] == (day(2023, 1, 2, 4), 0)
    found, bad = read([20230102, 20230231, 20230103, 0])
    assert found[1::2] == [(None, 0)] * 2
    assert bad == {NO_TIME: [1], UNKNOWN: [3]}
    torn = [f"{d:02d}{m:02d}2023" for d, m in ((1, 2), (30, 12), (3, 4), (5, 6), (7, 8))]
    assert read(torn)[1] == {TORN: [0, 1, 2, 3, 4]}


def test_small_numbers_are_seconds():
    assert read([0, 1, 2, 86_400])[0] == [(0, 0), (1, 0), (2, 0), (86_400, 0)]
    assert read([200_000, 200_001, 200_113, 250_000])[0][2] == (200_113, 0)


def test_milliseconds_before_march_1973():
    early = int(dt.datetime(1972, 7, 1, tzinfo=dt.UTC).timestamp())
    assert read([early * 1000, 1_700_000_000_000])[0][0] == (early, 0)
    assert read([early * 1000, early * 1000 + 1])[1] == {UNCLEAR: [0, 1]}
    assert read([1_700_000_000, early * 1000])[1] == {UNCLEAR: [1]}
    with pytest.raises(DataError, match="log: column 'when' mixes seconds and milliseconds"):
        read([1_700_000_000_000, 1_700_000_000_001, 1_700_000_000])


@pytest.mark.parametrize(
    ("usual", "unknown"),
    [
        (1_700_000_000, [0, -1, 2**31 - 1, -(2**63), 2**63 - 1, 253_402_300_799]),
        (1_700_000_000_000, [0, -1, 253_402_300_799_999]),
        (1_700_000_000.5, [0.0, -1.0]),
        ("2023-01-02", ["1970-01-01", "9999-12-31", "0001-01-01", "1900-01-01", "2099-12-31"]),
        ("2023-01-02T03:04:05Z", ["1970-01-01T00:00:00Z", "1970-01-01T01:00:00", "0", "-1"]),
        (dt.date(2023, 1, 2), [dt.date(1970, 1, 1), dt.date(9999, 12, 31), dt.date(1899, 12, 30)]),
        (dt.datetime(2023, 1, 2), [dt.datetime(1970, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59)]),
        (20230102, [0, -1]),
    ],
)
def test_values_that_stand_for_unknown(usual, unknown):
    for value in unknown:
        found, bad = read([usual, value, usual])
        assert bad == {UNKNOWN: [1]}, value
        assert found[1] == (None, 0)
        assert found[0] == found[2] != (None, 0)


def test_no_time_at_all():
    assert read([0, 0])[1] == {UNKNOWN: [0, 1]}
    missing = ["", "NULL", "NaT", "nan", "None", "\\N", "2023-02-30", "0000-00-00", "25:00:00"]
    found, bad = read(["2023-01-02", *missing, None])
    assert bad == {NO_TIME: list(range(1, 11))}
    assert found[0] == (1_672_617_600, 0)
    assert read([1.7e9, float("nan"), float("inf")])[1] == {NO_TIME: [1, 2]}
    for wrong in (
        "2023-13-01",
        "2023-01-02T24:00",
        "2023-01-02T03:04:61",
        "2023-01-02T03:04+25:00",
    ):
        assert read(["2023-01-02", wrong])[1] == {NO_TIME: [1]}, wrong


def test_years_that_nanoseconds_do_not_reach():
    moments = ["1066-10-14", "1215-06-15T12:00:00.5Z", "1215-06-15T12:00:00+00:00:30"]
    whole = [dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) for text in moments[:1]]
    found, bad = read(moments)
    assert found[0] == (microseconds(whole[0]) // 10**6, 0)
    assert found[1][0] - found[2][0] == 30
    assert not bad


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (pa.duration("s"), "a length of time"),
        (pa.time32("s"), "a time of day"),
        (pa.time64("ns"), "a time of day"),
        (pa.month_day_nano_interval(), "a length of time"),
    ],
)
def test_durations_and_times_of_day_are_no_moments(kind, what):
    value = (1, 2, 3) if kind == pa.month_day_nano_interval() else 1
    with pytest.raises(DataError, match=f"'when' is of type .*, which is {what} and no moment"):
        as_moments(pa.chunked_array([pa.array([value], kind)]), "log: column 'when'")


@pytest.mark.parametrize("lone", ["2023", "45382", "45382.5", "19802", "-99999999"])
def test_a_small_number_among_dates_is_no_moment_in_1970(lone):
    column = pa.chunked_array([["2024-03-30", lone, "2024-03-31T18:00:00Z"]])
    moments = as_moments(column, "when")
    assert moments.seconds.to_pylist() == [1711756800, None, 1711908000]
    assert {said: rows.to_pylist() for said, rows in moments.bad.items()} == {
        LONE_NUMBER: [False, True, False]
    }


@pytest.mark.parametrize("hours", [-14, -1, 0, 1, 14])
def test_the_last_day_of_all_in_any_zone_and_unit_stands_for_unknown(hours):
    for per_second in (1, 10**3):
        last = (253_402_300_799 + hours * 3600) * per_second
        column = pa.chunked_array([[1711908000 * per_second, last]])
        moments = as_moments(column, "when")
        assert moments.seconds.to_pylist() == [1711908000, None]
        assert list(moments.bad) == [UNKNOWN]


def test_floats_of_32_bits_hold_no_seconds():
    column = pa.chunked_array([pa.array([1711908000.0, 1711908001.0]).cast(pa.float32())])
    with pytest.raises(DataError, match="seconds are rounded"):
        as_moments(column, "when")
    small = pa.chunked_array([pa.array([1.0, 2.0], pa.float32())])
    assert as_moments(small, "when").seconds.to_pylist() == [1, 2]


@pytest.mark.parametrize("form", ["%.6g", "%e", "%.5E", "%.4g"])
@pytest.mark.parametrize("per_second", [1, 1000, 10**9])
def test_times_of_which_the_first_digits_were_kept_are_no_times(form, per_second):
    whole = [(1711908000 + 1111 * n) * per_second for n in range(6)]
    with pytest.raises(DataError, match=r"'when' has lost digits: 6 of 6 .* such as 1\.71"):
        read([form % number for number in whole] + ["NULL"])


@pytest.mark.parametrize("step", [3600, 86_400])
@pytest.mark.parametrize("per_second", [1, 1000, 10**9])
def test_whole_hours_and_days_in_exponents_are_times(step, per_second):
    seconds = [1711908000 // step * step + step * n for n in range(40)]
    written = [f"{s * per_second:.17e}".replace("e", "00e") for s in seconds]
    shortest = [f"{Decimal(s * per_second).normalize():e}" for s in seconds]
    for form in (written, shortest):
        assert [second for second, _ in read(form)[0]] == seconds
    assert read(["1e5", "3e5", "1234567"])[0][:2] == [(100_000, 0), (300_000, 0)]


DAY_1 = {
    ".NET": dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    "FILETIME": dt.datetime(1601, 1, 1, tzinfo=dt.UTC),
}


@pytest.mark.parametrize("clock", DAY_1)
@pytest.mark.parametrize("year", [1996, 2024, 2099])
@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.float64()])
def test_numbers_of_other_clocks_are_refused_by_name(clock, year, kind):
    moments = [dt.datetime(year, 3, 31, n, tzinfo=dt.UTC) for n in range(4)]
    ticks = pa.array([(moment - DAY_1[clock]) // US * 10 for moment in moments]).cast(
        kind, safe=False
    )
    with pytest.raises(DataError, match=rf"{clock} .*, of the year {year}\. Expected Unix seconds"):
        read(ticks)


def test_nanoseconds_of_other_years_are_none_of_other_clocks():
    for year in (1976, 1985, 1995, 2024):
        start = int(dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp())
        assert read([start * 10**9, (start + 1) * 10**9])[0] == [(start, 0), (start + 1, 0)]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([2019, 2021, 2020], "years"),
        (["1999", "2023"], "years"),
        ([45292, 45383, 45657], "days of Excel"),
        ([45292.25, 45383.5], "days of Excel"),
    ],
)
def test_small_numbers_that_may_be_no_seconds_are_read_with_a_warning(values, form):
    with pytest.warns(DataWarning, match=f"log: column 'when' holds numbers .* if they are {form}"):
        found, bad = read(values)
    assert [second for second, _ in found] == [int(float(value)) for value in values]
    assert not bad


def test_small_numbers_that_count_are_read_without_one():
    for values in (
        range(1, 3000),
        range(0, 90_000, 500),
        [1899, 2000],
        [2000, 2101],
        [36_000, 45_000],
    ):
        assert [second for second, _ in read(list(values))[0]] == list(values)
