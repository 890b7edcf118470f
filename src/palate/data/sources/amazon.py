# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Amazon reviews as item sequences, the form in which sequence recommenders share them."""

import html
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from palate.data.reading import FileContent, find_file, line_of_row, read_delimited, read_file
from palate.data.tables import SourceTables
from palate.errors import DataError

SEQUENCES = {"user_id": pa.int64(), "item_ids": pa.string()}
ITEMS = {"item_id": pa.int64(), "asin": pa.string(), "title": pa.string()}
ATTRIBUTES = {"attribute_id": pa.int64(), "name": pa.string()}
IDS = r"^\d+( +\d+)*$"


def amazon(path: str | Path) -> SourceTables:
    """Amazon item sequences, such as Beauty 5-core: order without ratings or times.

    Args:
        path: a folder with `sequences.tsv` (user_id; item_ids separated by blanks, oldest first),
            `items.tsv` (item_id, asin, title, attribute_ids) and, if there is one,
            `attributes.tsv` (attribute_id, name); each may end in .gz.

    Raises:
        DataError: a file or column is missing or damaged, or a sequence is not a list of ids.
    """
    folder = Path(path).expanduser()
    files = [_read(find_file(folder, f"{name}.tsv")) for name in ("sequences", "items")]
    sequences, items = files
    optional = [folder / name for name in ("attributes.tsv", "attributes.tsv.gz")]
    names: dict[str, str] | None = None
    if found := next((file for file in optional if file.is_file()), None):
        files.append(_read(found))
        table = _table(files[-1], ATTRIBUTES)
        ids = pc.cast(table["attribute_id"], pa.string()).to_pylist()
        names = dict(zip(ids, map(_plain, table["name"].to_pylist()), strict=True))
    return SourceTables(
        interactions=_interactions(sequences),
        items=_items(items, names),
        origin={
            "source": "amazon",
            "path": str(path),
            "sha256": {file.name: file.sha256 for file in files},
        },
    )


def _interactions(file: FileContent) -> pa.Table:
    table = _table(file, SEQUENCES)
    _require_ids(file, table["item_ids"], "item_ids")
    lists = pc.split_pattern_regex(table["item_ids"].combine_chunks(), " +")
    users = table["user_id"].combine_chunks().take(pc.list_parent_indices(lists))
    return pa.table({"user_id": users, "item_id": pc.cast(pc.list_flatten(lists), pa.int64())})


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
            line = line_of_row(file.content, row, "\t")
            raise DataError(
                f"{file.name} line {line}: attribute_ids names {unknown!r}, which attributes.tsv "
                "lacks. Add it there, or take attributes.tsv away to do without genres."
            )
        genres.append("|".join(names[one] for one in text.split()))
    return genres


def _require_ids(file: FileContent, texts: pa.ChunkedArray, column: str) -> None:
    row = pc.index(pc.match_substring_regex(texts, IDS), False).as_py()
    if row >= 0:
        raise DataError(
            f"{file.name} line {line_of_row(file.content, row, chr(9))}: {column} "
            f"{texts[row].as_py()[:60]!r} is not a list of whole numbers separated by blanks. Mend "
            "or delete the line."
        )


def _plain(title: str) -> str:
    return html.unescape(title).strip()


def _read(path: Path) -> FileContent:
    return read_file(path, "tab-separated text with a header")


def _table(file: FileContent, columns: dict[str, pa.DataType]) -> pa.Table:
    return read_delimited(file.content, file.name, columns, "\t")
