"""Categories of items, in the columns and forms that catalogues have them."""

import pyarrow as pa
import pytest

from palate.data.categories import item_categories, lacks_categories
from palate.evaluation.stages import _categories


@pytest.mark.parametrize("column", ["genres", "genre", "categories", "category", "brand"])
@pytest.mark.parametrize(
    "values",
    [
        ["b|a", "c", None, "a"],
        [["b", "a"], ["c"], [], ["a"]],
        ["['b', 'a']", "['c']", "[]", "['a']"],
    ],
)
def test_lists_bars_and_lists_as_text(column, values):
    items = pa.table({"item_id": range(4), "title": ["x"] * 4, column: values})
    assert item_categories(items) == (column, [["a", "b"], ["c"], [], ["a"]])
    assert [one.tolist() for one in _categories(items) or []] == [[0, 1], [2], [], [0]]


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("genre", ["Action, Comedy", "Comedy", "Drama,Action"],
         [["Action", "Comedy"], ["Comedy"], ["Action", "Drama"]]),
        ("category", ["Clothing, Shoes & Jewelry", "Home", "Patio, Lawn & Garden"],
         [["Clothing, Shoes & Jewelry"], ["Home"], ["Patio, Lawn & Garden"]]),
        ("brand", ["Acme, Inc.", "Bolt, Inc."], [["Acme, Inc."], ["Bolt, Inc."]]),
        ("genres", ["Sci-Fi, old|Drama", "Drama"], [["Drama", "Sci-Fi, old"], ["Drama"]]),
        ("category", [7, None, 7], [["7"], [], ["7"]]),
        ("category", [1.5, float("nan")], [["1.5"], []]),
        ("genres", ["[unclosed", "(x"], [["[unclosed"], ["(x"]]),
    ],
)  # fmt: skip
def test_commas_separate_where_names_recur(column, values, wanted):
    items = pa.table({"title": ["x"] * len(values), column: values})
    assert item_categories(items) == (column, wanted)


def test_the_first_column_that_names_any_is_read():
    items = pa.table({"title": ["x"], "genres": [""], "category": ["a"], "brand": ["b"]})
    assert item_categories(items) == ("category", [["a"]])


def test_what_lacks_is_said_with_the_columns_there_are():
    items = pa.table(
        {"item_id": [0], "source_id": [7], "title": ["x"], "maker": ["b"], "price": [1]}
    )
    assert item_categories(items) == (None, [[]])
    assert _categories(items) is None
    said = lacks_categories(items)
    assert "maker, price" in said
    assert all(name in said for name in ("genres", "genre", "categories", "category", "brand"))
    assert "titles only" in lacks_categories(items.select(["item_id", "title"]))


@pytest.mark.parametrize(
    "written", ['["A", null, "B, C"]', '{A,"B, C"}', "['A', None, 'B, C']", "('A', 'B, C')"]
)
def test_lists_as_databases_write_them(written):
    items = pa.table({"item_id": [1, 2, 3], "categories": [written, "[]", "{}"]})
    assert item_categories(items) == ("categories", [["A", "B, C"], [], []])
