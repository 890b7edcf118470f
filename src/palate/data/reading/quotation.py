"""Which quotation marks of delimited text are quoting, and where one is opened and not closed.

A field is quoted if it begins with a mark: it then ends with the next mark that is not doubled, and
a delimiter, a line break or the end of the file follows. In any other field a mark is a character
like all others. That is what Python's `csv` accepts with `strict=True`.

In comma-separated text a field that begins with a mark and is not quoted is an error. Tab-separated
text is often written without any quoting, and then a title may begin with a mark: there marks are
quoting only if every field that begins with one is quoted and ends on its line, as pandas writes
them; otherwise they are text in the whole file.
"""

import re
from functools import cache

from palate.errors import DataError

INSIDE, INSIDE_LINE = rb'(?:[^"]++|"")*+', rb'(?:[^"\r\n]++|"")*+'
BREAK = re.compile(rb"\r\n|\n|\r")
BLANK = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*+(?:\r\n|\n|\r))*+")
"""A byte order mark and the blank lines that may stand before the first row."""


def marks_quote(content: bytes, delimiter: str) -> bool:
    """Whether quotation marks are quoting in a file: see above."""
    if b'"' not in content:
        return False
    return delimiter != "\t" or _well_formed(delimiter, INSIDE_LINE, content) == len(content)


def begins_with_mark(content: bytes, delimiter: str) -> bool:
    """Whether any field begins with a quotation mark, so that it matters what marks are."""
    return re.search(rb'(?:\A|\A\xef\xbb\xbf|[\r\n%b])"' % _escaped(delimiter), content) is not None


def check_marks(content: bytes, name: str, delimiter: str) -> None:
    """DataError, with its line, for the first field that begins with a mark and is not quoted."""
    place = _well_formed(delimiter, INSIDE, content)
    if place == len(content):
        return
    line, closing = line_at(content, place), re.compile(rb'"%b"' % INSIDE).match(content, place)
    opened = f"{name} line {line}: a quotation mark is opened and not closed"
    if closing:
        last = closing.end()
        at = f", on line {line_at(content, last)}," if BREAK.search(closing[0]) else ""
        opened += f" (the next one{at} is followed by {_shown(content, last)})"
    raise DataError(
        f"{opened}, in {_shown(content, place)}. Fix the line: a value that begins with a mark is "
        "written between two marks, and marks within it are doubled."
    )


def line_at(content: bytes, place: int) -> int:
    """1-based line of a place in a file."""
    feeds, pairs = content.count(b"\n", 0, place), content.count(b"\r\n", 0, place)
    return 1 + feeds + content.count(b"\r", 0, place) - pairs


def first_record(content: bytes, delimiter: str, quoted: bool) -> tuple[int, int, int]:
    """Where the first row that is not blank begins and ends, and where the next line begins."""
    start = BLANK.match(content).end()  # pyright: ignore[reportOptionalMemberAccess] (matches all)
    row = _row(delimiter) if quoted else re.compile(rb"[^\r\n]*+")
    found = row.match(content, start)
    end = found.end() if found else start
    after = BREAK.match(content, end)
    return start, end, after.end() if after else len(content)


def _shown(content: bytes, place: int) -> str:
    """The text from a place to the end of its line, cut short."""
    text = BREAK.split(content[place : place + 160])[0].decode("utf-8", "replace")
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _well_formed(delimiter: str, inside: bytes, content: bytes) -> int:
    """Where the first field is that begins with a mark and is not quoted; the length if none."""
    found = _file(delimiter, inside).match(content, 3 if content[:3] == b"\xef\xbb\xbf" else 0)
    return found.end() if found else 0


@cache
def _file(delimiter: str, inside: bytes) -> re.Pattern[bytes]:
    field, mark = _field(delimiter, inside), _escaped(delimiter)
    return re.compile(rb"(?:%b[\r\n%b])*+%b" % (field, mark, field))


@cache
def _row(delimiter: str) -> re.Pattern[bytes]:
    field = _field(delimiter, INSIDE)
    return re.compile(rb"(?:%b%b)*+%b" % (field, _escaped(delimiter), field))


def _field(delimiter: str, inside: bytes) -> bytes:
    mark = _escaped(delimiter)
    return rb'(?:"%b"(?![^\r\n%b])|[^"\r\n%b][^\r\n%b]*+)?+' % (inside, mark, mark, mark)


def _escaped(delimiter: str) -> bytes:
    return re.escape(delimiter).encode()
