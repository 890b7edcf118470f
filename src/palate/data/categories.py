"""Categories of items, from whatever column of the catalogue has them."""

import ast
import csv
import json
from collections import defaultdict
from typing import Any

import pyarrow as pa

COLUMNS = ("genres", "genre", "categories", "category", "brand")
"""Columns of the item table that name categories; the first that names any is read."""
WHOLE = ("brand",)
"""Columns whose values hold no lists by comma: "Acme, Inc." is one."""


def item_categories(items: pa.Table) -> tuple[str | None, list[list[str]]]:
    """The column that names categories, and those of each item, sorted, each once.

    A value may be a list, a list written as text (['a', 'b']), or names separated by | or by
    commas. A comma separates where it stands between names that also occur in other values: in
    "Action, Comedy" beside "Comedy, Drama" it does; "Clothing, Shoes & Jewelry" is one category.

    Args:
        items: the catalogue.

    Returns:
        (None, empty lists) where no column names any.
    """
    for column in COLUMNS:
        if column not in items.column_names:
            continue
        found = _named(items[column].to_pylist(), column)
        if any(found):
            return column, found
    return None, [[] for _ in range(items.num_rows)]


def lacks_categories(items: pa.Table) -> str:
    """The sentence for a catalogue without categories, which names the columns it has."""
    others = [name for name in items.column_names if name not in ("item_id", "source_id", "title")]
    has = f"has {', '.join(others)}" if others else "has titles only"
    return (
        f"diversity@K is left out: the item table {has}, and no column {', '.join(COLUMNS[:-1])} "
        f"or {COLUMNS[-1]} that names categories. Give it one, or name yours, as in --set "
        "data.options.item_columns.genres=…."
    )


def _named(values: list[Any], column: str) -> list[list[str]]:
    lists = [_listed(value) for value in values]
    texts = [one[0] for one in lists if len(one) == 1]
    separator = None
    if any("|" in text for text in texts):
        separator = "|"
    elif column not in WHOLE and _commas_separate(texts):
        separator = ","
    if separator is not None:
        lists = [[part for name in one for part in name.split(separator)] for one in lists]
    return [sorted({name.strip() for name in one} - {""}) for one in lists]


def _listed(value: Any) -> list[str]:
    """The names in one value, before any separator."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("[]", "()", "{}"):
            value = _written_list(text)
        else:
            return [text]
    if isinstance(value, list | tuple | set):
        return [str(part) for part in value if part is not None]
    is_nothing = value is None or value != value or value == {}  # NaN is unlike itself
    return [] if is_nothing else [str(value)]


def _written_list(text: str) -> Any:
    """A list written as JSON, Python or PostgreSQL ({A,"B, C"}) writes it; else the text in one."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    is_array = text[0] == "{"
    return next(csv.reader([text[1:-1]]), []) if is_array else [text]


def _commas_separate(texts: list[str]) -> bool:
    """Whether a name beside a comma occurs in two different values."""
    wholes: dict[str, set[str]] = defaultdict(set)
    for text in set(texts):
        for part in text.split(","):
            if part.strip():
                wholes[part.strip()].add(text)
    return any(len(of) > 1 for of in wholes.values())
