"""Rows of JSON: one list of objects, or one object on each line."""

import ast
import json
import re
from typing import Any

from palate.data.reading.members import FileContent, decoded
from palate.errors import DataError

Row = dict[str, Any]
HALF = re.compile("[\ud800-\udfff]")
"""Half of a character beyond the first 65,536, as UTF-16 and JSON's escapes write them in pairs."""

LIST = re.compile(r"""\[\s*(['"]).*['"]\s*\]$""", re.DOTALL)
MOST_DIGITS = 4300
"""Digits of the longest whole number that Python reads."""
LONG_NUMBER = re.compile(rf"\d{{{MOST_DIGITS + 1},}}")


def read_json(file: FileContent) -> Any:
    """The one JSON value of a file; DataError names the line where it breaks off."""
    text = decoded(file.content, file.name)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _TwiceError as error:
        raise DataError(f"{file.name}: {error}") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file.name} line {error.lineno}: not valid JSON ({error.msg}). The file may be cut "
            "off; download it again, or fix the line."
        ) from error
    except ValueError as error:  # what Python says of a whole number it does not read
        found = LONG_NUMBER.search(text)
        line = text.count("\n", 0, found.start() if found else 0) + 1
        raise _whole_number_too_long(text, f"{file.name} line {line}") from error
    except RecursionError as error:
        raise DataError(f"{file.name} is nested too deeply to be rows of JSON.") from error


def read_json_rows(file: FileContent) -> list[tuple[str, Row]]:
    """The objects of a JSON list or of JSON lines, each with its place for errors.

    Returns:
        (place, row), where the place reads "val.json row 3" or "val.jsonl line 3", from 1.

    Raises:
        DataError: the file is not JSON, is cut off, holds no rows, or a row is not an object.
    """
    if file.content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        found = read_json(file)
        rows = [(f"{file.name} row {number}", row) for number, row in enumerate(found, 1)]
    else:
        lines = enumerate(decoded(file.content, file.name).split("\n"), 1)
        rows = [_line(f"{file.name} line {number}", line) for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{file.name} holds no rows. Expected JSON objects.")
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected a JSON object, found {_short(row)}.")
    return rows


def value_of(row: Row, key: str, place: str, expected: tuple[str, ...]) -> Any:
    """A value of a row; DataError names the place if the key is missing."""
    if key not in row:
        raise DataError(
            f"{place}: '{key}' is missing; found {', '.join(map(str, row)) or 'no keys'}. Expected "
            f"{', '.join(expected)}."
        )
    return row[key]


def text_of(value: Any, key: str, place: str) -> str:
    """A non-empty text without blanks around it, or a DataError that names key and place."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: '{key}' holds {_short(value)}; expected a text.")
    if HALF.search(value):
        raise DataError(f"{place}: '{key}' holds half a character in {_short(value)}.")
    return value.strip()


def texts_of(value: Any, key: str, place: str, separator: str | None = None) -> list[str]:
    """A list of non-empty texts, given as a list or, with a separator, as one text: joined by it,
    or as Python and JSON write a list of texts."""
    if isinstance(value, str) and separator is not None:
        written = _written_list(value.strip(), key, place)
        joined = value.split(separator) if value.strip() else []
        value = joined if written is None else written
    if not isinstance(value, list):
        joined = f" or a text joined by '{separator}'" if separator else ""
        raise DataError(f"{place}: '{key}' is {_short(value)}; expected a list of texts{joined}.")
    return [text_of(entry, key, place) for entry in value]


def _written_list(text: str, key: str, place: str) -> list[str] | None:
    """The texts of "['A', 'B']"; None where a text is no list written so ("[REC]" is a title)."""
    if text == "[]":
        return []
    if not LIST.match(text):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if isinstance(found, list) and all(isinstance(entry, str) for entry in found):
        forms = (str(found), json.dumps(found), json.dumps(found, ensure_ascii=False))
        if "".join(text.split()) in ["".join(form.split()) for form in forms]:
            return found
    raise DataError(
        f"{place}: '{key}' holds {_short(text)}, a list written as text that cannot be read for "
        "certain. Expected a list of texts; write it as JSON."
    )


def _whole_number_too_long(text: str, place: str) -> DataError:
    found = LONG_NUMBER.search(text)
    return DataError(
        f"{place}: a whole number has {len(found[0]) if found else 'thousands of'} digits. "
        f"Expected at most {MOST_DIGITS:,}; fix or delete the row."
    )


class _TwiceError(Exception):
    """A key stands twice in one object, so that one of its values would be lost."""


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"the key {twice!r:.60} stands twice in one object. Expected each once.")
    return found


def _line(place: str, line: str) -> tuple[str, Any]:
    try:
        return place, json.loads(line, object_pairs_hook=_object)
    except _TwiceError as error:
        raise DataError(f"{place}: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{place}: not valid JSON ({getattr(error, 'msg', error)}). Expected one JSON object "
            "on each line, or one list of them. Fix or delete the line; if it is the last, the "
            "file may be cut off."
        ) from error
    except ValueError as error:  # what Python says of a whole number it does not read
        raise _whole_number_too_long(line, place) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
