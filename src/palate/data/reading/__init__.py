"""Reading files people bring: whole, with their hash, and with errors that name the line."""

from palate.data.reading.delimited import (
    first_ragged_line,
    header_of,
    line_of_row,
    read_as_text,
    read_delimited,
    read_inferred,
)
from palate.data.reading.json_rows import read_json, read_json_rows, text_of, texts_of, value_of
from palate.data.reading.members import (
    FileContent,
    decoded,
    find_file,
    listed,
    member_names,
    place_of,
    read_file,
    read_members,
    sha256,
)

__all__ = [
    "FileContent",
    "decoded",
    "find_file",
    "first_ragged_line",
    "header_of",
    "line_of_row",
    "listed",
    "member_names",
    "place_of",
    "read_as_text",
    "read_delimited",
    "read_file",
    "read_inferred",
    "read_json",
    "read_json_rows",
    "read_members",
    "sha256",
    "text_of",
    "texts_of",
    "value_of",
]
