"""Writing files whole or not at all, and knowing them again by their hash."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends without error.

    Works for files and folders alike. A folder replaces a folder; a file never does, as people name
    a folder by mistake.

    Raises:
        IsADirectoryError: a file should take the place of a folder.
        OSError: the disk is full or cannot be written to; names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            if not temporary.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            shutil.rmtree(path)
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None  # a full disk names no file
        raise
    finally:
        _remove(temporary)


def by_name(path: Path) -> Path:
    """A path that ends in a name: "." and ".." become the folders that they mean."""
    return path if path.name not in ("", "..") else Path(os.path.abspath(path))


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A second name for a file, or a copy of it where the disk gives none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(content: Any, path: Path) -> None:
    """Write indented JSON whole or not at all; NaN is refused, as JSON has none."""
    write_text(json.dumps(content, indent=2, allow_nan=False, default=str) + "\n", path)


def write_table(table: pa.Table, path: Path) -> str:
    """Write Parquet whole or not at all; returns the file's SHA-256."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
