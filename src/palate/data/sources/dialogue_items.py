"""The catalogue that goes with dialogues: a JSON dictionary, JSON lines or a table."""

import re
from typing import Any

import pyarrow as pa

from palate.data.reading import FileContent, read_json, read_json_rows, value_of
from palate.data.reading.json_rows import Row
from palate.data.reading.values import as_ids
from palate.data.sources.item_table import read_items
from palate.errors import DataError

LINES = re.compile(r"\.jsonl(\.gz)?$", re.IGNORECASE)
WHOLE = re.compile(r"\.json(\.gz)?$", re.IGNORECASE)


def read_dialogue_items(file: FileContent) -> pa.Table:
    """item_id, title and genres of every item of a catalogue.

    Args:
        file: .json, a dictionary of id → {name or title, genre or genres}, or a list of such
            objects; .jsonl of such objects, with item_id or numbered from 0; or .csv, .tsv or
            .parquet with a title.

    Raises:
        DataError: the file is not whole, or an item has no title.
    """
    if LINES.search(file.name):
        return _table([(row.get("item_id"), place, row) for place, row in read_json_rows(file)])
    if not WHOLE.search(file.name):
        return read_items(file, {}, numbered=True)
    if not file.content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _table([(row.get("item_id"), place, row) for place, row in read_json_rows(file)])
    found = read_json(file)
    for item, row in found.items():
        if not isinstance(row, dict):
            raise DataError(
                f"{file.name}: item '{item}' is {str(row)[:60]!r}. Expected an object with 'name'."
            )
    if not found:
        raise DataError(f"{file.name} holds no items. Expected id → object with 'name'.")
    return _table([(item, f"{file.name} item '{item}'", row) for item, row in found.items()])


def _table(rows: list[tuple[Any, str, Row]]) -> pa.Table:
    numbered = all(item is None for item, _, _ in rows)
    if not numbered and (place := next((p for item, p, _ in rows if item is None), None)):
        raise DataError(f"{place}: 'item_id' is missing, though other items have it. Add it.")
    texts = pa.chunked_array(
        [[str(n if numbered else item) for n, (item, _, _) in enumerate(rows)]]
    )
    titles, genres = [], []
    for _, place, row in rows:
        key = "title" if "title" in row else "name"
        title = value_of(row, key, place, ("name or title",))
        if not isinstance(title, str):
            raise DataError(f"{place}: '{key}' is {title!r}. Expected a text.")
        titles.append(title.strip())
        named = row.get("genre", row.get("genres")) or []
        genres.append(named if isinstance(named, str) else "|".join(map(str, named)))
    return pa.table({"item_id": as_ids(texts)[0], "title": titles, "genres": genres})
