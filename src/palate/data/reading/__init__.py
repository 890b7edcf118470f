"""Reading files people bring: whole, with their hash, and with errors that name the line."""

from palate.data.reading.delimited import Delimited, read_delimited, require_columns
from palate.data.reading.json_rows import read_json, read_json_rows, text_of, texts_of, value_of
from palate.data.reading.members import (
    FileContent,
    decoded,
    files_named,
    find_file,
    listed,
    member_names,
    place_of,
    read_file,
    read_members,
    sha256,
)

__all__ = [
    "Delimited",
    "FileContent",
    "decoded",
    "files_named",
    "find_file",
    "listed",
    "member_names",
    "place_of",
    "read_delimited",
    "read_file",
    "read_json",
    "read_json_rows",
    "read_members",
    "require_columns",
    "sha256",
    "text_of",
    "texts_of",
    "value_of",
]
