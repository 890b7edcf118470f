"""Item columns of any name and type come through `prepare`, or are left out with a word."""

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.catalogue import catalogue
from palate.data.prepare import Preparation, prepare
from palate.data.tables import SourceTables
from palate.errors import DataWarning

NAMES = [
    *["a.b", 'a"b', "a'b", "*", "a,b", "\\", "`x`", "[x]", "$1", "?", "{x}", "%s", " ", "title "],
    *["Title", "TITLE", "ITEM_ID", "item_code", "position", "user_id", "timestamp", "rating"],
    *["select", "from", "rowid", "; drop table items; --", "größe", "大小", "a\nb"],
]
TEXTS = pa.array(["x", "y", None])
TYPES = {
    "float16": pa.array(np.ones(3, np.float16)),
    "decimal128": pa.array([decimal.Decimal("1.5")] * 3, pa.decimal128(9, 2)),
    "decimal256": pa.array([decimal.Decimal("1.5")] * 3, pa.decimal256(50, 2)),
    "duration": pa.array([1, 2, None], pa.duration("us")),
    "string_view": TEXTS.cast(pa.string_view()),
    "binary_view": pa.array([b"\xff", b"", None], pa.binary_view()),
    "binary": pa.array([b"\xff", b"", None]),
    "fixed binary": pa.array([b"ab", b"cd", None], pa.binary(2)),
    "large_string": TEXTS.cast(pa.large_string()),
    "dictionary": TEXTS.dictionary_encode(),
    "list": pa.array([[1], [], None]),
    "list of views": pa.array([["x"], [], None], pa.list_(pa.string_view())),
    "list_view": pa.array([[1], [], None], pa.list_view(pa.int64())),
    "struct": pa.array([{"a": {"b": [1]}}, {"a": None}, None]),
    "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(3),
    "time32": pa.array([1, 2, None], pa.time32("s")),
    "time64": pa.array([1000, 2000, None], pa.time64("ns")),
    "timestamp": pa.array([1000, 2000, None], pa.timestamp("ns", "Europe/Berlin")),
    "date64": pa.array([0, 86_400_000, None], pa.date64()),
    "uint64": pa.array([2**63, 1, None], pa.uint64()),
    "bool": pa.array([True, False, None]),
    "uuid": pa.array([b"0123456789abcdef"] * 3, pa.uuid()),
    "runs": pa.RunEndEncodedArray.from_arrays([2, 3], ["x", None]),
}
LOST = {
    "interval": pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()),
    "empty struct": pa.array([{}] * 3, pa.struct([])),
    "union": pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), TEXTS]
    ),
}


def prepared(folder, **columns):
    """items.parquet of a log of three items that have these columns."""
    users, items = [1, 1, 1, 2, 2, 2], ["b", "a", "c"] * 2
    log = pa.table({"user_id": users, "item_id": items, "timestamp": range(100, 106)})
    catalogue = pa.table({"item_id": ["a", "b", "c"], "title": ["A", "B", ""], **columns})
    prepare(SourceTables(log, catalogue), folder, Preparation(k_core=1), 0)
    return pq.read_table(folder / "items.parquet")


def test_columns_of_any_name(tmp_path):
    found = prepared(tmp_path, **{name: [f"{name} {i}" for i in range(3)] for name in NAMES})
    assert found.column_names == ["item_id", "source_id", "title", *NAMES]
    assert all(found[name].to_pylist() == [f"{name} {i}" for i in range(3)] for name in NAMES)
    assert found["source_id"].to_pylist() == ["a", "b", "c"]
    assert found["title"].to_pylist() == ["A", "B", "item c"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=6), unique=True, max_size=4))
def test_a_catalogue_keeps_whatever_its_columns_are_called(names):
    names = [name for name in names if name not in ("item_id", "title", "source_id")]
    items = pa.table(
        [[2, 1], ["B", "A"], *([name, f"{name}1"] for name in names)],
        names=["item_id", "title", *names],
    )
    found = catalogue(pa.table({"item_id": [1, 2], "item_code": [0, 1]}), items)
    assert found.column_names[3:] == names
    assert all(found[name].to_pylist() == [f"{name}1", name] for name in names)


@pytest.mark.parametrize("kind", TYPES)
def test_columns_of_any_type(tmp_path, kind):
    column = TYPES[kind]
    assert prepared(tmp_path, more=column)["more"].to_pylist() == column.to_pylist()


@pytest.mark.parametrize("kind", LOST)
def test_what_parquet_cannot_hold_is_left_out_with_a_word(tmp_path, kind):
    with pytest.warns(DataWarning, match=r"items: left out 'more' \(.*Parquet cannot hold"):
        found = prepared(tmp_path, more=LOST[kind], year=[1, 2, 3])
    assert found.column_names == ["item_id", "source_id", "title", "year"]


def test_a_name_that_is_taken_is_left_out_with_a_word(tmp_path):
    with pytest.warns(DataWarning, match=r"left out 'source_id' \(the name is taken\)"):
        found = prepared(tmp_path, source_id=[1, 2, 3])
    assert found["source_id"].to_pylist() == ["a", "b", "c"]


def test_further_columns_of_interactions_do_not_reach_the_engine(tmp_path):
    log = pa.table(
        {
            "user_id": [1, 1, 1],
            "item_id": [1, 2, 3],
            "timestamp": [3, 2, 1],
            'a"b': pa.array([1, 2, 3], pa.duration("s")),
            "ITEM_ID": pa.array([dt.date(2024, 1, 1)] * 3),
        }
    )
    items = pa.table({"item_id": [1, 2, 3], "title": ["A", "B", "C"]})
    prepare(SourceTables(log, items), tmp_path, Preparation(k_core=1), 0)
    found = pq.read_table(tmp_path / "interactions.parquet")
    assert found["item_id"].to_pylist() == [2, 1, 0]
