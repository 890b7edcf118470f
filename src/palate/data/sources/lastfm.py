"""Last.fm artist sequences, with the evaluation windows of LLaRA and of S-DPO."""

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from palate.data.reading import (
    FileContent,
    find_file,
    read_delimited,
    read_file,
    read_json_rows,
    value_of,
)
from palate.data.sources.candidate_file import read_windows
from palate.data.sources.titles import Titles, ids_by_title
from palate.data.sources.windows import Window, window_tables
from palate.data.tables import SourceTables
from palate.errors import DataError

ARTISTS = {"item_id": pa.int64(), "artist": pa.string()}
ALIASES = {"Florence and the Machine": "Florence + the Machine", "Plus 44": "+44"}
"""Artists that the S-DPO files spell otherwise than items.tsv."""
WINDOW_FILES = {
    "llara": {"validation": "llara_val.jsonl", "test": "llara_test.jsonl"},
    "sdpo": {"validation": "sdpo_val.json", "test": "sdpo_test.json"},
}


def lastfm(path: str | Path, windows: Literal["llara", "sdpo"] = "llara") -> SourceTables:
    """Last.fm artist sequences (HetRec 2011) with the windows of LLaRA or S-DPO.

    Training users keep their whole sequence; each window for validation and test is a user of
    its own.

    Args:
        path: a folder with `items.tsv` (item_id, artist), `train_sequences.jsonl` (user, items)
            and the window files; each may end in .gz.
        windows: "llara": `llara_val.jsonl`, `llara_test.jsonl` (history, next), one for each
            held-out user, without candidate lists; "sdpo": `sdpo_val.json`, `sdpo_test.json`,
            consecutive windows with 20 candidates each.

    Raises:
        DataError: a file is missing or not whole, or a row is not of this form.
    """
    artists = _read(path, "items.tsv")
    table = read_delimited(artists.content, artists.name, ARTISTS, "\t", may_quote=False)
    items = table.rename_columns(["item_id", "title"])
    training = _read(path, "train_sequences.jsonl")
    rows = read_json_rows(training)
    users, consumed = [], []
    for place, row in rows:
        user, sequence = (value_of(row, key, place, ("user", "items")) for key in ("user", "items"))
        ids = _ids(sequence, "items", place)
        users += _ids([user], "user", place) * len(ids)
        consumed += ids
    files = {split: _read(path, name) for split, name in WINDOW_FILES[windows].items()}
    titles = Titles(
        ids_by_title(items, artists.name), ALIASES, hint=lambda *_: "Add it to items.tsv."
    )
    held_out = [
        (split, window)
        for split, file in files.items()
        for window in (_windows(file) if windows == "llara" else read_windows(file, titles))
    ]
    of_windows, lists = window_tables(held_out, first_user=max(users) + 1)
    of_training = pa.table({"user_id": users, "item_id": consumed, "split": ["train"] * len(users)})
    return SourceTables(
        interactions=pa.concat_tables([of_training, of_windows]),
        items=items,
        origin={
            "source": "lastfm",
            "path": str(path),
            "options": {"windows": windows},
            "sha256": {file.name: file.sha256 for file in (artists, training, *files.values())},
        },
        lists=lists,
        ordered=True,
    )


def _windows(file: FileContent) -> list[Window]:
    keys = ("history", "next")
    windows = []
    for place, row in read_json_rows(file):
        history, following = (value_of(row, key, place, keys) for key in keys)
        (answer,) = _ids([following], "next", place)
        windows.append(Window(_ids(history, "history", place), answer))
    return windows


def _ids(value: Any, key: str, place: str) -> list[int]:
    if not isinstance(value, list) or not value or not all(type(one) is int for one in value):
        raise DataError(
            f"{place}: '{key}' is {str(value)[:60]!r}. Expected item ids, whole numbers, at least "
            "one."
        )
    return value


def _read(folder: str | Path, name: str) -> FileContent:
    return read_file(find_file(folder, name), f"the file {name} of the Last.fm sequences")
