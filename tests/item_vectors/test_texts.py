"""Texts of items, and their TF-IDF vectors against weights worked out by the formula."""

from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pyarrow as pa
import pytest

from item_vectors.catalogues import catalogue
from palate.errors import ConfigError, DataError
from palate.item_vectors.reduction import settled
from palate.item_vectors.texts import item_texts, text_columns, tfidf_vectors

TEXTS = [
    "red harbour nights, red",
    "harbour nights",
    "red moon",
    "moon over the harbour",
    "over the moon",
    "M",
    "the M",
]


def unit(texts, size=None):
    rows, vectors = tfidf_vectors(texts, size)
    return settled(rows, vectors, len(texts), None)


def weights_of(texts):
    """(1 + log tf) · (log((1 + n) / (1 + df)) + 1) over words and pairs that two texts have."""
    counts = []
    for text in texts:
        words = text.lower().replace(",", "").split()
        counts.append(Counter([*words, *pairwise(words)]))
    often = Counter(term for count in counts for term in count)
    terms = [term for term, n in often.items() if n > 1]
    weights = np.zeros((len(texts), len(terms)))
    for row, count in enumerate(counts):
        for column, term in enumerate(terms):
            if count[term]:
                idf = log((1 + len(texts)) / (1 + often[term])) + 1
                weights[row, column] = (1 + log(count[term])) * idf
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def test_wide_enough_they_keep_the_angles_of_the_weights():
    vectors, present = unit(TEXTS)
    weights = weights_of(TEXTS)
    assert present.all()
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), min(weights.shape))
    np.testing.assert_allclose(vectors @ vectors.T, weights @ weights.T, atol=1e-5)


def test_narrow_they_are_the_leading_singular_vectors():
    weights = weights_of(TEXTS)
    u, s, _ = np.linalg.svd(weights)
    expected = u[:, :3] * s[:3]
    _, found = tfidf_vectors(TEXTS, 3)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_the_same_twice_and_in_any_order_of_the_items():
    vectors, _ = unit(TEXTS)
    again, _ = unit(TEXTS)
    assert (vectors == again).all()
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled, _ = unit([TEXTS[i] for i in order])
    np.testing.assert_allclose(shuffled, vectors[order], atol=1e-4)


def test_a_text_that_is_empty_or_shares_no_word_has_none():
    vectors, present = unit(["red moon", "", "red harbour", "Zyzzyva", "harbour moon", "..."])
    assert present.tolist() == [True, False, True, False, True, False]
    assert (vectors[~present] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[present], axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("texts", [["one", "two"], ["", ""], ["alone"]])
def test_no_shared_word_at_all_is_an_error(texts):
    with pytest.raises(DataError, match=r"items share a word. Name further columns"):
        tfidf_vectors(texts)


def test_columns_are_joined_lists_too():
    items = catalogue(
        ["Velvet Alibi", "item 11", " Harbour "],
        description=["A tale.", None, ""],
        genres=[["noir", None, "drama"], [], None],
        year=[1999, 2001, 2003],
        mood=pa.array(["dark", "light", "dark"]).dictionary_encode(),
    )
    assert text_columns(items) == ["title", "description", "genres", "mood"]
    assert item_texts(items, text_columns(items)) == [
        "Velvet Alibi. A tale.. noir, drama. dark",
        "light",  # "item 11" stands in for a title that is not known
        "Harbour. dark",
    ]
    assert item_texts(items, ["genres", "year"]) == ["noir, drama. 1999", "2001", "2003"]


@pytest.mark.parametrize(
    ("name", "values", "is_read"),
    [
        ("price", ["twelve", "nine", "one"], False),
        ("listPrice", ["12", "9", "1"], False),
        ("image_path", ["a", "b", "c"], False),
        ("imUrl", ["a", "b", "c"], False),
        ("tag", ["$12.99", "$9.00 - $14.00", ""], False),
        ("tag", ["12,50 €", "EUR 9", None], False),
        ("tag", ["12.5", "0.99", "7.25"], False),
        ("picture", ["img/1.jpg", "img/2.JPG", "3.png"], False),
        ("picture", ["https://a.org/1", "http://b.org/x?y=1", "www.c.org"], False),
        ("picture", [["/data/1"], ["/data/2", "/data/3"], None], False),
        ("year", ["1999", "2001", "1987"], True),
        ("genres", ["Action/Comedy", "Drama", "Drama/War"], True),
        ("pricey", ["dear", "cheap", "dear"], True),
        ("note", ["$12.99 only", "a bargain", "https://a.org/1"], True),
        ("note", [None, None, ""], True),
    ],
)
def test_prices_and_paths_are_read_only_where_they_are_named(name, values, is_read):
    values = pa.array(values, pa.list_(pa.string()) if isinstance(values[0], list) else pa.string())
    items = catalogue(["Velvet Alibi", "$9.99", "a.jpg"], **{name: values})
    assert text_columns(items) == (["title", name] if is_read else ["title"])
    assert text_columns(items, ["title", name]) == ["title", name]


def test_wrong_columns_are_named():
    items = catalogue(["a"], genres=["b"], sizes=[{"height": 3}])
    with pytest.raises(ConfigError, match=r"no column 'genre'. Did you mean 'genres'\?"):
        text_columns(items, ["title", "genre"])
    with pytest.raises(ConfigError, match=r"'sizes' is of type struct.*expected text, numbers"):
        text_columns(items, ["sizes"])
