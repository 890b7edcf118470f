"""The user's own log: every layout it may have, and a sentence for everything wrong with it."""

import csv
import datetime
import decimal
import gzip
import io
import random
import shlex
import warnings
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import shared
from palate.data.prepare import Preparation, prepare
from palate.data.sources import MAX_TITLE, check_options, load
from palate.data.sources.files import files
from palate.data.tables import SourceTables, check_tables
from palate.errors import ConfigError, DataError, DataWarning

HEADER = "user_id,item_id,rating,timestamp\n"


@pytest.fixture
def log(tmp_path):
    def written(text, name="log.csv", **options) -> SourceTables:
        content = text.encode() if isinstance(text, str) else text
        (tmp_path / name).write_bytes(content)
        return files(tmp_path / name, **options)

    return written


@pytest.fixture
def parquet(tmp_path):
    def written(**columns) -> SourceTables:
        pq.write_table(pa.table(columns), tmp_path / "log.parquet")
        return files(tmp_path / "log.parquet")

    return written


def times(tables):
    return tables.interactions["timestamp"].to_pylist()


def test_without_an_item_file_the_ids_are_titles(log):
    tables = log(HEADER + "1,10,4,100\n2,20,3.5,200\n")
    check_tables(tables)
    assert tables.interactions.to_pylist() == [
        {"user_id": 1, "item_id": 10, "rating": 4.0, "timestamp": 100},
        {"user_id": 2, "item_id": 20, "rating": 3.5, "timestamp": 200},
    ]
    assert tables.items.to_pylist() == [
        {"item_id": 10, "title": "10"},
        {"item_id": 20, "title": "20"},
    ]
    assert len(tables.origin["sha256"]["log.csv"]) == 64


def test_titles_in_the_log(log):
    with pytest.warns(DataWarning, match="1 of 2 items have several titles, such as item 2"):
        tables = log("user_id,item_id,title\n1,2,\n1,2,Heat\n1,3, \n2,2,HEAT\n")
    assert tables.items.to_pydict() == {"item_id": [2, 3], "title": ["Heat", "3"]}
    assert tables.interactions.column_names == ["user_id", "item_id"]


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.csv.gz", "log.tsv.gz"])
def test_delimiter_and_compression_are_told_from_the_name(log, name):
    text = HEADER + "a,x,4,100\n"
    content = (text.replace(",", "\t") if ".tsv" in name else text).encode()
    tables = log(gzip.compress(content, mtime=0) if name.endswith(".gz") else content, name)
    assert tables.interactions["item_id"].to_pylist() == ["x"]


def test_mapped_columns_and_an_item_file_with_more_columns(log, tmp_path):
    (tmp_path / "items.tsv").write_text('asin\tname\titem_id\tyear\nB1\t"a ""b"" c"\t7\t1999\n')
    tables = log(
        "uid,sku,stars\nu1,B1,5\n",
        items="items.tsv",
        columns={"user_id": "uid", "item_id": "sku", "rating": "stars"},
        item_columns={"item_id": "asin", "title": "name"},
    )
    check_tables(tables)
    assert tables.interactions.to_pylist() == [{"user_id": "u1", "item_id": "B1", "rating": 5.0}]
    assert tables.items.to_pylist() == [{"item_id": "B1", "title": 'a "b" c', "year": 1999}]
    assert set(tables.origin["sha256"]) == {"log.csv", "items.tsv"}


