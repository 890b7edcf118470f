"""Vectors of length 1 in the rows of their items, reduced where they are wide."""

import numpy as np
import pytest

from palate.item_vectors.reduction import settled

RANDOM = np.random.default_rng(0)


def test_rows_take_their_places_and_length_1():
    vectors, present = settled(np.array([3, 0]), np.array([[3, 4], [0, -2]]), 5, None)
    assert present.tolist() == [True, False, False, True, False]
    np.testing.assert_allclose(vectors[[0, 3]], [[0, -1], [0.6, 0.8]])
    assert vectors.dtype == np.float32
    assert (vectors[~present] == 0).all()


@pytest.mark.parametrize("zeros", [np.zeros(3), np.zeros(3, np.int8)])
def test_a_vector_of_zeros_is_none(zeros):
    found = np.stack([zeros, zeros + 1])
    assert settled(np.arange(2), found, 2, None)[1].tolist() == [False, True]


def test_pixels_become_principal_components():
    pixels = RANDOM.integers(0, 256, (40, 4, 3, 3)).astype(np.uint8)
    vectors, present = settled(np.arange(40), pixels, 40, 5)
    flat = pixels.reshape(40, -1).astype(float)
    u, s, _ = np.linalg.svd(flat - flat.mean(axis=0))
    expected = u[:, :5] * s[:5]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert present.all()
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-4)
    scaled, _ = settled(np.arange(40), pixels / 255, 40, 5)
    np.testing.assert_allclose(scaled, vectors, atol=1e-4)


def test_the_widths():
    wide = RANDOM.normal(size=(300, 270))
    rows = np.arange(300)
    assert settled(rows, wide, 300, None)[0].shape == (300, 270)
    assert settled(rows, wide, 300, 20)[0].shape == (300, 20)
    assert settled(rows, wide, 300, 400)[0].shape == (300, 270)
    assert settled(rows, wide.reshape(300, 27, 10), 300, None)[0].shape == (300, 256)
    assert settled(rows[:4], wide[:4], 300, 20)[0].shape == (300, 4)
    assert settled(rows[:0], wide[:0], 300, 20)[1].sum() == 0


def test_a_black_picture_is_none_and_moves_no_other():
    pixels = RANDOM.integers(1, 256, (30, 4, 3, 3)).astype(np.uint8)
    black = np.concatenate([pixels, np.zeros((5, 4, 3, 3), np.uint8)])
    alone, _ = settled(np.arange(30), pixels, 30, 5)
    vectors, present = settled(np.arange(35), black, 35, 5)
    assert present.tolist() == [True] * 30 + [False] * 5
    assert (vectors[:30] == alone).all()
