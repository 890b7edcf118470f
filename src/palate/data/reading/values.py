# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Columns as people write them → ids and numbers, with the bad rows marked."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
DECIMAL = r"^(?P<sign>[+-]?)0*(?P<front>\d*)\.?(?P<behind>\d*)$"
ZERO_FRACTION = r"^(-?\d+)\.0+$"
NO_VALUES = r"^(\\N|NULL|null|NaN|nan|NaT|None|<NA>|<null>|#N/A)$"
"""How databases, pandas and Excel write that there is no value."""
ROUNDED = r"^-?\d(\.\d+)?[eE]\+\d+$"
"""1.23457E+18: a long whole number of which a spreadsheet kept the first digits."""
EXACT = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}
"""Bits of a float → the whole number from which on several become one."""
TEXTS = (pa.large_string(), pa.string_view())
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Marked = tuple[pa.ChunkedArray, pa.ChunkedArray]
"""Values, and which of them could not be read (those are null)."""


def as_ids(column: pa.ChunkedArray) -> Marked:
    """Ids as int64 where all are whole numbers in plain writing, otherwise as text.

    Bad are empty ones, what stands for no value (NULL, nan, None, …), and long numbers of which a
    float or a spreadsheet kept the first digits only, so that several ids have become one.

    "007" and "7" are different ids, so a column with leading zeros stays text. "12.0" is 12 where
    all ids are whole, as pandas and databases write whole ids in columns of other numbers. Texts
    are brought to Unicode's form NFC, in which a letter and its accent are one character.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_integer(kind):
        whole = _tried(column, pa.int64())  # hashes of 64 bits without sign do not fit
        return (pc.cast(column, pa.string()) if whole is None else whole), pc.is_null(column)
    if pa.types.is_floating(kind):
        column = pc.cast(column, pa.float64())
        bad = pc.invert(pc.fill_null(pc.less(pc.abs(column), EXACT[kind.bit_width]), False))
        column = without(column, bad)
        whole = _tried(column, pa.int64())
        return (pc.cast(column, pa.string()) if whole is None else whole), bad
    texts = composed(texts_in(column))
    bad = pc.equal(texts, "")
    for pattern in (NO_VALUES, ROUNDED):
        bad = pc.or_(bad, pc.match_substring_regex(texts, pattern))
    bad = pc.fill_null(bad, True)
    texts = without(texts, bad)
    for written in (texts, pc.replace_substring_regex(texts, ZERO_FRACTION, r"\1")):
        numbers = _tried(written, pa.int64())
        if numbers is not None and _same(pc.cast(numbers, pa.string()), written):
            return numbers, bad
    if pa.types.is_decimal(kind):  # whole numbers of more than 64 bits, or fractions
        texts = pc.replace_substring_regex(texts, ZERO_FRACTION, r"\1")
    return texts, bad


def as_places(column: pa.ChunkedArray) -> Marked:
    """Numbers by which rows are put in order: int64 where all are whole, otherwise float64."""
    column = plain(column)
    may_be_whole = is_number(column.type) or pa.types.is_string(column.type)
    whole = _tried(column, pa.int64()) if may_be_whole else None
    return as_numbers(column) if whole is None else (whole, pc.is_null(whole))


def as_numbers(column: pa.ChunkedArray) -> Marked:
    """Finite numbers as float64."""
    column = plain(column)
    numbers = _tried(texts_in(column), pa.float64()) if not is_number(column.type) else column
    if numbers is None:
        texts = texts_in(column)
        written = pc.fill_null(pc.match_substring_regex(texts, NUMBER), False)
        numbers = pc.cast(pc.utf8_ltrim(without(texts, pc.invert(written)), "+"), pa.float64())
    numbers = pc.cast(numbers, pa.float64())
    bad = pc.invert(pc.fill_null(pc.is_finite(numbers), False))
    return without(numbers, bad), bad


def exact_numbers(column: pa.ChunkedArray) -> tuple[Integers, Integers, Mask]:
    """(n,) numbers rounded down, the billionths left over, and which rows hold a number.

    Exact for whole numbers that fit in 64 bits and for decimal fractions of up to nine digits.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        numbers = _numpy(pc.fill_null(pc.cast(column, pa.float64()), np.nan))
        known = np.isfinite(numbers) & (np.abs(np.nan_to_num(numbers)) < 2.0**63)
        numbers = np.where(known, numbers, 0.0)
        whole = np.floor(numbers)
        billionths = np.minimum(np.rint((numbers - whole) * 1e9), 999_999_999)
        return whole.astype(np.int64), billionths.astype(np.int64), known
    given = column if pa.types.is_integer(kind) else texts_in(column)
    if (fitting := _tried(given, pa.int64())) is not None:
        whole = _numpy(pc.fill_null(fitting, 0))
        return whole, np.zeros_like(whole), _numpy(pc.is_valid(fitting))
    return _from_decimals(pc.cast(given, pa.string()))


