"""Files as bytes: plain, gzipped, in a folder or out of a zip. Nothing is unpacked to disk."""

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from palate.errors import DataError

UTF_16 = b"\xff\xfe", b"\xfe\xff"
"""How UTF-16 begins."""
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
FOREIGN = {
    b"PK\x03\x04": ("a zip archive (so are Excel's workbooks)", "Unpack it, or save it as CSV"),
    b"BZh91AY&SY": ("compressed by bzip2", "Decompress it with bunzip2"),
    b"\xfd7zXZ\x00": ("compressed by xz", "Decompress it with unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "Decompress it with unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "Unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "Save it as CSV"),
    b"ARROW1\0\0": ("an Arrow or Feather file", "Write it as Parquet"),
    b"SQLite format 3": ("an SQLite database", "Export its table as CSV"),
}
"""How files begin that are not read, what they are, and what to do."""


@dataclass(frozen=True)
class FileContent:
    """A file that was read.

    Attributes:
        name: the file's name, for errors and the manifest.
        content: its bytes, decompressed.
        sha256: hexadecimal SHA-256 of the file as it is stored.
    """

    name: str
    content: bytes
    sha256: str


def read_file(path: str | Path, expected: str) -> FileContent:
    """Read one file whole; what gzip compressed is decompressed, whatever its name.

    Args:
        path: the file.
        expected: what the file should be, for errors: "a .csv file of interactions".

    Raises:
        DataError: the file is missing, unreadable, empty or not whole.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}. Expected {expected}.")
    try:
        stored = path.read_bytes()
        zipped = stored.startswith(GZIP) or path.suffix.lower() == ".gz"
        content = gzip.decompress(stored) if zipped else stored
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is not a complete gzip file ({_plain(error)}). Download it again, or "
            f"decompress it yourself and drop the .gz. Expected {expected}."
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Expected {expected}."
        ) from error
    if not content.strip():
        raise DataError(f"{path} is empty. Expected {expected}.")
    for beginning, (what, remedy) in FOREIGN.items():
        if content.startswith(beginning):
            raise DataError(f"{path} is {what}. Expected {expected}. {remedy}.")
    return FileContent(path.name, content, sha256(stored))


def find_file(folder: str | Path, name: str) -> Path:
    """A file of a folder by name, plain or with .gz behind it; DataError if there is neither."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}. Expected a folder with {name} or {name}.gz.")
    if found := files_named(folder, name):
        return found[0]
    raise DataError(
        f"{folder} has no file {name}; found {listed(folder)}. Expected {name} or {name}.gz in it."
    )


def files_named(folder: Path, name: str) -> list[Path]:
    """The files of a folder with a name, plain or with .gz behind it, or so in capitals."""
    wanted = name, f"{name}.gz"
    files = sorted(file for file in folder.iterdir() if file.is_file())
    exact = [file for file in files if file.name in wanted]
    return exact or [file for file in files if file.name.lower() in wanted]


def place_of(name: str | Path, folder: Path) -> Path:
    """Where a file given as an option lies: in the folder of the data, or at the path as given."""
    inside = folder / Path(name).expanduser()
    return inside if inside.exists() else Path(name).expanduser()


def listed(folder: Path, most: int = 8) -> str:
    """The files of a folder, for errors."""
    names = sorted(entry.name for entry in folder.iterdir())
    shown = names[:most] + ["…"] * (len(names) > most)
    return ", ".join(shown) or "nothing"


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def decoded(content: bytes, name: str) -> str:
    """UTF-8 bytes as text, without a byte order mark; DataError names the first bad line."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content[:2] in UTF_16:
            raise DataError(f"{name} is UTF-16. Expected UTF-8; save it as UTF-8.") from error
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name} line {line}: byte 0x{content[error.start]:02x} is not UTF-8. Save the file "
            f"as UTF-8, for instance with iconv -f latin1 -t utf-8 {name} -o utf8-{name}."
        ) from error


def member_names(path: Path, expected: str) -> list[str]:
    """Names, without folders, of the files in a folder or anywhere in a zip."""
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected {expected}.")
    if path.is_dir():
        return sorted(entry.name for entry in path.iterdir() if entry.is_file())
    with _opened(path, expected) as archive:
        return [PurePosixPath(member).name for member in archive.namelist()]


def read_members(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The named files of a folder or of a zip, as bytes.

    Args:
        path: a folder holding the files, or a zip that holds them at any depth.
        names: file names without folders, each to be found exactly once.

    Raises:
        DataError: the path or a file is missing, or the zip is damaged or unsafe.
    """
    path = Path(path).expanduser()
    expected = f"a folder or zip with {', '.join(names)}"
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected {expected}.")
    if path.is_dir():
        return {name: _read(path / name, path, names) for name in names}
    with _opened(path, expected) as archive:
        return _members_of(archive, path, names)


@contextmanager
def _opened(path: Path, expected: str) -> Iterator[zipfile.ZipFile]:
    damage = zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except damage as error:
        raise DataError(
            f"{path} is not a complete zip file ({_plain(error)}). Download it again, or give "
            f"{expected}."
        ) from error


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


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
