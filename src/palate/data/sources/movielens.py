"""MovieLens as GroupLens publishes it: a folder, or the zip just as downloaded."""

from pathlib import Path

import pyarrow as pa

from palate.data.reading import member_names, read_delimited, read_members, sha256
from palate.data.tables import SourceTables
from palate.errors import DataError

INTERACTIONS = ["user_id", "item_id", "rating", "timestamp"]
ITEMS = ["item_id", "title", "genres"]
RATINGS = {
    "userId": pa.int64(),
    "movieId": pa.int64(),
    "rating": pa.float64(),
    "timestamp": pa.int64(),
}
MOVIES = {"movieId": pa.int64(), "title": pa.string(), "genres": pa.string()}
LAYOUTS = {
    "ratings.csv": ("ratings.csv", "movies.csv"),
    "ratings.dat": ("ratings.dat", "movies.dat"),
    "u.data": ("u.data", "u.item", "u.genre"),
}
EXPECTED = (
    "a folder or zip of MovieLens: ratings.csv and movies.csv (latest, 20M, 25M, 32M), ratings.dat "
    "and movies.dat (1M, 10M), or u.data, u.item and u.genre (100K)"
)


def movielens(path: str | Path) -> SourceTables:
    """Ratings and titles of any MovieLens release: 100K, 1M, 10M, 20M, 25M, 32M or latest.

    Args:
        path: a folder or zip with `ratings.csv` and `movies.csv`, with `ratings.dat` and
            `movies.dat`, or with `u.data`, `u.item` and `u.genre`. Ratings are 0.5–5.0 (1–5 up
            to 1M), timestamps Unix seconds.

    Raises:
        DataError: none of the layouts is there, or a file or column is missing, damaged or not
            numeric where it must be.
    """
    names = member_names(Path(path), EXPECTED)
    layout = next((files for first, files in LAYOUTS.items() if first in names), None)
    if layout is None:
        found = ", ".join(names[:8]) or "no files"
        raise DataError(f"{path} holds {found}. Expected {EXPECTED}.")
    files = read_members(Path(path), layout)
    ratings, movies, *_ = files.values()
    if layout[0] == "ratings.csv":
        log = read_delimited(ratings, "ratings.csv", RATINGS)
        items = read_delimited(movies, "movies.csv", MOVIES)
    elif layout[0] == "ratings.dat":
        log = _with_tabs(ratings.replace(b"::", b"\t"), "ratings.dat")
        items = _movies(movies)
    else:
        log = _with_tabs(ratings, "u.data")
        items = _films(movies, _genre_names(files["u.genre"]))
    return SourceTables(
        interactions=log.rename_columns(INTERACTIONS),
        items=items.rename_columns(ITEMS),
        origin={
            "source": "movielens",
            "path": str(path),
            "sha256": {name: sha256(content) for name, content in files.items()},
        },
    )


def _with_tabs(content: bytes, name: str) -> pa.Table:
    return read_delimited(content, name, RATINGS, "\t", header=False, may_quote=False)


def _movies(content: bytes) -> pa.Table:
    """`movies.dat`: id::title::genres, where a title may itself hold colons."""
    rows = []
    for number, line in _lines(content):
        first, _, rest = line.partition("::")
        title, separator, genres = rest.rpartition("::")
        if not separator:
            raise DataError(
                f"movies.dat line {number}: {line!r} is not id::title::genres. Fix the line."
            )
        rows.append((_id_of(first, f"movies.dat line {number}"), title, genres))
    return _table(rows)


def _films(content: bytes, genres: list[str]) -> pa.Table:
    """`u.item`: id|title|release date|video date|URL| and a flag for each genre."""
    rows = []
    for number, line in _lines(content):
        parts = line.split("|")
        flags = parts[len(parts) - len(genres) :]
        if len(parts) < 5 + len(genres) or not set(flags) <= {"0", "1"}:
            raise DataError(
                f"u.item line {number}: expected id|title|release date|video date|URL| and "
                f"{len(genres)} genre flags of 0 or 1, found {line[:60]!r}. Fix the line."
            )
        title = "|".join(parts[1 : len(parts) - len(genres) - 3])
        named = [name for name, flag in zip(genres, flags, strict=True) if flag == "1"]
        rows.append((_id_of(parts[0], f"u.item line {number}"), title, "|".join(named)))
    return _table(rows)


def _genre_names(content: bytes) -> list[str]:
    """`u.genre`: name|place of its flag."""
    places = {}
    for number, line in _lines(content):
        name, _, place = line.rpartition("|")
        places[_id_of(place, f"u.genre line {number}")] = name
    if sorted(places) != list(range(len(places))):
        raise DataError(f"u.genre: places {sorted(places)}. Expected name|place, from 0 upwards.")
    return [places[place] for place in range(len(places))]


def _lines(content: bytes) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers; 10M is UTF-8, what came before is Latin-1."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
    return [(number, line) for number, line in lines if line.strip()]


def _id_of(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise DataError(f"{place}: {text!r} is not a whole number. Fix the line.") from error


def _table(rows: list[tuple[int, str, str]]) -> pa.Table:
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(MOVIES)})
