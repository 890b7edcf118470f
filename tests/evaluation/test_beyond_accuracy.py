"""Coverage, Gini, popularity and diversity: by hand, at their ends, and against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import DataError
from palate.evaluation.beyond_accuracy import beyond_accuracy, category_diversity, gini


def test_by_hand():
    lists = [[0, 1], [0, 2], [0, 1]]
    popularity = [10, 4, 1, 7]
    found = beyond_accuracy(lists, popularity, np.array([5, 5, 8, 8]))
    # Items 0, 1, 2 of 4 are recommended: 3/4. Counts 3, 2, 1, 0 ascending are 0, 1, 2, 3 with
    # weights −3, −1, 1, 3: (−1 + 2 + 9) / (4 · 6) = 10/24.
    # Popularity: (10 + 4 + 10 + 1 + 10 + 4) / 6. Categories: {5}, {5, 8}, {5}: (1 + 2 + 1) / 3 / 2.
    assert found == pytest.approx(
        {"coverage@2": 3 / 4, "gini@2": 10 / 24, "popularity@2": 39 / 6, "diversity@2": 4 / 6}
    )
    assert "diversity@2" not in beyond_accuracy(lists, popularity)


def test_ends_of_the_scales():
    even = beyond_accuracy([[0, 1], [2, 3]], [1, 1, 1, 1])
    assert (even["coverage@2"], even["gini@2"]) == (1, 0)
    same = beyond_accuracy([[2], [2], [2]], [1, 1, 1, 1])
    assert (same["coverage@1"], same["gini@1"]) == (1 / 4, 1 - 1 / 4)


def test_items_with_several_categories_or_none():
    categories = [[1, 2, 3], [3], [], np.array([7, 7])]
    # {1, 2, 3} over two places, {3, 7} over two places: (3 + 2) / 2 / 2.
    assert category_diversity([[0, 1], [1, 3]], categories) == 5 / 4
    assert category_diversity([[2, 2]], categories) == 0
    assert category_diversity([[0, 1]], [[], []]) == 0


@given(st.integers(0, 10_000))
def test_equal_to_loops(seed):
    random = np.random.default_rng(seed)
    n_items = int(random.integers(3, 12))
    lists = np.array([random.permutation(n_items)[:3] for _ in range(random.integers(1, 8))])
    categories = [random.integers(-2, 4, random.integers(0, 4)) for _ in range(n_items)]
    found = beyond_accuracy(lists, random.integers(0, 9, n_items), categories)
    distinct = [len({int(c) for item in row for c in categories[item]}) for row in lists]
    assert found["diversity@3"] == pytest.approx(np.mean(distinct) / 3, abs=1e-12)
    counts = [int((lists == item).sum()) for item in range(n_items)]
    # The other definition of Gini: the mean absolute difference over twice the mean.
    spread = np.mean([abs(x - y) for x in counts for y in counts])
    assert found["gini@3"] == pytest.approx(spread / (2 * np.mean(counts)), abs=1e-12)
    assert gini(lists[::-1, ::-1], n_items) == found["gini@3"]
    single = random.integers(-2, 4, n_items)
    assert category_diversity(lists, single) == category_diversity(lists, [[c] for c in single])


@pytest.mark.parametrize(
    ("lists", "popularity", "categories", "message"),
    [
        ([[0, 3]], [1, 1, 1], None, "0–3; expected integer item ids from 0 to 2"),
        ([[-1, 0]], [1, 1, 1], None, "-1–0"),
        ([[0.0, 1.0]], [1, 1, 1], None, "float64"),
        ([0, 1], [1, 1, 1], None, r"shape \(2,\)"),
        (np.zeros((0, 5), int), [1, 1, 1], None, "neither empty"),
        ([[0]], [], None, "one count per item"),
        ([[0]], [1, 1], [[1]], "given for 1 items, but the catalogue has 2"),
    ],
)
def test_bad_input_is_named(lists, popularity, categories, message):
    with pytest.raises(DataError, match=message):
        beyond_accuracy(lists, popularity, categories)
