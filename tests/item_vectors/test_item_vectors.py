"""What a configuration asks for, made once, kept, counted and said."""

import os

import numpy as np
import pytest
from PIL import Image

from conftest import shared
from item_vectors.catalogues import catalogue
from item_vectors.small_models import saved_image_encoder, saved_text_encoder
from palate.config import parse_config
from palate.data.sources import load
from palate.errors import ConfigError, DataError, DataWarning
from palate.item_vectors import item_vectors

ITEMS = catalogue(["red moon", "red harbour", "item 12", "harbour moon"], genres=list("abba"))


def asked(**vectors):
    streams = {"streams": ["id", *vectors]}
    policy = {"kind": "sequence", "sequence": streams, "vectors": vectors}
    return parse_config({"policy": policy}).policy.vectors


def made(folder, items=ITEMS, **vectors):
    """Vectors, and the lines said about them."""
    said = []
    return item_vectors(items, asked(**vectors), folder / "cache", say=said.append), said


def stamps(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cache").iterdir()}


def npz(folder, ids, vectors):
    np.savez(folder / "a.npz", item_id=ids, vector=vectors)
    return str(folder / "a.npz")


def test_nothing_is_made_that_is_not_asked_for(tmp_path):
    assert made(tmp_path) == ({}, [])
    assert not (tmp_path / "cache").exists()


def test_text_vectors_are_counted_and_said(tmp_path):
    found, said = made(tmp_path, text={"columns": ["title"]})
    text = found["text"]
    assert text.name == "text"
    assert text.vectors.dtype == np.float32
    assert text.present.tolist() == [True, True, False, True]
    assert said == ["text vectors: 3 of 4 items, 3 wide, from tfidf of title; 1 have none"]
    _, said = made(tmp_path, text={})
    assert said == ["text vectors: 4 of 4 items, 4 wide, from tfidf of title, genres"]


def test_they_are_kept_and_taken_where_nothing_differs(tmp_path):
    one, said = made(tmp_path, text={})
    before = stamps(tmp_path)
    again, said_again = made(tmp_path, text={})
    assert stamps(tmp_path) == before
    assert said == said_again
    assert again["text"].digest == one["text"].digest
    for name in ("vectors", "present"):
        assert (getattr(again["text"], name) == getattr(one["text"], name)).all()


def test_they_are_made_anew_where_anything_differs(tmp_path):
    changed = catalogue(["red moon", "red harbour", "item 12", "harbour sun"], genres=list("abba"))
    digests = [
        made(tmp_path, items, text=options)[0]["text"].digest
        for items, options in [
            (ITEMS, {}),
            (ITEMS, {"size": 2}),
            (ITEMS, {"columns": ["genres"]}),
            (changed, {}),
        ]
    ]
    assert len(set(digests)) == len(stamps(tmp_path)) == 4


@pytest.mark.parametrize("length", [0, 7, 60, -5])
def test_a_kept_file_cut_short_is_made_again(tmp_path, length):
    one, _ = made(tmp_path, text={})
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:length])
    again, _ = made(tmp_path, text={})
    assert (again["text"].vectors == one["text"].vectors).all()
    assert kept.read_bytes() == whole


def test_a_file_of_vectors_under_its_hash(tmp_path):
    path = npz(tmp_path, [13, 10, 11], [[3, 4], [0, 2], [1, 0]])
    found, said = made(tmp_path, image={"path": path})
    np.testing.assert_allclose(
        found["image"].vectors, [[0, 1], [1, 0], [0, 0], [0.6, 0.8]], rtol=1e-6
    )
    assert said == [f"image vectors: 3 of 4 items, 2 wide, from {path}; 1 have none"]
    moved = tmp_path / "moved.npz"
    os.rename(path, moved)
    again, _ = made(tmp_path, image={"path": str(moved)})
    assert again["image"].digest == found["image"].digest
    npz(tmp_path, [13, 10, 11], [[3, 4], [0, 2], [1, 1]])
    other, _ = made(tmp_path, image={"path": path})
    assert other["image"].digest != found["image"].digest
    assert len(stamps(tmp_path)) == 2


def test_text_vectors_of_a_file_and_of_an_encoder(tmp_path):
    path = npz(tmp_path, [13, 10, 11], [[3, 4], [0, 2], [1, 0]])
    assert made(tmp_path, text={"path": path})[0]["text"].present.sum() == 3
    encoder = str(saved_text_encoder("bert", tmp_path / "bert"))
    found, said = made(tmp_path, text={"encoder": encoder, "columns": ["title"]})
    assert found["text"].vectors.shape == (4, 16)
    assert found["text"].present.tolist() == [True, True, False, True]
    assert said == [f"text vectors: 3 of 4 items, 16 wide, from {encoder} of title; 1 have none"]
    narrow, _ = made(tmp_path, text={"encoder": encoder, "size": 2})
    assert narrow["text"].vectors.shape == (4, 2)


