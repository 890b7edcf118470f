"""Draws are pure functions of their keys, and look random."""

import numpy as np

from palate.randomness import gumbel, integers, normal, permutation, random_bits, uniform


def test_same_name_same_number_whatever_the_shape():
    together = random_bits(7, "purpose", np.arange(5))
    alone = [int(random_bits(7, "purpose", i)) for i in range(5)]
    assert together.tolist() == alone


def test_splitmix64_is_the_published_one():
    # the first output of SplitMix64 seeded with 0, as its authors' reference code prints it
    assert int(random_bits(0)) == 0xE220A8397B1DCDAF


def test_different_keys_differ():
    draws = random_bits(np.arange(200)[:, None], np.arange(200)[None, :])
    assert len(np.unique(draws)) == draws.size
    assert int(random_bits(1, 2)) != int(random_bits(2, 1))


def test_moments():
    n = np.arange(200_000)
    u, z, g = uniform(1, n), normal(2, n), gumbel(3, n)
    assert 0 <= u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.003
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert abs(g.mean() - 0.5772) < 0.015


def test_integers_and_permutations():
    counts = np.bincount(integers(7, 1, np.arange(70_000)), minlength=7)
    assert counts.min() > 9_500
    order = permutation(50, 4, "order")
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != permutation(50, 5, "order").tolist()
