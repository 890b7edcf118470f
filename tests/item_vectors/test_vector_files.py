"""Vectors that people bring, and every way in which a file can be wrong."""

import decimal
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from item_vectors.catalogues import catalogue
from palate.errors import DataError
from palate.item_vectors.vector_files import read_vectors

ITEMS = catalogue(["a", "b", "c", "d"])
VECTORS = np.arange(1.0, 7).reshape(3, 2)


def read(path, ids="item_id", vectors="vector", items=ITEMS):
    return read_vectors(path, ids, vectors, items, "policy.vectors.image")


def npz(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def parquet(folder, ids, vectors):
    pq.write_table(pa.table({"item_id": ids, "vector": vectors}), folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize(
    "ids",
    [[12, 99, 10], [12.0, 99.0, 10.0], ["12", "99", "10"], np.array([b"12", b"99", b"10"])],
    ids=["int", "float", "text", "bytes"],
)
def test_ids_find_their_items_whatever_their_type(tmp_path, ids):
    rows, found = read(npz(tmp_path, item_id=ids, vector=VECTORS))
    assert rows.tolist() == [0, 2]
    np.testing.assert_array_equal(found, VECTORS[[2, 0]])


def test_text_ids_with_leading_zeros_are_ids_of_their_own(tmp_path):
    items = catalogue(["a", "b"], ids=["007", "7"])
    rows, found = read(npz(tmp_path, item_id=["7", "007"], vector=VECTORS[:2]), items=items)
    assert rows.tolist() == [0, 1]
    np.testing.assert_array_equal(found, VECTORS[[1, 0]])


def test_pixels_under_names_of_their_own(tmp_path):
    pixels = np.arange(3 * 24).reshape(3, 4, 2, 3).astype(np.uint8)
    path = npz(tmp_path, movie_id=[13, 11, 5], rgb=pixels)
    rows, found = read(path, "movie_id", "rgb")
    assert rows.tolist() == [1, 3]
    np.testing.assert_array_equal(found, pixels[[1, 0]])


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2)]
)
def test_parquet_lists_and_empty_ones(tmp_path, kind):
    column = pa.array([[1, 2], None, [3, 4], [5, 6]], kind)
    rows, found = read(parquet(tmp_path, [13, 12, 77, 10], column))
    assert rows.tolist() == [0, 3]
    np.testing.assert_array_equal(found, [[5, 6], [1, 2]])


def test_rows_in_the_order_of_the_items(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(4))
    rows, found = read(tmp_path / "a.npy")
    assert rows.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found, np.eye(4))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"ids": [1], "vector": VECTORS}, "no array 'item_id'. .*policy.vectors.image.ids"),
        ({"item_id": [1], "vec": VECTORS}, "no array 'vector'. .*'vec'.*policy.vectors.image.vec"),
        ({"item_id": [10, 11], "vector": VECTORS}, r"'item_id' has shape \(2,\) and 'vector'"),
        ({"item_id": [10, 11, 10], "vector": VECTORS}, "has item 10 twice"),
        ({"item_id": [1, 2, 3], "vector": VECTORS}, "none of the 3 ids .*1, 2, 3.*10, 11, 12"),
        ({"item_id": ["10", "", "11"], "vector": VECTORS}, "no id in row 2"),
        ({"item_id": [10, 11, 12], "vector": VECTORS[:, 0]}, "shape .3,.. Expected numbers, a row"),
        ({"item_id": [10, 11, 12], "vector": VECTORS.astype(str)}, "Expected numbers, a row"),
        ({"item_id": [10, 11, 12], "vector": VECTORS[:, :0]}, "Expected numbers, a row"),
        ({"item_id": [None, 11, 12], "vector": VECTORS}, "not a whole NumPy file of plain numbers"),
        ({"item_id": [True, False, True], "vector": VECTORS}, "Expected whole numbers or text"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, sentence):
    with pytest.raises(DataError, match=sentence):
        read(npz(tmp_path, **arrays))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_numbers_that_are_none_name_their_item(tmp_path, bad):
    vectors = VECTORS.copy()
    vectors[1, 1] = bad
    with pytest.raises(DataError, match=r"1 vectors have .* that of item 12"):
        read(npz(tmp_path, item_id=[10, 12, 11], vector=vectors))
    vectors[1, 1] = 0
    assert len(read(npz(tmp_path, item_id=[10, 12, 11], vector=vectors))[0]) == 3


