"""Titles as names of items: for sources that name items by what they are called."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from unicodedata import normalize

import pyarrow as pa

from palate.data.reading.bad_rows import RowError
from palate.errors import DataError, DataWarning, did_you_mean

ItemId = int | str


@dataclass(frozen=True)
class Titles:
    """Item ids by title; a letter and its accent are one character, as in Unicode's form NFC.

    Attributes:
        ids: title in the form NFC → item id.
        aliases: a title spelled otherwise → the title in the catalogue.
        grows: there is no catalogue: a title met for the first time becomes the next item.
        hint: (title, nearest title of the catalogue) → what to do about an unknown title.
    """

    ids: dict[str, ItemId] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    grows: bool = False
    hint: Callable[[str, str], str] = lambda title, nearest: "Add it to the items."

    def id_of(self, title: str, place: str) -> ItemId:
        """The item a title names; DataError with the nearest title if there is none."""
        composed = normalize("NFC", title)
        known = normalize("NFC", self._aliases.get(composed, composed))
        if known in self.ids:
            return self.ids[known]
        if self.grows:
            return self.ids.setdefault(known, len(self.ids))
        near = get_close_matches(known, self.ids, n=1, cutoff=0.5)
        hint = self.hint(title, near[0] if near else "title in the catalogue")
        raise RowError(
            f"{place}: the catalogue has no item with the title '{known}'."
            f"{did_you_mean(known, near)}",
            hint,
        )

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Titles met in a block that ends with an error are forgotten again."""
        n_known = len(self.ids)
        try:
            yield
        except DataError:
            while len(self.ids) > n_known:
                self.ids.popitem()
            raise

    @cached_property
    def _aliases(self) -> dict[str, str]:
        return {normalize("NFC", title): known for title, known in self.aliases.items()}


def ids_by_title(items: pa.Table, name: str) -> dict[str, ItemId]:
    """Title → item id of an item table; a title that several items have means the first."""
    ids: dict[str, ItemId] = {}
    shared: set[str] = set()
    columns = items["title"].to_pylist(), items["item_id"].to_pylist()
    for title, item in zip(*columns, strict=True):
        if not (known := normalize("NFC", title.strip())):
            continue
        if known in ids:
            shared.add(known)
        ids.setdefault(known, item)
    if shared:
        warnings.warn(
            DataWarning(
                f"{name}: {len(shared)} of {len(ids)} titles belong to several items, such as "
                f"'{min(shared)}'; a title means the first item that has it."
            ),
            stacklevel=2,
        )
    return ids


def items_of_titles(titles: Iterable[str]) -> pa.Table:
    """An item table whose ids are the places of the titles, from 0."""
    listed = list(titles)
    return pa.table(
        {
            "item_id": pa.array(range(len(listed)), pa.int64()),
            "title": pa.array(listed, pa.string()),
        }
    )