def test_ids_of_log_and_items_get_one_type(log, tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\n10,Heat\nx,Alien\n")
    tables = log(HEADER + "1,10,4,100\n", items=str(tmp_path / "items.csv"))
    check_tables(tables)
    assert tables.interactions["item_id"].to_pylist() == ["10"]
    assert tables.interactions["user_id"].to_pylist() == [1]


def test_leading_zeros_and_large_hashes_stay_apart(log, parquet):
    assert log("user_id,item_id\n007,1\n7,1\n").interactions["user_id"].to_pylist() == ["007", "7"]
    hashed = parquet(user_id=pa.array([2**63 + 1, 1], pa.uint64()), item_id=["a", "b"])
    assert hashed.interactions["user_id"].to_pylist() == [str(2**63 + 1), "1"]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (["1700000000", "1"], [1700000000, 1]),
        (["1700000000.0", "1700000001.7"], [1700000000, 1700000001]),
        (["1700000000123", "1700000001999"], [1700000000, 1700000001]),
        (["1700000000123456"], [1700000000]),
        (["1700000000123456789"], [1700000000]),
        (["1970-01-02", "1970-01-01T00:00:07Z"], [86400, 7]),
        (["1970-01-01 01:00:00.9+01:00", "1970-01-01T01:00"], [0, 3600]),
        (["1970-01-01 00:00:05 UTC", "1970-01-01T00:00:05-0030"], [5, 1805]),
        (["1970-01-01", "9999-12-31T00:00:00Z"], [0, 253402214400]),
    ],
)
def test_times_become_unix_seconds(log, written, seconds):
    rows = "".join(f"1,10,{text}\n" for text in written)
    assert times(log("user_id,item_id,timestamp\n" + rows)) == seconds


def test_parquet_times(parquet):
    ids = {"user_id": pa.array([1, 2], pa.int32()), "item_id": pa.array(["a", "b"])}
    ids["item_id"] = ids["item_id"].dictionary_encode()
    second = datetime.datetime(1969, 12, 31, 23, 59, 59, 500_000)
    plain = pa.array([datetime.datetime(1970, 1, 2), second])
    assert times(parquet(**ids, timestamp=plain)) == [86400, -1]
    zoned = pa.array([0, 86_400_000_000_000], pa.timestamp("ns", "Asia/Tokyo"))
    assert times(parquet(**ids, timestamp=zoned)) == [0, 86400]
    dates = pa.array([datetime.date(1970, 1, 2), datetime.date(1970, 1, 1)])
    assert times(parquet(**ids, timestamp=dates)) == [86400, 0]
    with pytest.raises(DataError, match=r"log\.parquet row 2: timestamp is empty\. Expected Unix"):
        parquet(**ids, timestamp=pa.array([datetime.date(1970, 1, 2), None]))


def test_position_orders_the_rows_stably(log):
    tables = log("user_id,item_id,position\nb,x,2\na,y,1\nb,z,1\nb,w,10\n")
    assert tables.interactions.to_pydict() == {
        "user_id": ["a", "b", "b", "b"],
        "item_id": ["y", "z", "x", "w"],
        "position": [1.0, 1.0, 2.0, 10.0],
    }


