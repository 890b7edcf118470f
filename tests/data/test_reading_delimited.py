"""Delimited text against Python's `csv`, and a sentence for what cannot be read."""

import csv
import io
import random

import pyarrow as pa
import pytest

from palate.data.reading import Delimited
from palate.errors import DataError

N_FILES = 10_000
ALPHABETS = (
    ["a", "b", '"', ",", "\t", "\n"],
    ["a", "é", '"', " ", '""', ",", "\t", "\n", "\r\n", "\r"],
    ["x", "1", '\\"', "'", "\u2028", "\x00", "\x0b"],
    ['a "b" c', '"q"', "plain", '5" disk', ""],
)


def rows_of(text: str, delimiter: str, **how) -> list[list[str]]:
    return [
        row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **how) if row
    ]


def by_python(text: str, delimiter: str) -> list[list[str]] | None:
    """The rows as `csv` has them, or None where it refuses the file.

    A TSV is quoted where each of its lines is, by itself, and is text without quoting otherwise.
    """
    text = text.removeprefix("\ufeff")
    try:
        for line in io.StringIO(text, newline="") if delimiter == "\t" else [text]:
            rows_of(line, delimiter, strict=True)
    except csv.Error:
        return rows_of(text, "\t", quoting=csv.QUOTE_NONE) if delimiter == "\t" else None
    return rows_of(text, delimiter, strict=True)


def generated(seed: int) -> tuple[str, str]:
    """(text, delimiter) of a small file, quoted well, badly or not at all."""
    draw = random.Random(seed)
    delimiter, n_columns = draw.choice(",\t"), draw.randint(1, 4)
    alphabet, end = draw.choice(ALPHABETS), draw.choice(["\n", "\n", "\n", "\r\n", "\r"])

    def value() -> str:
        text = "".join(draw.choice(alphabet) for _ in range(draw.randint(0, 4)))
        form = draw.random()
        if form < 0.45:
            doubled = text.replace('"', '""')
            return f'"{doubled}"'
        plain = text.replace("\n", "").replace("\r", "").replace(delimiter, "")
        return plain if form < 0.8 else text

    lines = [delimiter.join(f"c{i}" for i in range(n_columns))]
    for _ in range(draw.randint(0, 6)):
        lines += [""] * (draw.random() < 0.1)
        width = n_columns if draw.random() < 0.93 else draw.randint(1, 5)
        lines.append(delimiter.join(value() for _ in range(width)))
    start = draw.choice(["", "", "", "\ufeff", "\n", "\r\n\n"])
    return start + end.join(lines) + draw.choice([end, end, ""]), delimiter


def columns_as_rows(table: pa.Table) -> list[list[str]]:
    return [
        list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)
    ]


def test_ten_thousand_files_are_read_as_python_reads_them_or_refused():
    n_read = 0
    for seed in range(N_FILES):
        text, delimiter = generated(seed)
        expected = by_python(text, delimiter)
        try:
            file = Delimited(text.encode(), "x", delimiter)
            table, n_ragged = file.as_text(file.header)
        except DataError:
            assert expected is None or len(expected) < 2, (seed, text)
            continue
        assert expected is not None, (seed, text)
        fitting = [row for row in expected[1:] if len(row) == len(expected[0])]
        assert columns_as_rows(table) == fitting, (seed, text)
        assert table.num_rows + n_ragged == len(expected) - 1, (seed, text)
        n_read += 1
    assert n_read > N_FILES / 2  # the files are not all refused


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_files_of_many_blocks(delimiter):
    draw = random.Random(1)
    breaks = "\n\r\n" if delimiter == "," else ""
    cells = ['x"y', f'"q""u{breaks}ote"', "", "longer " * 50, f'"a{delimiter}b"']
    lines = [delimiter.join(draw.choice(cells) for _ in range(3)) for _ in range(30_000)]
    text = "\n".join([delimiter.join("abc"), *lines, ""])
    table, n_ragged = Delimited(text.encode(), "x", delimiter).as_text(list("abc"))
    assert len(text) > 3e6
    assert (columns_as_rows(table), n_ragged) == (rows_of(text, delimiter, strict=True)[1:], 0)


def test_a_value_of_megabytes():
    text = "a,b\n1," + "word " * 600_000 + '\n2,"' + "x\n" * 2_000_000 + '"\n3,4\n'
    file = Delimited(text.encode(), "x.csv")
    table, _ = file.as_text(["a", "b"])
    assert [len(value) for value in table["b"].to_pylist()] == [3_000_000, 4_000_000, 1]
    assert file.line_of_row(2) == 2_000_004
    with pytest.raises(DataError, match=r"line 2: b 'word word .* is not a whole number"):
        file.typed({"b": pa.int64()})
    assert csv.field_size_limit() == 131_072  # what others have set is left as it was


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('1,"x\n2,y\n', r"line 2: a quotation mark is opened and not closed, in '\"x'\. Fix"),
        ('1,x\n2,"a"b\n', r"line 3: .* \(the next one is followed by 'b'\), in '\"a\"b'"),
        ('1,"a\n2,"b"\n', r"line 2: .* \(the next one, on line 3, is followed by 'b\"'\)"),
        ('1,"a\\"b"\n', "line 2: a quotation mark is opened and not closed"),
    ],
)
def test_a_wrong_mark_in_a_csv_is_named_with_its_line(rows, message):
    with pytest.raises(DataError, match=message) as error:
        Delimited(f"a,b\n{rows}".encode(), "x.csv").as_text(["a", "b"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("titles", "quoted"),
    [
        (['"Heroes"', "Low"], True),
        (['"a ""b"" c"', '"x\ty"'], True),
        (['"Heroes', "Low"], False),
        (['"Heroes"', '"Low" and more'], False),
        (['"said "no""'], False),
        (['"one\nline"'], False),
        (['5" disk'], True),
    ],
)
def test_marks_of_a_tsv_are_quoting_only_where_all_are_in_pairs_on_their_line(titles, quoted):
    text = "title\tyear\n" + "".join(f"{title}\t1\n" for title in titles)
    assert Delimited(text.encode(), "x.tsv", "\t").quoted is quoted


def test_the_header_is_the_first_row_that_is_not_blank():
    file = Delimited(b'\xef\xbb\xbf\n  \r\n"a\nb", c\n1,2\n\n3\n', "x.csv")
    table, n_ragged = file.as_text(["a\nb", "c"])
    assert (columns_as_rows(table), n_ragged) == ([["1", "2"]], 1)
    assert file.first_ragged_line() == (7, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n", "holds no rows below its header"),
        (b"a,b\n\n\r\n", "holds no rows below its header"),
        (b"a,b", "has one line"),
        ('a,b\n"x,y'.encode("utf-16"), "is UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), "holds NUL bytes in its first line, as UTF-16 does"),
    ],
)
def test_files_without_rows_and_in_other_encodings(content, message):
    file = Delimited(content, "x.csv")
    with pytest.raises(DataError, match=message):
        file.as_text(["a", "b"])


def test_numbers_that_are_codes_stay_text():
    text = "sku,ean,year,price,share\n007,12345678901234567890,1999,1.50,\n12,1,2001,2,0.5\n"
    table = Delimited(text.encode(), "x.csv").inferred([])
    assert table.to_pydict() == {
        "sku": ["007", "12"],
        "ean": ["12345678901234567890", "1"],
        "year": [1999, 2001],
        "price": [1.5, 2.0],
        "share": [None, 0.5],
    }
