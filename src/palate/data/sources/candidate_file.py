"""Candidate files: a history, a list of titles and the one that was chosen, in JSON."""

import json
import re
import shlex
import warnings
from pathlib import Path

from palate.data.reading import (
    FileContent,
    listed,
    place_of,
    read_file,
    read_json_rows,
    text_of,
    texts_of,
    value_of,
)
from palate.data.reading.bad_rows import OnBadRows, read_each
from palate.data.reading.json_rows import Row
from palate.data.sources.item_table import marks_said, read_items
from palate.data.sources.titles import Titles, ids_by_title, items_of_titles
from palate.data.sources.windows import Window, window_tables
from palate.data.tables import SourceTables
from palate.errors import ConfigError, DataError, DataWarning

KEYS = ("historyList", "itemList", "trueSelection")
TITLE_NAMES = ("title", "artist")
"""What the column of titles may be called in a catalogue."""


def hint(title: str, nearest: str) -> str:
    """What to type about a title that the catalogue lacks."""
    said = json.dumps({title: nearest}, ensure_ascii=False)
    return (
        "Expected a title of the items file; say which one is meant with --set "
        f"{shlex.quote(f'data.aliases={said}')}."
    )


SPLIT_NAMES = {"train": r"train", "validation": r"val", "test": r"test"}
"""How the name of a file tells its split: a word that begins so."""
JSON = re.compile(r"\.jsonl?(\.gz)?$", re.IGNORECASE)