def _from_decimals(texts: pa.ChunkedArray) -> tuple[Integers, Integers, Mask]:
    written = pc.fill_null(pc.match_substring_regex(texts, NUMBER), False)
    known = _numpy(written)
    try:
        decimals = pc.cast(without(texts, pc.invert(written)), pa.decimal128(28, 9))
    except pa.ArrowInvalid:  # more than nine digits behind the point, or too many before it
        return _from_parts(texts, known)
    words = _words(decimals)
    low, high = words[:, 0], words[:, 1]
    if (high[known] != np.where(low[known] < 0, -1, 0)).any():
        return _from_parts(texts, known)
    whole, billionths = np.divmod(np.where(known, low, 0), 10**9)
    return whole, billionths, known


def _words(decimals: pa.ChunkedArray) -> NDArray[np.int64]:
    """(n, 2) low and high halves of numbers of 128 bits."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.int64).reshape(-1, 2)[chunk.offset :][: len(chunk)]
        for chunk in decimals.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)


def _from_parts(texts: pa.ChunkedArray, written: Mask) -> tuple[Integers, Integers, Mask]:
    n = len(texts)
    whole, billionths, known = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, bool)
    power = written & _numpy(pc.fill_null(pc.match_substring_regex(texts, "[eE]"), False))
    if power.any():
        numbers = pc.cast(pc.utf8_ltrim(texts.filter(pa.array(power)), "+"), pa.float64())
        whole[power], billionths[power], known[power] = exact_numbers(numbers)
    plain = written & ~power
    if plain.any():
        parts = pc.extract_regex(texts.filter(pa.array(plain)), DECIMAL).combine_chunks()
        sign, front, behind = (parts.field(name) for name in ("sign", "front", "behind"))
        front = pc.utf8_lpad(front, 19, "0")
        fits = pc.and_(pc.equal(pc.utf8_length(front), 19), pc.less_equal(front, str(2**63 - 1)))
        values = pc.cast(pc.if_else(fits, front, "0"), pa.int64()).to_numpy()
        rest = pc.utf8_slice_codeunits(pc.utf8_rpad(behind, 9, "0"), 0, 9)
        rest = pc.cast(rest, pa.int64()).to_numpy()
        below = pc.equal(sign, "-").to_numpy(zero_copy_only=False)
        carried = below & (rest > 0)  # −1.25 is −2 and 0.75
        whole[plain] = np.where(below, -values, values) - carried
        billionths[plain] = np.where(carried, 10**9 - rest, rest)
        known[plain] = fits.to_numpy(zero_copy_only=False)
    return whole, billionths, known


def in_one_type(
    one: pa.ChunkedArray, other: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns of ids in the type both can have: int64 if both are, otherwise text.

    Where only one is whole, "12.0" in the other is the same id as its 12.
    """
    if one.type == other.type:
        return one, other
    return _as_text_ids(one), _as_text_ids(other)


def _as_text_ids(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pc.cast(ids, pa.string())
    whole = pc.replace_substring_regex(texts, ZERO_FRACTION, r"\1")
    return whole if len(pc.unique(whole)) == len(pc.unique(texts)) else texts


def composed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in Unicode's form NFC."""
    if pc.all(pc.string_is_ascii(texts)).as_py() in (True, None):
        return texts
    return pc.utf8_normalize(texts, "NFC")


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without what is only about how it is stored: categories, views, Arrow extensions."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = pc.cast(column, column.type.storage_type)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.cast(column, pa.string()) if column.type in TEXTS else column


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is one of numbers."""
    is_a = pa.types
    return is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_decimal(kind)


def _tried(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        return pc.cast(column, kind)
    except pa.ArrowInvalid:
        return None


def texts_in(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as text, without blanks around it."""
    return pc.utf8_trim_whitespace(pc.cast(plain(column), pa.string()))


def without(column: pa.ChunkedArray, bad: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """A column with null in some rows."""
    return pc.if_else(bad, pa.scalar(None, column.type), column)


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    return pc.all(pc.equal(one, other)).as_py() is not False


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy()