def test_vectors_on_axes_of_this_catalogue_alone_say_so(tmp_path):
    """Fitted to these items (TF-IDF, principal components), they mean nothing beside others."""
    path = npz(tmp_path, [13, 10, 11], [[3, 4, 1], [0, 2, 5], [1, 0, 0]])
    for _ in range(2):  # made, then kept
        assert made(tmp_path, text={})[0]["text"].own_axes
        assert made(tmp_path, image={"path": path, "size": 2})[0]["image"].own_axes
        assert not made(tmp_path, image={"path": path})[0]["image"].own_axes
        assert not made(tmp_path, image={"path": path, "size": 3})[0]["image"].own_axes


def test_a_folder_of_images(tmp_path):
    encoder = str(saved_image_encoder("vit", tmp_path / "vit"))
    folder = tmp_path / "posters"
    folder.mkdir()
    for name, colour in (
        ("10.png", "red"),
        ("12.jpg", "blue"),
        ("13.png", "red"),
        ("9.png", "red"),
    ):
        Image.new("RGB", (20, 30), colour).save(folder / name)
    (folder / "README.txt").write_text("posters")
    options = {"path": str(folder), "encoder": encoder}
    found, said = made(tmp_path, image=options)
    image = found["image"]
    assert image.present.tolist() == [True, False, True, True]
    np.testing.assert_allclose(image.vectors[0], image.vectors[3], atol=1e-6)
    assert np.abs(image.vectors[0] - image.vectors[2]).max() > 1e-3
    assert said == [
        f"image vectors: 3 of 4 items, 16 wide, from {encoder} of {folder}; 1 have none"
    ]
    Image.new("RGB", (20, 30), "green").save(folder / "13.png")
    assert made(tmp_path, image=options)[0]["image"].digest != image.digest
    Image.new("RGB", (20, 30)).save(folder / "12.png")
    with pytest.raises(DataError, match=r"two images of item 12: 12.jpg and 12.png"):
        made(tmp_path, image=options)


def test_most_without_a_vector_is_a_warning(tmp_path):
    path = npz(tmp_path, [13, 99], [[3, 4], [0, 2]])
    with pytest.warns(DataWarning, match="3 of 4 items have no image vector"):
        made(tmp_path, image={"path": path})
    npz(tmp_path, [13, 10], [[3, 4], [0, 2]])
    assert made(tmp_path, image={"path": path})[0]["image"].present.sum() == 2


def test_no_vector_at_all_is_an_error_and_not_kept(tmp_path):
    path = npz(tmp_path, [13, 10], np.zeros((2, 3)))
    for _ in range(2):
        with pytest.raises(DataError, match="image: none of 4 items has a vector from"):
            made(tmp_path, image={"path": path})
    assert not (tmp_path / "cache").exists()


def test_what_does_not_go_together_is_said(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.npz does not exist.*policy.vectors.image.path"):
        made(tmp_path, image={"path": str(tmp_path / "nowhere.npz")})
    with pytest.raises(ConfigError, match="no encoder is named"):
        made(tmp_path, image={"path": str(tmp_path)})
    path = npz(tmp_path, [13], [[1, 2]])
    with pytest.raises(ConfigError, match="an encoder reads a folder of images"):
        made(tmp_path, image={"path": path, "encoder": "vit"})
    encoder = str(saved_image_encoder("vit", tmp_path / "vit"))
    with pytest.raises(DataError, match=r"no image of any item; found a.npz, vit.*such as 10.jpg"):
        made(tmp_path, image={"path": str(tmp_path), "encoder": encoder})
    with pytest.raises(ConfigError, match=r"vectors are for kind=sequence"):
        parse_config({"policy": {"vectors": {"text": {}}}})
    with pytest.raises(ConfigError, match=r"policy.vectors.text: a path .* choose one"):
        asked(text={"path": "a.npz", "encoder": "tfidf"})


def test_films_and_their_posters(tmp_path):
    items = load("movielens", {"path": str(shared("data/ml-latest-small"))}).items
    posters = shared("data/ml-posters") / "posters_rgb_24x16.npz"
    films = items.rename_columns(["source_id", *items.column_names[1:]])
    image = {"path": str(posters), "ids": "movie_id", "vectors": "rgb", "size": 64}
    with pytest.warns(DataWarning, match="6,795 of 9,742 items have no image vector"):
        found, _ = made(tmp_path, films, text={}, image=image)
    assert found["image"].vectors.shape == (9742, 64)
    assert found["image"].present.sum() == 2947
    text = found["text"].vectors
    assert text.shape == (9742, 256)
    titles = films["title"].to_pylist()
    likeness = text @ text[titles.index("Star Wars: Episode IV - A New Hope (1977)")]
    nearest = [titles[i] for i in np.argsort(-likeness)[1:6]]
    assert sum("Star Wars" in title for title in nearest) >= 3