@pytest.mark.parametrize(
    ("ids", "vectors", "sentence"),
    [
        ([10, 11], [[1.0, 2.0], [1.0]], "item 10 has 2 numbers, item 11 has 1"),
        ([10, 11], [[1.0, None], [1.0, 2.0]], "1 vectors have .* that of item 10"),
        ([10, 11], [1.0, 2.0], "is of type double. Expected a list of numbers"),
        ([10, 11], [["a"], ["b"]], "Expected a list of numbers"),
        ([10, None], [[1.0], [1.0]], "no id in row 2"),
        ([20, 21], [[1.0], [1.0]], "none of the 2 ids"),
    ],
)
def test_wrong_columns(tmp_path, ids, vectors, sentence):
    with pytest.raises(DataError, match=sentence):
        read(parquet(tmp_path, ids, vectors))


def test_vectors_that_are_all_empty_are_no_vectors(tmp_path):
    rows, _ = read(parquet(tmp_path, [10, 11], pa.array([None, None], pa.list_(pa.float32()))))
    assert len(rows) == 0


def test_missing_columns_of_parquet_are_named(tmp_path):
    path = parquet(tmp_path, [10], [[1.0]])
    with pytest.raises(DataError, match=r"no column 'asin'. Known: item_id, vector. Name it in"):
        read(path, ids="asin")


def test_wrong_rows_and_endings(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    with pytest.raises(DataError, match=r"shape \(3, 3\), and there are 4 items"):
        read(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"unknown ending. Expected .npz, .parquet or .npy"):
        read(tmp_path / "a.csv")


def test_an_ending_of_another_kind_is_no_traceback(tmp_path):
    npz(tmp_path, item_id=[10, 11, 12], vector=VECTORS).rename(tmp_path / "b.npy")
    np.save(tmp_path / "a.npy", np.eye(4))
    (tmp_path / "a.npy").rename(tmp_path / "b.npz")
    for kind in ("npy", "npz"):
        with pytest.raises(DataError, match=rf"b.{kind} is not a whole NumPy .*of another ending"):
            read(tmp_path / f"b.{kind}")


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet"])
def test_a_file_cut_short_is_no_traceback(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.eye(4))
    npz(tmp_path, item_id=[10, 11, 12], vector=VECTORS)
    parquet(tmp_path, [10], [[1.0]])
    path = tmp_path / f"a.{kind}"
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a whole"):
            read(path)


def test_ids_in_any_writing_and_vectors_in_any_list(tmp_path):
    views = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_view(pa.float32()))
    whole = pa.array([decimal.Decimal(12), decimal.Decimal(10)], pa.decimal128(38, 10))
    for ids in (["12.0", "10.0"], whole, pa.array(["12", "10"]).cast(pa.string_view())):
        rows, found = read(parquet(tmp_path, ids, views))
        assert rows.tolist() == [0, 2]
        np.testing.assert_array_equal(found, [[3, 4], [1, 2]])
    items = catalogue(["a"], ids=[normalize("NFC", "Beyoncé")])
    rows, _ = read(parquet(tmp_path, [normalize("NFD", "Beyoncé")], [[1.0]]), items=items)
    assert rows.tolist() == [0]


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([[1]], r"'item_id' is of type list.* Expected whole numbers or text"),
        ([b"\xff"], r"'item_id' is of type binary"),
        (pa.array([], pa.int64()), r"a\.parquet is empty: it holds no ids"),
    ],
)
def test_ids_that_are_none(tmp_path, ids, sentence):
    vectors = pa.array([[1.0]] * len(ids), pa.list_(pa.float32()))
    with pytest.raises(DataError, match=sentence):
        read(parquet(tmp_path, ids, vectors))


def test_bytes_that_are_no_text(tmp_path):
    with pytest.raises(DataError, match="holds bytes that are not UTF-8"):
        read(npz(tmp_path, item_id=np.array([b"\xff"]), vector=VECTORS[:1]))
