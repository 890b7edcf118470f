"""Fixed negatives: from a file in three formats, from the source's lists, and what goes wrong."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.errors import ConfigError, DataError
from palate.negatives import Fixed, mixture
from palate.negatives.fixed import read_lists


@pytest.fixture
def rows(small_data):
    """(user, item) in ids of the source: three items of user 2, in no order, and one of user 0."""
    users, items = (t["source_id"].to_pylist() for t in (small_data.users, small_data.items))
    return [(users[2], items[7]), (users[0], items[1]), (users[2], items[3]), (users[2], items[5])]


def text(rows, separator=",", header=("user_id", "item_id")):
    return "\n".join(separator.join(map(str, row)) for row in [header, *rows]) + "\n"


def found(path, data):
    return [own.tolist() for own in read_lists(path, data)[:3]]


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".TSV", "\t")])
def test_text_files(suffix, separator, rows, small_data, tmp_path):
    path = tmp_path / f"negatives{suffix}"
    path.write_text("\ufeff" + text(rows, separator), "utf-8")
    assert found(path, small_data) == [[1], [], [7, 3, 5]]
    assert len(read_lists(path, small_data)) == small_data.users.num_rows


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.string()])
def test_parquet_files_with_ids_of_any_type(kind, rows, small_data, tmp_path):
    path = tmp_path / "negatives.parquet"
    users, items = (pa.array([row[column] for row in rows]).cast(kind) for column in (0, 1))
    pq.write_table(pa.table({"more": [1, 2, 3, 4], "item_id": items, "user_id": users}), path)
    assert found(path, small_data) == [[1], [], [7, 3, 5]]


def test_the_order_of_the_file_is_kept_where_users_alternate(small_data, tmp_path):
    users, items = (t["source_id"].to_pylist() for t in (small_data.users, small_data.items))
    path = tmp_path / "negatives.csv"
    path.write_text(
        text([(users[row % 3], items[row * 7 % len(items)]) for row in range(300)]), "utf-8"
    )
    assert found(path, small_data) == [
        [row * 7 % len(items) for row in range(user, 300, 3)] for user in range(3)
    ]


def test_ids_that_are_text(tmp_path):
    from conftest import log

    rows = [(f"u{u}", f"0{i}", 10 * u + i, 5.0) for u in range(4) for i in range(6)]
    prepare(log(rows), tmp_path, Preparation(k_core=1), seed=0)
    data = Prepared(tmp_path, window=1)
    users, items = (t["source_id"].to_pylist() for t in (data.users, data.items))
    path = tmp_path / "negatives.csv"
    path.write_text("user_id,item_id\nu3,05\nu3,00\n", "utf-8")
    lists = read_lists(path, data)
    assert [items[item] for item in lists[users.index("u3")]] == ["05", "00"]


def test_lists_of_the_source_serve_without_a_file(small_data, rows, tmp_path):
    folder = tmp_path / "with_lists"
    shutil.copytree(small_data.folder, folder)
    shown = {"user_id": pa.array([0, 2, 2]), "item_id": pa.array([4, 9, 8])}
    pq.write_table(pa.table(shown), folder / "lists.parquet")
    data = Prepared(folder, window=1)
    made = mixture({"fixed": 2}, data).parts["fixed"][0]
    assert isinstance(made, Fixed)
    assert [own.tolist() for own in made.by_user[:3]] == [[4], [], [9, 8]]
    path = tmp_path / "negatives.csv"
    path.write_text(text(rows), "utf-8")
    made = mixture({"fixed": 2}, data, options={"fixed": {"path": path}}).parts["fixed"][0]
    assert isinstance(made, Fixed)
    assert made.by_user[2].tolist() == [7, 3, 5]  # what the user gives goes before


def test_neither_file_nor_lists(small_data):
    with pytest.raises(ConfigError, match=r"Type align\.sampler_options\.fixed\.path: FILE"):
        mixture({"fixed": 2}, small_data)


def test_unknown_ids_are_named_with_their_row(rows, small_data, tmp_path):
    path = tmp_path / "negatives.csv"
    path.write_text(text([*rows, ("zoe", rows[0][1]), ("tim", rows[0][1])]), "utf-8")
    with pytest.raises(
        DataError, match=r"negatives\.csv, line 6: there is no user 'zoe'.*\(2 of 6"
    ):
        read_lists(path, small_data)
    path.write_text(text([rows[0], (rows[0][0], "tent"), *rows]), "utf-8")
    with pytest.raises(
        DataError, match=r"negatives\.csv, line 3: there is no item 'tent'.*\(1 of 6"
    ):
        read_lists(path, small_data)
    table = pa.table({"user_id": [rows[0][0], None], "item_id": [rows[0][1], rows[0][1]]})
    pq.write_table(table, tmp_path / "negatives.parquet")
    with pytest.raises(DataError, match=r"negatives\.parquet, row 2: there is no user None"):
        read_lists(tmp_path / "negatives.parquet", small_data)


UNREADABLE = {
    "missing": ("away.csv", None, "does not exist"),
    "of another kind": ("negatives.json", "{}", r"neither \.csv, \.tsv nor \.parquet"),
    "empty": ("negatives.csv", "", "cannot be read as csv"),
    "not parquet": ("negatives.parquet", "user_id,item_id", "cannot be read as parquet"),
    "ragged": ("negatives.csv", "user_id,item_id\n1,2\n1,2,3\n", "cannot be read as csv"),
    "other columns": ("negatives.csv", "user,item_id\n1,2\n", "has the columns user, item_id"),
    "a column twice": (
        "negatives.tsv",
        "user_id\titem_id\titem_id\n1\t2\t3\n",
        "has the columns user_id, item_id, item_id",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_files_are_one_sentence(name, content, message, small_data, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        read_lists(tmp_path / name, small_data)
