# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Amazon reviews as item sequences, the form in which sequence recommenders share them."""

import html
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.reading import Delimited, FileContent, files_named, find_file, read_file
from palate.data.sources.item_table import marks_said
from palate.data.tables import SourceTables
from palate.errors import DataError

SEQUENCES = {"user_id": pa.int64(), "item_ids": pa.string()}
GAPS = "gap_seconds"
ITEMS = {"item_id": pa.int64(), "asin": pa.string(), "title": pa.string()}
ATTRIBUTES = {"attribute_id": pa.int64(), "name": pa.string()}
IDS = r"^\d+( +\d+)*$"


def amazon(path: str | Path) -> SourceTables:
    """Amazon item sequences, such as Beauty 5-core: order and intervals without ratings or dates.

    Args:
        path: a folder with `sequences.tsv` (user_id; item_ids separated by blanks, oldest first;
            if known, as many gap_seconds since the item before), `items.tsv` (item_id, asin,
            title, attribute_ids) and, if there is one, `attributes.tsv` (attribute_id, name); each
            may end in .gz.

    Raises:
        DataError: a file or column is missing or damaged, or a sequence is not a list of ids.
    """
    folder = Path(path).expanduser()
    files = [_read(find_file(folder, f"{name}.tsv")) for name in ("sequences", "items")]
    sequences, items = files
    names: dict[str, str] | None = None
    if found := files_named(folder, "attributes.tsv"):
        files.append(_read(found[0]))
        table = _table(files[-1], ATTRIBUTES)
        ids = pc.cast(table["attribute_id"], pa.string()).to_pylist()
        names = dict(zip(ids, map(_plain, table["name"].to_pylist()), strict=True))
    return SourceTables(
        interactions=_interactions(sequences),
        items=_items(items, names),
        origin={
            "source": "amazon",
            "path": str(path),
            **marks_said(*files),
            "sha256": {file.name: file.sha256 for file in files},
        },
        ordered=True,
    )


def _interactions(file: FileContent) -> pa.Table:
    has_gaps = GAPS in _text(file).header
    table = _table(file, SEQUENCES | ({GAPS: pa.string()} if has_gaps else {}))
    lists = _numbers(file, table["item_ids"], "item_ids")
    users = table["user_id"].combine_chunks().take(pc.list_parent_indices(lists))
    columns = {"user_id": users, "item_id": pc.list_flatten(lists)}
    if has_gaps:
        gaps = _numbers(file, table[GAPS], GAPS)
        differs = pc.not_equal(pc.list_value_length(gaps), pc.list_value_length(lists))
        if (row := pc.index(differs, True).as_py()) >= 0:
            raise DataError(
                f"{file.name} line {_line(file, row)}: {GAPS} has {len(gaps[row])} numbers for "
                f"{len(lists[row])} items. Give one for each, 0 for the first, or take the "
                "column away."
            )
        columns["elapsed"] = _elapsed(gaps)
    return pa.table(columns)


def _elapsed(gaps: pa.ListArray) -> pa.Array:
    """Seconds since the first of each list of gaps, whose own gap says nothing."""
    total = np.cumsum(pc.list_flatten(gaps).to_numpy(zero_copy_only=False))
    lengths = pc.list_value_length(gaps).to_numpy(zero_copy_only=False)
    first = np.cumsum(lengths) - lengths
    return pa.array(total - np.repeat(total[first], lengths))


def _items(file: FileContent, names: dict[str, str] | None) -> pa.Table:
    wanted = ITEMS if names is None else ITEMS | {"attribute_ids": pa.string()}
    table = _table(file, wanted)
    columns = {"item_id": table["item_id"], "title": list(map(_plain, table["title"].to_pylist()))}
    columns["asin"] = table["asin"]
    if names is not None:
        columns["genres"] = _genres(file, table["attribute_ids"].to_pylist(), names)
    return pa.table(columns)


def _genres(file: FileContent, attributes: list[str], names: dict[str, str]) -> list[str]:
    genres = []
    for row, text in enumerate(attributes):
        unknown = next((one for one in text.split() if one not in names), None)
        if unknown is not None:
            raise DataError(
                f"{file.name} line {_line(file, row)}: attribute_ids names {unknown!r}, which "
                "attributes.tsv lacks. Add it there, or take attributes.tsv away to do without "
                "genres."
            )
        genres.append("|".join(names[one] for one in text.split()))
    return genres


def _numbers(file: FileContent, texts: pa.ChunkedArray, column: str) -> pa.ListArray:
    """Lists of whole numbers from texts that separate them by blanks."""
    row = pc.index(pc.match_substring_regex(texts, IDS), False).as_py()
    if row >= 0:
        raise DataError(
            f"{file.name} line {_line(file, row)}: {column} "
            f"{texts[row].as_py()[:60]!r} is not a list of whole numbers separated by blanks. Fix "
            "or delete the line."
        )
    lists = pc.split_pattern_regex(texts.combine_chunks(), " +")
    return pc.cast(lists, pa.list_(pa.int64()))


def _line(file: FileContent, row: int) -> int:
    return _text(file).line_of_row(row)


def _plain(title: str) -> str:
    return html.unescape(title).strip()


def _read(path: Path) -> FileContent:
    return read_file(path, "tab-separated text with a header")


def _table(file: FileContent, columns: dict[str, pa.DataType]) -> pa.Table:
    return _text(file).typed(columns)


def _text(file: FileContent) -> Delimited:
    return Delimited(file.content, file.name, "\t")
