"""Files that cannot be read or written, as a sentence: full, read-only, forbidden, gone."""

import errno
import os
import re
from collections.abc import Iterator

FAULTS = {
    errno.ENOSPC: "Make room on the disk, or choose another with --out",
    errno.EDQUOT: "Make room in your quota, or choose another place with --out",
    errno.EFBIG: "Choose a disk that takes larger files, or raise the limit (ulimit -f)",
    errno.EROFS: "Choose a place that can be written to",
    errno.EACCES: "Choose another place, or get the permission",
    errno.EPERM: "Choose another place, or get the permission",
    errno.EIO: "Look after the disk, or choose another",
    errno.ENOTDIR: "Choose another place",
    errno.EISDIR: "Give a file",
    errno.ENOTEMPTY: "Choose another place",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "Choose another place",
    errno.ENOENT: "Look at the path",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
}
"""Errors of the system that are no bug of Palate's → what to do."""
WORDS = {
    "No space left on device": errno.ENOSPC,
    "disk is full": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "readonly database": errno.EROFS,
    "Permission denied": errno.EACCES,
}
"""How libraries that raise errors of their own spell them (safetensors, DuckDB, SQLite)."""
NUMBERED = re.compile(r"\(os error (\d+)\)")
HALF_WRITTEN = re.compile(r"iostream error|PytorchStreamWriter failed|inline_container")
"""What torch says where a file could not be written to its end; it tells no reason."""


def storage_fault(error: BaseException) -> str | None:
    """What is wrong with a file or disk behind an error, and what to do; None for other errors."""
    half_written = False
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in FAULTS:
            place = one.filename2 or one.filename
            is_named = isinstance(place, str | bytes | os.PathLike)
            where = f"{os.fsdecode(place)}: " if is_named else ""
            return f"{where}{os.strerror(one.errno)}. {FAULTS[one.errno]}."
        text = str(one)
        code = next((code for words, code in WORDS.items() if words in text), None)
        if (numbered := NUMBERED.search(text)) and int(numbered[1]) in FAULTS:
            code = int(numbered[1])
        if code is not None and not isinstance(one, OSError):
            return f"{os.strerror(code)}. {FAULTS[code]}."
        half_written |= isinstance(one, RuntimeError) and HALF_WRITTEN.search(text) is not None
    if half_written:
        return f"a file could not be written to its end. {FAULTS[errno.ENOSPC]}."
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
