"""Amazon item sequences."""

import gzip

import numpy as np
import pytest

from conftest import shared
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources import load
from palate.data.sources.amazon import amazon
from palate.data.tables import check_tables
from palate.errors import DataError, DataWarning

SEQUENCES = "user_id\titem_ids\tgap_seconds\n7\t3 1 2\t0 0 5\n8\t2\t0\n"
ITEMS = (
    "item_id\tasin\ttitle\tattribute_ids\n"
    '1\tB01\t"Cr&egrave;me ""Soft"", 4 oz"\t2 1\n2\tB02\t\t1\n3\tB03\tPlain\t1\n'
)
ATTRIBUTES = "attribute_id\tname\titem_count\n1\tClean &amp; Clear\t3\n2\tFace\t1\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences.tsv.gz").write_bytes(gzip.compress(SEQUENCES.encode()))
    (tmp_path / "items.tsv").write_text(ITEMS)
    (tmp_path / "attributes.tsv").write_text(ATTRIBUTES)
    return tmp_path


def test_sequences_are_unrolled_in_order(folder):
    tables = amazon(folder)
    check_tables(tables)
    assert tables.interactions.to_pydict() == {
        "user_id": [7, 7, 7, 8],
        "item_id": [3, 1, 2, 2],
        "elapsed": [0, 0, 5, 0],
    }
    assert tables.items.to_pylist()[0] == {
        "item_id": 1,
        "title": 'Crème "Soft", 4 oz',
        "asin": "B01",
        "genres": "Face|Clean & Clear",
    }
    assert set(tables.origin["sha256"]) == {"sequences.tsv.gz", "items.tsv", "attributes.tsv"}


def test_gaps_are_optional_and_add_up_from_the_first_item(folder):
    text = "user_id\titem_ids\tgap_seconds\n7\t3 1 2\t86400 0 5\n8\t2 1\t7 9\n"
    (folder / "sequences.tsv").write_text(text)
    assert amazon(folder).interactions["elapsed"].to_pylist() == [0, 0, 5, 0, 9]
    (folder / "sequences.tsv").write_text("user_id\titem_ids\n7\t3 1\n")
    assert amazon(folder).interactions.column_names == ["user_id", "item_id"]


def test_gaps_tell_times_but_neither_order_nor_moments(folder, tmp_path):
    """Ties are in item-id order, for which they would be shuffled if dates were known."""
    text = "user_id\titem_ids\tgap_seconds\n7\t1 2 3\t0 0 0\n8\t1 2 3\t0 60 0\n"
    (folder / "sequences.tsv").write_text(text)
    manifest = prepare(amazon(folder), tmp_path / "out", Preparation(k_core=1), seed=0)
    assert manifest["ties"] == {"rule": "source order; no timestamps"}
    data = Prepared(tmp_path / "out", window=1)
    assert data.interactions.items.tolist() == [0, 1, 2, 0, 1, 2]
    last = data.contexts("test")[1]
    assert (last.times.tolist(), last.timestamp) == ([0, 60], None)
    assert [one.times.tolist() for one in data.training_histories] == [[0], [0]]
    with pytest.raises(DataError, match="'global_time' needs a timestamp column, which this sou"):
        prepare(amazon(folder), tmp_path / "no", Preparation(k_core=1, split="global_time"), 0)


def test_attributes_are_optional(folder):
    (folder / "attributes.tsv").unlink()
    assert amazon(folder).items.column_names == ["item_id", "title", "asin"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sequences.tsv", "user_id\titem_ids\n7\t3 1\n8\t2 x\n", "line 3: item_ids '2 x' is not"),
        ("sequences.tsv", "user_id\titem_ids\n7\t\n", "line 2: item_ids '' is not a list"),
        ("sequences.tsv", "user_id\titems\n7\t1\n", "'item_ids' is missing; .* user_id, items"),
        ("sequences.tsv", SEQUENCES + "9\t1 2\t0\n", "line 4: gap_seconds has 1 numbers for 2 it"),
        ("sequences.tsv", SEQUENCES + "9\t1\t-4\n", "line 4: gap_seconds '-4' is not a list of w"),
        ("items.tsv", ITEMS + "x\tB\tT\t1\n", r"items\.tsv line 5: item_id 'x' is not a whole"),
        ("items.tsv", ITEMS + "4\tB\tT\t9\n", r"items\.tsv line 5: attribute_ids names '9', whic"),
    ],
)
def test_what_is_wrong_is_named(folder, name, text, message):
    (folder / "sequences.tsv").write_text(SEQUENCES)
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        amazon(folder)


def test_missing_and_cut_files(folder):
    path = folder / "sequences.tsv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match="is not a complete gzip file"):
        amazon(folder)
    path.unlink()
    with pytest.raises(
        DataError, match=r"has no file sequences\.tsv; found attributes\.tsv, items"
    ):
        amazon(folder)
    with pytest.raises(DataError, match=r"does not exist\. Expected a folder with sequences"):
        amazon(folder / "nowhere")
    with pytest.raises(DataError, match=r"is a file\. Expected a folder with sequences"):
        amazon(folder / "items.tsv")


def test_beauty():
    with pytest.warns(DataWarning, match="cut 156 of 12101 titles"):
        tables = load("amazon", {"path": str(shared("data/amazon-beauty"))})
    check_tables(tables)
    assert tables.interactions.num_rows == 198_502
    elapsed = tables.interactions["elapsed"].to_numpy()
    users = tables.interactions["user_id"].to_numpy()
    gaps = np.diff(elapsed)[users[1:] == users[:-1]]
    assert gaps.min() == 0
    assert round((gaps == 0).mean(), 2) == 0.44
    assert (gaps % 86_400 == 0).all()
    first = tables.items.to_pylist()[0]
    assert first["genres"] == "OPI|Makeup|Nails|Nail Polish"