def candidate_file(
    path: str | Path,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    items: str | None = None,
    aliases: dict[str, str] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> SourceTables:
    """Ready-made candidate lists: JSON rows with historyList, itemList and trueSelection.

    Each row becomes a user of its own, its list becomes `lists`; a file may do without itemList.
    The form is that of the files published with LLaRA (arXiv 2312.02445) and S-DPO
    (arXiv 2406.09215).

    Args:
        path: a folder with the files, or one file (its split told from its name, otherwise test).
        train: name of the training file (.json or .jsonl, .gz allowed); by default the one whose
            name has a word that begins with "train"; validation and test likewise.
        validation: name of the validation file ("val").
        test: name of the test file ("test").
        items: .csv, .tsv or .parquet with the catalogue's titles, in a column title or artist;
            without one the catalogue is every title that occurs.
        aliases: title as the rows spell it → title in the catalogue.
        on_bad_rows: "error" stops at the first row that is wrong; "drop" leaves such rows out and
            counts them.

    Raises:
        DataError: a file is missing or not whole, or a row lacks a key, has no history, does not
            list its answer, or names a title that the catalogue lacks.
        ConfigError: a file is named although `path` is a file already.
    """
    files = _files(
        Path(path).expanduser(), {"train": train, "validation": validation, "test": test}
    )
    contents = [read_file(file, "JSON rows of candidates") for file in files.values()]
    hashes = {file.name: file.sha256 for file in contents}
    folder = next(iter(files.values())).parent
    catalogue, marks = None, {}
    if items is not None:
        items_file = read_file(place_of(items, folder), "a file of titles (.csv, .tsv or .parquet)")
        hashes[items_file.name] = items_file.sha256
        catalogue = read_items(items_file, {}, numbered=True, title_names=TITLE_NAMES)
        marks = marks_said(items_file)
    known = {} if catalogue is None else ids_by_title(catalogue, str(items))
    titles = Titles(known, aliases or {}, grows=catalogue is None, hint=hint)
    windows, dropped = [], 0
    for split, file in zip(files, contents, strict=True):
        found, bad = readable_windows(file, titles, on_bad_rows)
        windows += [(split, window) for window in found]
        dropped += bad
    interactions, lists = window_tables(windows)
    return SourceTables(
        interactions=interactions,
        items=items_of_titles(titles.ids) if catalogue is None else catalogue,
        origin={
            "source": "candidate_file",
            "path": str(path),
            "options": {
                "files": {split: file.name for split, file in files.items()},
                "items": items,
                "aliases": aliases or {},
                "on_bad_rows": on_bad_rows,
            },
            "rows_dropped": dropped,
            "sha256": hashes,
            **marks,
        },
        lists=lists,
        ordered=True,
    )


def read_windows(file: FileContent, titles: Titles) -> list[Window]:
    """The windows of one candidate file, their titles turned into item ids.

    Raises:
        DataError: names file, row and key of the first row that is wrong.
    """
    return readable_windows(file, titles, "error")[0]


def readable_windows(
    file: FileContent, titles: Titles, on_bad_rows: OnBadRows
) -> tuple[list[Window], int]:
    """`read_windows`, and how many rows were dropped; their titles are no items."""
    rows = read_json_rows(file)
    with_lists = [KEYS[1] in row for _, row in rows]
    if any(with_lists) and not all(with_lists):
        place = rows[with_lists.index(False)][0]
        raise DataError(
            f"{place}: '{KEYS[1]}' is missing, though other rows have it. Expected it "
            "in all rows of a file or in none."
        )

    def read(row: Row, place: str) -> Window:
        with titles.all_or_none():
            return _window(row, place, titles)

    windows, dropped = read_each(rows, read, on_bad_rows, file.name)
    if repeated := sum(_repeats(window) for window in windows):
        warnings.warn(
            DataWarning(
                f"{file.name}: {repeated} of {len(rows)} rows list a title twice; its second "
                "place was left out."
            ),
            stacklevel=2,
        )
        windows = [
            Window(window.history, window.answer, list(dict.fromkeys(window.candidates or ())))
            for window in windows
        ]
    return windows, dropped


def _window(row: Row, place: str, titles: Titles) -> Window:
    keys = KEYS if KEYS[1] in row else (KEYS[0], KEYS[2])
    read = {key: value_of(row, key, place, keys) for key in keys}
    history = texts_of(read[KEYS[0]], KEYS[0], place, "::")
    if not history:
        raise DataError(f"{place}: '{KEYS[0]}' is empty. Expected at least one title.")
    answer = titles.id_of(text_of(read[KEYS[2]], KEYS[2], place), f"{place}, {KEYS[2]}")
    ids = [titles.id_of(title, f"{place}, {KEYS[0]}") for title in history]
    if KEYS[1] not in read:
        return Window(ids, answer)
    shown = texts_of(read[KEYS[1]], KEYS[1], place, "::")
    candidates = [titles.id_of(title, f"{place}, {KEYS[1]}") for title in shown]
    if answer not in candidates:
        raise DataError(
            f"{place}: '{KEYS[2]}' is {read[KEYS[2]]!r}, which '{KEYS[1]}' does not hold. Expected "
            "the chosen title among the listed ones; fix or delete the row."
        )
    return Window(ids, answer, candidates)


def _repeats(window: Window) -> bool:
    return window.candidates is not None and len(set(window.candidates)) < len(window.candidates)


def split_of(name: str) -> str | None:
    """The split that a file's name tells, or None if it tells none or several."""
    told = [
        split
        for split, word in SPLIT_NAMES.items()
        if re.search(rf"(?<![A-Za-z]){word}", name, re.IGNORECASE)
    ]
    return told[0] if len(told) == 1 else None


def _files(path: Path, named: dict[str, str | None]) -> dict[str, Path]:
    """Split → file, in the order of the splits."""
    given = {split: name for split, name in named.items() if name is not None}
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected a folder of candidate files, or one.")
    if path.is_file():
        if given:
            option = next(iter(given))
            raise ConfigError(
                f"data.options.{option}: data.path {path} is a file already. Give its folder as "
                f"data.path, or leave '{option}' out."
            )
        return {split_of(path.name) or "test": path}
    if given:
        return {split: place_of(name, path) for split, name in given.items()}
    found: dict[str, list[Path]] = {split: [] for split in SPLIT_NAMES}
    for file in sorted(path.iterdir()):
        split = split_of(file.name)
        if split is not None and file.is_file() and JSON.search(file.name):
            found[split].append(file)
    for split, files in found.items():
        if len(files) > 1:
            raise DataError(
                f"{path}: {', '.join(file.name for file in files)} all look like the {split} file. "
                f"Name one with --set {shlex.quote(f'data.options.{split}={files[0].name}')}."
            )
    if not any(found.values()):
        raise DataError(
            f"{path} has no .json or .jsonl file named train, val or test; found {listed(path)}. "
            "Name one with --set data.options.test=FILE."
        )
    return {split: files[0] for split, files in found.items() if files}