def test_without_clock_or_position_the_rows_are_the_order(log):
    assert log("user_id,item_id\n2,b\n1,a\n").interactions["item_id"].to_pylist() == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1,10,4,100\n\n2,20,five,200\n3,20,,1\n",
            r"log\.csv line 4: rating 'five' is not a number\. Expected a finite number such as "
            r"4\.5\. Fix it or pass --set data\.options\.on_bad_rows=drop \(2 rows would be dro",
        ),
        ("1,10,NaN,100\n", r"line 2: rating 'NaN' is not a number.* \(1 row would be dropped\)"),
        ("1,10,inf,100\n", "line 2: rating 'inf' is not a number"),
        ("1,10,,100\n", r"line 2: rating is empty\. Expected a finite number"),
        (",10,4,100\n", r"line 2: user_id is empty\. Expected an id"),
        ("1, ,4,100\n", r"line 2: item_id is empty\. Expected an id"),
        ("1,10,4,100\n1,10,4,yesterday\n", "line 3: timestamp 'yesterday' is no time"),
        ("1,10,4,2024-01-31\n1,10,4,2024-02-31\n", "line 3: timestamp '2024-02-31' is no time"),
        ('1,"a\nb",4,100\n1,2,x,5\n', "line 4: rating 'x' is not a number"),
        ("1,10,4,100\n1,2\n", r"line 3: 2 values\. Expected 4, as in the first line"),
        ("1,10,4,1700000000000\n1,10,4,170000\n", "mixes seconds and milliseconds"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_value(log, text, message):
    with pytest.raises(DataError, match=message):
        log(HEADER + text)


def test_bad_rows_can_be_dropped_and_are_counted(log):
    text = HEADER + "1,10,4,100\n\n2,20,five,200\n3,20,nan,1\n4,2\n5,30,1,9\n"
    with pytest.warns(DataWarning, match=r"log\.csv: dropped 3 of 5 rows, which cannot be read"):
        tables = log(text, on_bad_rows="drop")
    check_tables(tables)
    assert tables.interactions["user_id"].to_pylist() == [1, 5]
    assert tables.origin["rows_dropped"] == 3
    with pytest.raises(DataError, match=r"none of 1 rows can be read; line 2: rating 'x'"):
        log(HEADER + "1,10,x,100\n", on_bad_rows="drop")


def test_skipped_items_need_no_rating(log):
    tables = log("user_id,item_id,rating,timestamp,event\n1,2,,3,skip\n1,3,4,5,\n")
    check_tables(tables)
    assert tables.interactions["rating"].to_pylist() == [None, 4.0]
    with pytest.raises(DataError, match="line 3: rating is empty"):
        log("user_id,item_id,rating,timestamp,event\n1,2,,3,skip\n1,3,,5,view\n")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "log.csv", r"log\.csv is empty\. Expected a file of interactions"),
        (HEADER.strip(), "log.csv", r"log\.csv has one line\. Expected a header and rows"),
        ("user_id;item_id\n1;2\n", "log.csv", "has one column, 'user_id;item_id'. Expected sev"),
        ("user_id,item_id,item_id\n1,2,3\n", "log.csv", "two columns are named 'item_id'"),
        (
            "uid,item_id\n1,2\n",
            "log.csv",
            r"'user_id' is missing; found uid, item_id\. .*user_id=uid",
        ),
        ("user_id,item_id\n1,2\n".encode("utf-16"), "log.csv", r"log\.csv is UTF-16"),
        ("user_id,item_id\né,2\n".encode("latin-1"), "log.csv", "line 2: byte 0xe9 is not UTF-8"),
        ("x", "log.txt", r"log\.txt has an unknown ending\. Expected \.csv"),
        ("user_id", "log.csv.gz", r"not a complete gzip file \(Not a gzipped file"),
        (
            gzip.compress(b"user_id,item_id\n" * 99, mtime=0)[:-20],
            "log.csv.gz",
            "not a complete gzip file",
        ),
        (b"PAR1xxxx", "log.parquet", "is not a complete Parquet file"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(log, content, name, message):
    with pytest.raises(DataError, match=message) as error:
        log(content, name)
    assert "\n" not in str(error.value)


def test_missing_files(log, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist\. Expected a file of inter"):
        files(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"is a folder\. Expected a file of interactions"):
        files(tmp_path)
    with pytest.raises(DataError, match=r"items\.csv does not exist\. Expected a file of items"):
        log(HEADER + "1,10,4,100\n", items="items.csv")


def test_byte_order_mark_and_carriage_returns(log):
    tables = log("\ufeffuser_id,item_id\r\n1,2\r\n")
    assert tables.interactions.to_pylist() == [{"user_id": 1, "item_id": 2}]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            "item_id,name\n10,Heat\n",
            r"'title' is missing; found item_id, name\..*item_columns\.OURS",
        ),
        ("item_id,title\n10,Heat\n,Foo\n", r"items\.csv line 3: item_id is empty"),
        ("item_id,title\n10,Heat\n11\n", r"items\.csv line 3: 1 values; expected 2"),
    ],
)
def test_bad_item_files(log, tmp_path, items, message):
    (tmp_path / "items.csv").write_text(items)
    with pytest.raises(DataError, match=message):
        log(HEADER + "1,10,4,100\n", items="items.csv")


