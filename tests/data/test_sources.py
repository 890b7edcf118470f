"""Sources read the official layouts and refuse damaged files in one sentence."""

import zipfile

import pytest

from conftest import shared
from palate.data.sources import check_options, load
from palate.data.sources.movielens import movielens
from palate.errors import ConfigError, DataError

RATINGS = "userId,movieId,rating,timestamp\n1,10,4.0,100\n1,20,2.5,200\n"
MOVIES = 'movieId,title,genres\n10,"Matrix, The (1999)",Action|Sci-Fi\n20,Heat (1995),Crime\n'


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "ml"
    path.mkdir()
    (path / "ratings.csv").write_text(RATINGS)
    (path / "movies.csv").write_text(MOVIES)
    return path


def zipped(folder, name="ml.zip", inside="ml-latest-small/"):
    path = folder.parent / name
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
    return path


def test_folder_and_zip_give_the_same_tables(folder):
    from_folder, from_zip = movielens(folder), movielens(zipped(folder))
    assert from_folder.interactions.equals(from_zip.interactions)
    assert from_zip.items["title"].to_pylist() == ["Matrix, The (1999)", "Heat (1995)"]
    assert from_folder.interactions["rating"].to_pylist() == [4.0, 2.5]
    assert from_folder.origin["sha256"] == from_zip.origin["sha256"]


def test_official_files():
    tables = movielens(shared("data/ml-latest-small"))
    assert tables.interactions.num_rows == 100_836
    assert tables.items.num_rows == 9_742


def test_missing_file(folder):
    (folder / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"has no file movies\.csv"):
        movielens(folder)
    with pytest.raises(DataError, match="does not exist"):
        movielens(folder / "nowhere")


def test_missing_column(folder):
    (folder / "ratings.csv").write_text("userId,movieId,stars,timestamp\n1,10,4,100\n")
    with pytest.raises(DataError, match=r"ratings\.csv: column 'rating' is missing; .* stars"):
        movielens(folder)


def test_text_in_ratings_names_the_line(folder):
    (folder / "ratings.csv").write_text(RATINGS + "2,10,five,300\n")
    with pytest.raises(DataError, match=r"ratings\.csv line 4: rating 'five' is not a number"):
        movielens(folder)


def test_zip_cut_in_half(folder):
    path = zipped(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="not a complete zip file"):
        movielens(path)


def test_zip_pointing_outside_is_refused_and_nothing_unpacked(folder):
    path = zipped(folder, inside="../")
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(DataError, match="points outside the archive"):
        movielens(path)
    assert sorted(folder.parent.rglob("*")) == before


def test_an_option_with_a_typo_is_named():
    assert check_options("simulate", {"n_user": 10}) == [
        "data.options.n_user: source 'simulate' has no such option. Did you mean 'n_users'?"
    ]
    (wrong,) = check_options("simulate", {"n_users": "abc"})
    assert wrong.startswith("data.options.n_users: input should be a valid integer")
    assert wrong.endswith("found 'abc'.")
    assert check_options("movielens", {}) == ["data.path: source 'movielens' needs it."]
    with pytest.raises(ConfigError, match="Did you mean 'simulate'"):
        load("simulat", {})


def test_simulate_is_a_function_of_its_options():
    options = {"n_users": 20, "n_items": 30, "seed": 4}
    assert load("simulate", options).interactions.equals(load("simulate", options).interactions)
