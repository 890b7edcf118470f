# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Reading delimited text, from a folder or out of a zip, with errors that name the line."""

import hashlib
import io
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from palate.errors import DataError

KINDS = {pa.int64(): "a whole number", pa.float64(): "a number", pa.string(): "text"}


def read_members(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The named files of a folder or of a zip, as bytes. Nothing is unpacked to disk.

    Args:
        path: a folder holding the files, or a zip that holds them at any depth.
        names: file names without folders, each to be found exactly once.

    Raises:
        DataError: the path or a file is missing, or the zip is damaged or unsafe.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected a folder or zip with {', '.join(names)}.")
    if path.is_dir():
        return {name: _read(path / name, path, names) for name in names}
    try:
        with zipfile.ZipFile(path) as archive:
            return _members_of(archive, path, names)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise DataError(
            f"{path} is not a complete zip file ({error}). Download it again, or give a folder "
            f"with {', '.join(names)}."
        ) from error


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def read_delimited(content: bytes, name: str, columns: dict[str, pa.DataType]) -> pa.Table:
    """Parse comma-separated text with a header into typed columns.

    Args:
        content: the file, UTF-8.
        name: what to call the file in errors.
        columns: the columns wanted and their types (int64, float64 or string).

    Raises:
        DataError: a column is missing, or a value is not of its type; the line is named.
    """
    header = content.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()
    found = [part.strip().strip('"') for part in header.split(",")]
    for column in columns:
        if column not in found:
            raise DataError(
                f"{name}: column '{column}' is missing; the first line has {', '.join(found)}. "
                f"Expected {', '.join(columns)}."
            )
    parse = pcsv.ParseOptions(newlines_in_values=pa.string() in columns.values())
    names = pcsv.ReadOptions(column_names=found, skip_rows=1)
    convert = pcsv.ConvertOptions(
        include_columns=list(columns), column_types=columns, strings_can_be_null=False
    )
    try:
        return pcsv.read_csv(io.BytesIO(content), names, parse, convert)
    except pa.ArrowInvalid as error:
        raise _first_bad_value(content, name, columns, names, parse, error) from error


def _first_bad_value(
    content: bytes,
    name: str,
    columns: dict[str, pa.DataType],
    names: pcsv.ReadOptions,
    parse: pcsv.ParseOptions,
    error: pa.ArrowInvalid,
) -> DataError:
    as_text = pcsv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    try:
        table = pcsv.read_csv(io.BytesIO(content), names, parse, as_text)
    except pa.ArrowInvalid as unreadable:
        return DataError(f"{name}: {unreadable}. Expected lines with {', '.join(columns)}.")
    pattern = {pa.int64(): r"^\s*[+-]?\d+\s*$", pa.float64(): r"^\s*[+-]?[\d.]+(e[+-]?\d+)?\s*$"}
    for column, kind in columns.items():
        if kind not in pattern:
            continue
        good = pc.match_substring_regex(table[column], pattern[kind], ignore_case=True)
        row = pc.index(good, False).as_py()
        if row >= 0:
            value = table[column][row].as_py()
            return DataError(
                f"{name} line {row + 2}: {column} {value!r} is not {KINDS[kind]}. "
                "Mend or delete the line."
            )
    return DataError(f"{name}: {error}")


def _read(file: Path, folder: Path, names: tuple[str, ...]) -> bytes:
    if not file.is_file():
        raise DataError(f"{folder} has no file {file.name}. Expected {', '.join(names)} in it.")
    return file.read_bytes()


def _members_of(archive: zipfile.ZipFile, path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    members = archive.namelist()
    for member in members:
        inside = PurePosixPath(member.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts:
            raise DataError(
                f"{path} holds a member named '{member}', which points outside the archive. "
                "Do not use this file; download it again from its publisher."
            )
    contents = {}
    for name in names:
        matching = [member for member in members if PurePosixPath(member).name == name]
        if len(matching) != 1:
            raise DataError(f"{path} holds {len(matching)} files named {name}; expected one.")
        contents[name] = archive.read(matching[0])
    return contents
