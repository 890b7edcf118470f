"""Titles of a catalogue as texts, and what is said where a policy cannot tell them apart."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from palate.data.contexts import Ids
from palate.errors import DataError
from palate.loading import named
from palate.policies.language.text_tokens import Tokens


def titles_of(items: pa.Table) -> list[str]:
    """The title of each item, "" where there is none; whole numbers are read as their digits.

    Raises:
        DataError: there is no column `title`, or it holds no texts.
    """
    if "title" not in items.column_names:
        raise DataError(
            "items: there is no column 'title', which a language policy reads. Found: "
            f"{', '.join(items.column_names)}."
        )
    kind = items.schema.field("title").type
    of = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of)
    if not (is_text or pa.types.is_integer(of) or pa.types.is_null(of)):
        raise DataError(
            f"items: the column 'title' holds {of}, not text. Expected texts; convert the column "
            "before you give the table."
        )
    return ["" if title is None else str(title) for title in items["title"].to_pylist()]


def names_of(items: pa.Table) -> list[str]:
    """What an item without a title is called: "item" and its id in the source, or its row."""
    column = next((name for name in ("source_id", "item_id") if name in items.column_names), None)
    ids = range(items.num_rows) if column is None else items[column].to_pylist()
    return [f"item {one}" for one in ids]


def check_texts(texts: Sequence[object], where: str) -> list[str]:
    """The texts as they are.

    Raises:
        DataError: one is no text, or holds half a character (a lone surrogate).
    """
    if isinstance(texts, str):
        raise DataError(f"{where} is one text ({texts!r}). Expected a list of texts.")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{where}[{place}] is {text!r}, a {type(text).__name__}. Expected a text."
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}[{place}] holds half a character at {error.start} ({text!r}), which no "
                "tokenizer reads. Replace it."
            ) from error
    return [str(text) for text in texts]


def alike(tokens: Sequence[Tokens]) -> list[Ids]:
    """The items that share all their tokens, group by group, in the order of their first ones."""
    first: dict[bytes, int] = {}
    groups: dict[int, list[int]] = {}
    for item, own in enumerate(tokens):
        before = first.setdefault(own.tobytes(), item)
        if before != item:
            groups.setdefault(before, [before]).append(item)
    return [np.array(group) for group in groups.values()]


def warning_of_alike(
    tokens: Sequence[Tokens], titles: Sequence[str], names: Sequence[str], longest: int
) -> str | None:
    """What there is to say of items that a policy cannot tell apart; None where it can.

    Args:
        tokens: of each item's title as an answer.
        titles: what they are of.
        names: what each item is called.
        longest: tokens to which longer titles are cut.
    """
    groups = alike(tokens)
    if not groups:
        return None
    items = sum(map(len, groups))
    cut = sum(
        len(group)
        for group in groups
        if len(tokens[group[0]]) == longest
        and any(titles[a] != titles[b] for a, b in pairwise(group))
    )
    shown = [int(item) for item in groups[0][:3]]
    such = named([f"{names[item]} ('{_short(titles[item])}')" for item in shown])
    because = ""
    if cut:
        because = f" {cut:,} of them differ only behind the {longest} tokens that are read."
    return (
        f"titles: {items:,} of {len(tokens):,} items have the same tokens as another one, such as "
        f"{such}; a language policy cannot tell them apart and gives them the same score."
        f"{because} Make their titles differ, by a year or a maker, say."
    )


def warning_of_renamed(
    renamed: Sequence[int], titles: Sequence[str], names: Sequence[str]
) -> str | None:
    """What there is to say of titles that became no token and were replaced by a name."""
    if not renamed:
        return None
    such = named([f"{names[item]} ('{_short(titles[item])}')" for item in renamed[:3]])
    return (
        f"titles: {len(renamed):,} of {len(titles):,} become no token with this tokenizer, such as "
        f"that of {such}; these items are read as their names, such as '{names[renamed[0]]}'."
    )


def _short(title: str, longest: int = 40) -> str:
    return title if len(title) <= longest else f"{title[: longest - 1]}…"
