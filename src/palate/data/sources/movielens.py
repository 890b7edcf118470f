"""MovieLens as GroupLens publishes it: a folder, or the zip just as downloaded."""

from pathlib import Path

import pyarrow as pa

from palate.data.reading import read_delimited, read_members, sha256
from palate.data.tables import SourceTables

RATINGS = {
    "userId": pa.int64(),
    "movieId": pa.int64(),
    "rating": pa.float64(),
    "timestamp": pa.int64(),
}
MOVIES = {"movieId": pa.int64(), "title": pa.string(), "genres": pa.string()}


def movielens(path: str | Path) -> SourceTables:
    """Ratings and titles of ml-latest-small, or any release in its layout.

    Args:
        path: a folder or zip with `ratings.csv` (userId, movieId, rating 0.5–5.0, timestamp in
            Unix seconds) and `movies.csv` (movieId, title, genres).

    Raises:
        DataError: a file or column is missing, damaged or not numeric where it must be.
    """
    files = read_members(Path(path), ("ratings.csv", "movies.csv"))
    ratings = read_delimited(files["ratings.csv"], "ratings.csv", RATINGS)
    movies = read_delimited(files["movies.csv"], "movies.csv", MOVIES)
    return SourceTables(
        interactions=ratings.rename_columns(["user_id", "item_id", "rating", "timestamp"]),
        items=movies.rename_columns(["item_id", "title", "genres"]),
        origin={
            "source": "movielens",
            "path": str(path),
            "sha256": {name: sha256(content) for name, content in files.items()},
        },
    )