def test_items_that_the_item_file_lacks_are_reported(log, tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\n10,Heat\n")
    tables = log(HEADER + "1,10,4,100\n1,11,4,100\n", items="items.csv")
    with pytest.raises(DataError, match=r"1 rows name an item that the item table lacks.* 11"):
        check_tables(tables)


def test_an_index_without_a_name_is_left_out(log, tmp_path):
    (tmp_path / "items.csv").write_text(",item_id,title\n0,10,Heat\n")
    tables = log(",user_id,item_id\n0,1,10\n", items="items.csv")
    assert tables.items.column_names == ["item_id", "title"]


def test_parquet_items(log, tmp_path):
    titles = pa.array(["Heat", None, "Alien"]).dictionary_encode()
    table = pa.table({"item_id": [10, 11, 12], "title": titles, "tags": [["a"], [], None]})
    pq.write_table(table, tmp_path / "items.parquet")
    tables = log(HEADER + "1,10,4,100\n", items="items.parquet")
    check_tables(tables)
    assert tables.items["title"].to_pylist() == ["Heat", "", "Alien"]
    assert tables.items["tags"].to_pylist() == [["a"], [], None]
    pq.write_table(pa.table({"item_id": [10], "title": [["Heat"]]}), tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet: column 'title' is of type list"):
        log(HEADER + "1,10,4,100\n", items="items.parquet")
    pq.write_table(pa.table({"item_id": [None, 10], "title": ["", ""]}), tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet row 1: item_id is empty"):
        log(HEADER + "1,10,4,100\n", items="items.parquet")


def test_unreadable_parquet_columns(parquet):
    with pytest.raises(DataError, match="'user_id' is of type list"):
        parquet(user_id=[[1]], item_id=[1])
    with pytest.raises(DataError, match="'user_id' of type binary does not read as user_id"):
        parquet(user_id=[b"\xff"], item_id=[1])
    with pytest.raises(DataError, match="row 2: user_id is empty"):
        parquet(user_id=[1.0, None], item_id=[1, 2])


def test_options_are_checked():
    assert check_options("files", {"path": "x", "on_bad_rows": "ignore"}) == [
        "data.options.on_bad_rows: input should be 'error' or 'drop'; found 'ignore'."
    ]
    with pytest.raises(ConfigError, match=r"'usr_id' is no column of .* Did you mean 'user_id'"):
        files("log.csv", columns={"usr_id": "id"})


def test_long_titles_are_cut_for_every_source(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\n1,1\n1,2\n")
    (tmp_path / "items.csv").write_text(f"item_id,title\n1,{'é' * 10_000}\n2,{'b' * MAX_TITLE}\n")
    with pytest.warns(DataWarning, match=f"items: cut 1 of 2 titles to {MAX_TITLE} characters"):
        tables = load("files", {"path": str(tmp_path / "log.csv"), "items": "items.csv"})
    assert tables.items["title"].to_pylist() == ["é" * MAX_TITLE, "b" * MAX_TITLE]
    assert tables.origin["titles_cut"] == 1


def test_real_files():
    tables = files(
        shared("data/lastfm-plays/plays.tsv.gz"),
        items="artists.tsv.gz",
        columns={"item_id": "artist_id"},
        item_columns={"item_id": "artist_id", "title": "name"},
    )
    check_tables(tables)
    assert (tables.interactions.num_rows, tables.items.num_rows) == (92_834, 17_632)


def test_order_within_a_second_is_kept(log, tmp_path):
    rows = [(user, item, 1_700_000_000_000 + item * 7) for user in (1, 2) for item in range(9)]
    text = "".join(f"{user},{8 - item},{time}\n" for user, item, time in reversed(rows))
    tables = log("user_id,item_id,timestamp\n" + text)
    check_tables(tables)
    assert tables.interactions.column_names == ["user_id", "item_id", "timestamp", "nanosecond"]
    assert set(times(tables)) == {1_700_000_000}
    how = Preparation(k_core=1)
    ties = prepare(tables, tmp_path / "data", how, seed=0)["ties"]
    found = pq.read_table(tmp_path / "data/interactions.parquet")
    assert found["item_id"].to_pylist() == [8, 7, 6, 5, 4, 3, 2, 1, 0] * 2
    assert ties["tied_groups"] == 0  # times of one second are not the same time
    assert "nanosecond" not in found.column_names


def test_a_value_for_unknown_names_its_line_and_can_be_dropped(log):
    text = "user_id,item_id,timestamp\n1,2,2023-01-02\n1,3,1970-01-01\n1,4,2023-01-03\n"
    with pytest.raises(
        DataError, match=r"log\.csv line 3: timestamp '1970-01-01' stands for \"unknown\""
    ):
        log(text)
    with pytest.warns(DataWarning, match="dropped 1 of 3 rows"):
        assert log(text, on_bad_rows="drop").interactions["item_id"].to_pylist() == [2, 4]


def test_names_and_endings_that_mislead(log, tmp_path):
    text = b"user_id,item_id\n1,2\n"
    for name in ("LOG.CSV.GZ", "log.csv", "log.CSV"):
        content = gzip.compress(text, mtime=0) if "csv" in name.lower() else text
        assert log(content, name).interactions["item_id"].to_pylist() == [2]
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), tmp_path / "x.parquet")
    parquet = (tmp_path / "x.parquet").read_bytes()
    assert log(parquet, "log.csv").interactions["item_id"].to_pylist() == [2]
    with pytest.raises(DataError, match=r"log\.csv is a zip archive \(so are Excel's"):
        log(b"PK\x03\x04" + bytes(99), "log.csv")


def test_empty_tables_are_called_empty(log, parquet, tmp_path):
    with pytest.raises(DataError, match=r"log\.parquet is empty: it holds no rows"):
        parquet(user_id=pa.array([], pa.int64()), item_id=pa.array([], pa.int64()))
    pq.write_table(
        pa.table({"item_id": pa.array([], pa.int64()), "title": pa.array([], pa.string())}),
        tmp_path / "items.parquet",
    )
    with pytest.raises(DataError, match=r"items\.parquet is empty: it holds no rows"):
        log(HEADER + "1,10,4,100\n", items="items.parquet")
    with pytest.raises(DataError, match=r"log\.csv holds no rows below its header"):
        log(HEADER)


def test_whole_ids_with_a_zero_fraction(log, parquet, tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\n3,Heat\n12,Alien\n")
    tables = log("user_id,item_id\n1.0,3.0\n2.0,12.0\n", items="items.csv")
    check_tables(tables)
    assert tables.interactions.to_pydict() == {"user_id": [1, 2], "item_id": [3, 12]}
    ids = pa.array([decimal.Decimal(3), decimal.Decimal(12)], pa.decimal128(38, 10))
    assert parquet(user_id=ids, item_id=ids).interactions["item_id"].to_pylist() == [3, 12]
    versions = log("user_id,item_id\n1,1.0\n1,1.1\n").interactions["item_id"].to_pylist()
    assert versions == ["1.0", "1.1"]
    (tmp_path / "items.csv").write_text("item_id,title\n3.0,Heat\n12.0,Alien\nx,Thor\n")
    tables = log("user_id,item_id\n1,3.0\n2,12.0\n", items="items.csv")
    check_tables(tables)
    assert tables.items["item_id"].to_pylist() == ["3", "12", "x"]


def test_ids_with_a_letter_and_its_accent_apart(log, tmp_path):
    one, two = (normalize(form, "Beyoncé") for form in ("NFC", "NFD"))
    (tmp_path / "items.csv").write_text(f"item_id,title\n{one},Halo\n")
    tables = log(f"user_id,item_id\n1,{two}\n", items="items.csv")
    check_tables(tables)


def test_marks_in_a_tsv_are_told_in_the_manifest(log, tmp_path):
    rows = "".join(f"1\t{item}\t{title}\n" for item, title in ((1, '"Heroes'), (2, '"Low')))
    tables = log("user_id\titem_id\ttitle\n" + rows, "log.tsv")
    assert tables.items["title"].to_pylist() == ['"Heroes', '"Low']
    assert tables.origin["quotation_marks"] == {"log.tsv": "text"}
    (tmp_path / "items.tsv").write_text('item_id\ttitle\n1\t"a ""b"""\n2\tc\n')
    tables = log("user_id,item_id\n1,1\n", items="items.tsv")
    assert tables.items["title"].to_pylist() == ['a "b"', "c"]
    assert tables.origin["quotation_marks"] == {"items.tsv": "quoting"}


def test_a_column_without_a_name_is_left_out_with_a_word(log, tmp_path):
    (tmp_path / "items.csv").write_text(",item_id,title\nred,10,Heat\n")
    with pytest.warns(DataWarning, match=r"items\.csv: left out 1 column\(s\) that have no name"):
        log("user_id,item_id\n1,10\n", items="items.csv")


def test_positions_of_many_digits_keep_their_order(log):
    start = 1_700_000_000_000_000_000
    rows = "".join(f"1,{item},{start - item}\n" for item in range(5))
    tables = log("user_id,item_id,position\n" + rows)
    assert tables.interactions["item_id"].to_pylist() == [4, 3, 2, 1, 0]


def test_a_flag_that_is_proposed_can_be_typed(log):
    with pytest.raises(DataError, match="name yours with --set") as error:
        log("the user's_id,item_id\n1,2\n", columns={"user_id": "the user's id"})
    *_, flag = shlex.split(str(error.value).removesuffix("."))
    assert flag == "data.options.columns.user_id=the user's_id"


def test_rows_read_and_rows_dropped_add_up_to_the_rows_of_the_file(log):
    values = ["1", "2.0", "", "x", "2023-01-02", "2023-02-30", "0", '"', '"a""b"', "NULL", "1,2"]
    n_read = n_refused = 0
    for seed in range(300):
        draw = random.Random(seed)
        lines = [",".join(draw.choice(values) for _ in range(4)) for _ in range(draw.randint(1, 9))]
        text = HEADER + "\n".join(["1,2,3,2023-01-03", *lines]) + "\n"
        try:
            rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row][1:]
        except csv.Error:
            rows = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            try:
                tables = log(text, on_bad_rows="drop")
            except DataError:
                n_refused += 1
                continue
        assert rows is not None
        kept, dropped = tables.interactions.num_rows, tables.origin["rows_dropped"]
        assert kept + dropped == len(rows), text
        n_read += 1
    assert min(n_read, n_refused) > 20


@pytest.mark.parametrize("name", ["NULL", r"\N", "None", "nan", "NaN", "<NA>", "1.23457E+18"])
def test_what_stands_for_no_id_is_nobody(log, name):
    text = f"user_id,item_id\na,1\n{name},2\n{name},3\n"
    with pytest.raises(DataError, match=r"line 3: user_id .* stands for no id, or has lost digits"):
        log(text)
    with pytest.warns(DataWarning, match="dropped 2 of 3 rows"):
        assert log(text, on_bad_rows="drop").interactions["user_id"].to_pylist() == ["a"]


def test_ids_that_only_look_like_nothing_stay(log):
    named = ["NA", "nothing", "1e5", "Nanette", "0"]
    tables = log("user_id,item_id\n" + "".join(f"{one},1\n" for one in named))
    assert tables.interactions["user_id"].to_pylist() == named


@pytest.mark.parametrize(("kind", "largest"), [(pa.float64(), 2**53), (pa.float32(), 2**24)])
def test_float_ids_that_have_lost_digits_are_refused(parquet, kind, largest):
    ids = pa.array([float(largest - 1), 5.0]).cast(kind)
    assert parquet(user_id=[1, 1], item_id=ids).interactions["item_id"].to_pylist()[1] == 5
    with pytest.raises(DataError, match=r"row 2: item_id .* has lost digits"):
        parquet(user_id=[1, 1], item_id=pa.array([5.0, float(largest)]).cast(kind))


def test_a_bad_time_in_nanoseconds_is_a_sentence(parquet):
    moments = pa.array([1, 10**18], pa.timestamp("ns"))
    with pytest.raises(DataError, match=r"row 1: timestamp '1970-01-01 .* stands for"):
        parquet(user_id=[1, 1], item_id=[1, 2], timestamp=moments)


@pytest.mark.parametrize("year", [1, 2400, 2500, 2999, 9999])
def test_far_times_of_int96_are_not_wrapped(tmp_path, year):
    ours = datetime.datetime(2024, 3, 31, 18, 0, 0, 5)
    moments = pa.array([ours, datetime.datetime(year, 12, 31)], pa.timestamp("us"))
    table = pa.table({"user_id": [1, 1], "item_id": [1, 2], "timestamp": moments})
    pq.write_table(table, tmp_path / "log.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(DataError, match=rf"row 2: timestamp '{year:04d}-12-31 .* stands for"):
        files(tmp_path / "log.parquet")
    near = table.slice(0, 1)
    pq.write_table(near, tmp_path / "log.parquet", use_deprecated_int96_timestamps=True)
    tables = files(tmp_path / "log.parquet")
    assert times(tables) == [1711908000]
    assert tables.interactions["nanosecond"].to_pylist() == [5000]


def test_columns_in_capitals_are_proposed(log):
    with pytest.raises(DataError, match=r"--set data\.options\.columns\.user_id=USER_ID"):
        log("USER_ID,ITEM_ID\n1,2\n")


@pytest.mark.parametrize(
    "second",
    [HEADER, "\ufeff" + HEADER, '\ufeff"user_id",item_id,rating,timestamp\n'],
)
def test_a_second_header_is_a_bad_row_with_its_line(log, second):
    one, other = "1,10,4,100\n2,20,3,200\n", "1,30,5,300\n"
    with pytest.raises(
        DataError, match=r"line 4: user_id .* stand there again.*drop \(1 row would"
    ):
        log(HEADER + one + second + other)
    with pytest.warns(DataWarning, match="dropped 1 of 4 rows"):
        found = log(HEADER + one + second + other, on_bad_rows="drop")
    assert found.interactions.equals(log(HEADER + one + other).interactions)


def test_a_second_header_leaves_ratings_needed_beside_one_event(log):
    head = "user_id,item_id,rating,event\n"
    with pytest.warns(DataWarning, match="dropped 2 of 4 rows"):
        found = log(head + "1,10,4,x\n1,11,,x\n" + head + "1,12,3,x\n", on_bad_rows="drop")
    assert found.interactions["item_id"].to_pylist() == [10, 12]


def test_an_id_that_is_called_like_its_column_is_no_header(log):
    found = log("user_id,item_id\nuser_id,a\nb,item_id\n")
    assert found.interactions["user_id"].to_pylist() == ["user_id", "b"]


def test_a_second_header_among_the_items_is_refused_with_its_line(log, tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\n10,A\nitem_id,title\n20,B\n")
    with pytest.raises(DataError, match=r"items\.csv line 3: the names of the columns stand there"):
        log(HEADER + "1,10,4,100\n2,20,3,200\n", items="items.csv")
