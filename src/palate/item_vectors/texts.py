"""What is written about items → one text for each, and its vector by the words items share."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from palate.errors import ConfigError, DataError, did_you_mean
from palate.item_vectors.reduction import SIZE, Found

MOST_TERMS = 200_000
"""Words and pairs of words, the most frequent ones, whose weights are reduced."""


NO_WORDS = re.compile(r"prices?|cost|msrp|paths?|filepath|filename|urls?|uri|href", re.IGNORECASE)
"""Words in the name of a column of prices or of places of files."""
PRICE = re.compile(
    r"(?:[a-z]{2,3}\s?)?[$€£¥₹]\s?\d[\d.,]*(?:\s?[-–].*)?"  # $12, US$ 9.99 - $14
    r"|[a-z]{3}\s?\d[\d.,]*"  # EUR 12
    r"|\d[\d.,]*\s?(?:[$€£¥₹]|[a-z]{3})"  # 12,50 €
    r"|-?\d+(?:[.,]\d+)+",  # 12.50
    re.IGNORECASE,
)
PATH = re.compile(
    r"[a-z][a-z0-9+.-]*://\S+|www\.\S+|(?:[a-z]:\\|~?/|\.{1,2}/).*"
    r"|[^\s]*[^\s/\\.]\.(?:jpe?g|png|gif|webp|avif|svg|bmp|tiff?|mp[34]|wav|ogg|webm|pdf|html?)",
    re.IGNORECASE,
)
MOSTLY = 0.9
"""Share of a column's values from which it holds prices or paths."""
LOOKED_AT = 1000
"""Values of a column that are looked at."""


def text_columns(items: pa.Table, wanted: Sequence[str] | None = None) -> list[str]:
    """The columns that make an item's text: those wanted, or title and all others of words.

    Prices, and paths of files or addresses, are written as text but are no words: a column whose
    name says so (price, cost, path, url), or nine in ten of whose values are, is left out unless
    it is wanted.

    Raises:
        ConfigError: a column is unknown, or holds what is no text.
    """
    if wanted is None:
        others = [f.name for f in items.schema if f.name != "source_id" and _is_text(f.type)]
        left_out = set(wordless_columns(items))
        return sorted((n for n in others if n not in left_out), key=lambda name: name != "title")
    for name in wanted:
        if name not in items.column_names:
            raise ConfigError(
                f"policy.vectors.text.columns: the items have no column '{name}'."
                f"{did_you_mean(name, items.column_names)}"
            )
        kind = items.schema.field(name).type
        if pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_binary(kind):
            raise ConfigError(
                f"policy.vectors.text.columns: column '{name}' is of type {kind}; expected text, "
                "numbers, or lists of them."
            )
    return list(wanted)


def wordless_columns(items: pa.Table) -> list[str]:
    """The columns of text that hold prices or paths, which nobody reads as words."""
    return [
        one.name
        for one in items.schema
        if one.name not in ("source_id", "title")
        and _is_text(one.type)
        and _is_wordless(items, one)
    ]


def item_texts(items: pa.Table, columns: Sequence[str]) -> list[str]:
    """One text per item: its columns one after another; "" where all are empty.

    The title that stands in for one that is not known, "item" and the id, is no text.
    """
    by_column = [items[name].to_pylist() for name in columns]
    if "title" in columns:
        titles = by_column[list(columns).index("title")]
        for row, source_id in enumerate(items["source_id"].to_pylist()):
            if titles[row] == f"item {source_id}":
                titles[row] = None
    rows = zip(*by_column, strict=True)
    return [". ".join(filter(None, map(_text_of, row))) for row in rows]


def tfidf_vectors(texts: Sequence[str], size: int | None = None) -> Found:
    """TF-IDF over words and pairs of words, reduced by a truncated singular value decomposition.

    Latent semantic analysis (Deerwester et al., JASIS 1990). The weight of a term in a text is
    (1 + log count) · idf, each text of length 1. A term of one text alone relates it to no other
    and is left out; a text without a shared term has no vector.

    Args:
        texts: one per item.
        size: width; less where there are fewer texts or terms.

    Returns:
        (m,) rows that have a vector; (m, d) vectors, not of length 1 yet.

    Raises:
        DataError: no two texts share a word.
    """
    from sklearn.decomposition import TruncatedSVD  # takes a second to import
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(
        ngram_range=(1, 2),
        token_pattern=r"\b\w+\b",  # the default leaves out titles such as "M" and "9"
        min_df=2,
        max_features=MOST_TERMS,
        sublinear_tf=True,
    )
    try:
        matrix = weights.fit_transform(texts)
    except ValueError as error:  # no words, or none of two texts
        raise DataError(
            f"policy.vectors.text: no two of {len(texts):,} items share a word. Name further "
            "columns in policy.vectors.text.columns, or an encoder that reads the texts."
        ) from error
    width = min(size or SIZE, *matrix.shape)
    vectors = TruncatedSVD(width, random_state=0).fit_transform(matrix)
    rows = np.flatnonzero(np.diff(matrix.indptr))
    return rows, vectors[rows]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_wordless(items: pa.Table, column: pa.Field) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", column.name)
    if any(NO_WORDS.fullmatch(word) for word in words):
        return True
    texts = [_text_of(value) for value in items[column.name].to_pylist()]
    found = list(dict.fromkeys(filter(None, texts)))[:LOOKED_AT]
    for form in (PRICE, PATH):
        if found and sum(form.fullmatch(text) is not None for text in found) >= MOSTLY * len(found):
            return True
    return False


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text_of, value)))
    return str(value).strip()
