"""Candidate files as an audit reads them: JSON as the source `candidate_file` does, and tables."""

import json
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate.data.reading import (
    Delimited,
    place_of,
    read_file,
    read_json_rows,
    require_columns,
    text_of,
    texts_of,
)
from palate.data.sources import load
from palate.data.sources.candidate_file import KEYS, SPLIT_NAMES, split_of
from palate.data.tables import SourceTables
from palate.errors import DataError, DataWarning

ROWS_FILE = re.compile(r"\.(jsonl?|csv|tsv)(\.gz)?$|\.parquet$", re.IGNORECASE)
JSON = re.compile(r"\.jsonl?(\.gz)?$", re.IGNORECASE)


class Repeats(NamedTuple):
    """Titles that stand twice in one list.

    Attributes:
        repeated: (lists,) whether a list has such titles.
        answer: (lists,) whether its answer is one of them.
        by_chance: (lists,) how likely that would be if they had nothing to do with the answer.
    """

    repeated: NDArray[np.bool_]
    answer: NDArray[np.bool_]
    by_chance: NDArray[np.float64]


def is_rows_file(file: Path) -> bool:
    """Whether a file's name is that of candidate rows."""
    return file.is_file() and ROWS_FILE.search(file.name) is not None


def tables_of_rows(path: Path, options: dict[str, Any]) -> tuple[SourceTables, Repeats]:
    """Tables of candidate files, and the titles they list twice.

    CSV, TSV and Parquet have the columns historyList, itemList and trueSelection; titles are joined
    by "::", or are lists in Parquet.

    Args:
        path: a file, or a folder with a file for each split, told from their names.
        options: options of the source `candidate_file`.

    Raises:
        DataError: a file cannot be read or lacks a column.
    """
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    named = {str(options[split]) for split in SPLIT_NAMES if split in options}
    files = [
        file
        for file in inside
        if is_rows_file(file)
        and (not path.is_dir() or file.name in named or (not named and split_of(file.name)))
    ]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as temporary:
        warnings.simplefilter("ignore", DataWarning)  # repeated titles are told by a probe
        if all(JSON.search(file.name) for file in files):
            return load("candidate_file", {"path": str(path), **options}), repeats_of(files)
        folder = Path(temporary)
        written = [_as_json(file, folder) for file in files]
        if "items" in options:
            around = path if path.is_dir() else path.parent
            options = {**options, "items": str(place_of(options["items"], around).resolve())}
        one = folder if path.is_dir() else written[0]
        tables = load("candidate_file", {"path": str(one), **options})
        return tables, repeats_of(written)


def repeats_of(files: Iterable[Path]) -> Repeats:
    """Find the titles that candidate files list twice."""
    answer, by_chance = [], []
    for file in files:
        for place, row in read_json_rows(read_file(file, "JSON rows of candidates")):
            if KEYS[1] not in row:
                continue
            shown = Counter(texts_of(row[KEYS[1]], KEYS[1], place, "::"))
            twice = {title for title, count in shown.items() if count > 1}
            answer.append(text_of(row[KEYS[2]], KEYS[2], place) in twice)
            by_chance.append(len(twice) / len(shown))
    likely = np.array(by_chance, float)
    return Repeats(likely > 0, np.array(answer, bool), likely)


def _as_json(file: Path, folder: Path) -> Path:
    """A table of candidate rows as lines of JSON, its name kept in the new one's."""
    if JSON.search(file.name):
        content = read_file(file, "JSON rows of candidates").content
    else:
        rows = _table(file).to_pylist()
        content = "\n".join(json.dumps(row) for row in rows).encode()
    copy = folder / f"{file.name.partition('.')[0]}.jsonl"
    copy.write_bytes(content)
    return copy


def _table(file: Path) -> pa.Table:
    if file.suffix.lower() == ".parquet":
        try:
            _require_keys(pq.read_schema(file).names, file.name)
            return pq.read_table(file, columns=list(KEYS))
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{file} cannot be read as parquet: {error}. Save the rows anew."
            ) from error
    text = read_file(file, "candidate rows")
    delimiter = "\t" if ".tsv" in file.name.lower() else ","
    rows = Delimited(text.content, file.name, delimiter)
    _require_keys(rows.header, file.name)
    table, ragged = rows.as_text(list(KEYS))
    if ragged:
        raise DataError(
            f"{file.name}: {ragged} lines have more or fewer values than the first line has names. "
            "Fix or delete them."
        )
    return table


def _require_keys(found: list[str], name: str) -> None:
    """DataError, with what to type for a log, unless these are the columns of candidate rows."""
    try:
        require_columns(list(KEYS), found, name)
    except DataError as error:
        raise DataError(f"{error} A log is read with --source files.") from error
