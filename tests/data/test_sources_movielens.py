"""Every official MovieLens layout is told from the files present and read as it stands."""

import zipfile

import pytest

from palate.data.sources.movielens import movielens
from palate.data.tables import check_tables
from palate.errors import DataError

U_DATA = "196\t242\t3\t881250949\n186\t302\t5\t891717742\n"
U_GENRE = "unknown|0\nAction|1\nComedy|2\n\n"
U_ITEM = (
    "242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|0|0|1\n"
    "302|Misérables|Les (1995)|01-Jan-1995||http://us.imdb.com/|0|1|1\n"
    "267|unknown||||1|0|0\n"
)
RATINGS_DAT = "1::122::5::838985046\n1::185::3.5::838983525\n"
MOVIES_DAT = (
    "122::Boomerang (1992)::Comedy|Romance\n"
    "185::Mission: Impossible :: Extra::Cut (1995)::Action|Sci-Fi\n"
    "186::Léon (1994)::(no genres listed)\n"
)


@pytest.fixture
def small(tmp_path):
    (tmp_path / "u.data").write_text(U_DATA)
    (tmp_path / "u.genre").write_text(U_GENRE)
    (tmp_path / "u.item").write_bytes(U_ITEM.encode("latin-1"))
    (tmp_path / "u1.base").write_text("1\t1\t1\t1\n")
    return tmp_path


@pytest.fixture
def large(tmp_path):
    (tmp_path / "ratings.dat").write_text(RATINGS_DAT)
    (tmp_path / "movies.dat").write_text(MOVIES_DAT, encoding="utf-8")
    return tmp_path


def test_100k(small):
    tables = movielens(small)
    check_tables(tables)
    assert tables.interactions.to_pylist() == [
        {"user_id": 196, "item_id": 242, "rating": 3.0, "timestamp": 881250949},
        {"user_id": 186, "item_id": 302, "rating": 5.0, "timestamp": 891717742},
    ]
    assert tables.items.to_pylist() == [
        {"item_id": 242, "title": "Kolya (1996)", "genres": "Comedy"},
        {"item_id": 302, "title": "Misérables|Les (1995)", "genres": "Action|Comedy"},
        {"item_id": 267, "title": "unknown", "genres": "unknown"},
    ]
    assert set(tables.origin["sha256"]) == {"u.data", "u.item", "u.genre"}


def test_100k_out_of_a_zip_with_a_folder(small):
    path = small / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("u.data", "u.item", "u.genre", "u1.base"):
            archive.write(small / name, f"ml-100k/{name}")
    assert movielens(path).items.equals(movielens(small).items)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_1m_and_10m(large, encoding, ends):
    (large / "movies.dat").write_bytes(MOVIES_DAT.replace("\n", ends).encode(encoding))
    (large / "ratings.dat").write_bytes(RATINGS_DAT.replace("\n", ends).encode())
    tables = movielens(large)
    check_tables(tables)
    assert tables.interactions["rating"].to_pylist() == [5.0, 3.5]
    assert tables.interactions["timestamp"].to_pylist() == [838985046, 838983525]
    assert tables.items["title"].to_pylist() == [
        "Boomerang (1992)",
        "Mission: Impossible :: Extra::Cut (1995)",
        "Léon (1994)",
    ]
    assert tables.items["genres"].to_pylist()[:2] == ["Comedy|Romance", "Action|Sci-Fi"]


def test_no_layout_is_found(tmp_path):
    (tmp_path / "songs.csv").write_text("a,b\n")
    expected = r"holds songs\.csv\. Expected .*ratings\.csv .*ratings\.dat .*u\.data"
    with pytest.raises(DataError, match=expected):
        movielens(tmp_path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match=r"holds no files\. Expected a folder or zip of MovieLens"):
        movielens(tmp_path / "empty.zip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1::122::5::1\n1::x::3::2\n", r"ratings\.dat line 2: movieId 'x' is not a whole number"),
        ("1::122::5::1\n1::2::3\n", r"ratings\.dat line 2: 3 values; expected 4 \(userId, movieId"),
        ("1::122::five::1\n", r"ratings\.dat line 1: rating 'five' is not a number"),
        ("1::122::nan::1\n", r"ratings\.dat line 1: rating 'nan' is not a number"),
    ],
)
def test_damaged_ratings_name_the_line(large, text, message):
    (large / "ratings.dat").write_text(text)
    with pytest.raises(DataError, match=message):
        movielens(large)


def test_damaged_movies_name_the_line(large):
    (large / "movies.dat").write_text(MOVIES_DAT + "\n187::No genres\n")
    with pytest.raises(DataError, match=r"movies\.dat line 5: '187::No genres' is not id::title"):
        movielens(large)
    (large / "movies.dat").write_text("one::Title::Drama\n")
    with pytest.raises(DataError, match=r"movies\.dat line 1: 'one' is not a whole number"):
        movielens(large)


def test_damaged_films_name_the_line(small):
    (small / "u.item").write_text("242|Kolya (1996)|24-Jan-1997|0|0|1\n")
    with pytest.raises(DataError, match=r"u\.item line 1: expected .* 3 genre flags"):
        movielens(small)
    (small / "u.genre").write_text("unknown|0\nAction|2\n")
    with pytest.raises(DataError, match=r"u\.genre: places \[0, 2\]"):
        movielens(small)


def test_an_empty_id_and_a_blank_line_name_the_right_line(tmp_path):
    ratings = "userId,movieId,rating,timestamp\n1,10,4.0,100\n\n,20,2.5,200\n"
    (tmp_path / "ratings.csv").write_text(ratings)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,Heat,Crime\n")
    with pytest.raises(DataError, match=r"ratings\.csv line 4: userId '' is not a whole number"):
        movielens(tmp_path)


def test_titles_in_another_encoding_name_the_line(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,100\n")
    movies = "movieId,title,genres\n10,Heat,Crime\n11,Léon,Crime\n"
    (tmp_path / "movies.csv").write_bytes(movies.encode("latin-1"))
    with pytest.raises(DataError, match=r"movies\.csv line 3: byte 0xe9 is not UTF-8.*iconv"):
        movielens(tmp_path)
    (tmp_path / "movies.csv").write_bytes(movies.encode("utf-16"))
    with pytest.raises(DataError, match=r"movies\.csv is UTF-16. Expected UTF-8"):
        movielens(tmp_path)


def test_an_unclosed_quotation_mark_names_the_line(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,100\n")
    rows = "".join(f"{i},Film {i},Drama\n" for i in range(20_000))
    (tmp_path / "movies.csv").write_text(f'movieId,title,genres\n1,"Heat,Crime\n{rows}')
    with pytest.raises(DataError, match=r"movies\.csv line 2: a quotation mark is opened"):
        movielens(tmp_path)
