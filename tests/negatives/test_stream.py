"""The fast stream gives the numbers of `palate.randomness`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate import randomness
from palate.negatives.stream import Stream

keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6).map(tuple)


@given(keys, st.integers(0, 40), st.integers(0, 40))
def test_numbers_are_those_of_randomness(key, start, more):
    numbers = np.arange(start, start + more)
    stream = Stream(key)
    assert (
        stream.bits(start, start + more).tolist() == randomness.random_bits(*key, numbers).tolist()
    )
    assert (
        stream.uniform(start, start + more).tolist() == randomness.uniform(*key, numbers).tolist()
    )
    assert stream.permutation(more).tolist() == randomness.permutation(more, *key).tolist()


def test_keys_may_be_numpy_integers():
    key = (np.int64(-3), np.int32(7))
    assert Stream(key).bits(0, 3).tolist() == Stream((-3, 7)).bits(0, 3).tolist()


@given(keys, st.lists(st.integers(0, 29), max_size=20), st.integers(1, 8))
def test_distinct_is_a_loop_over_proposals(key, exclude, count):
    barred = set(exclude)
    expected: list[int] = []
    for draw in randomness.uniform(*key, np.arange(2000)):
        item = int(draw * 30)
        if item not in barred and len(expected) < count:
            barred.add(item)
            expected.append(item)

    def items(draws):
        return (draws * 30).astype(np.int64)

    found = Stream(key).distinct(count, np.array(exclude, int), items)
    assert found.tolist() == expected
    assert found.dtype == np.int64


@pytest.mark.parametrize("proposals", [1, 5, 40])
def test_distinct_gives_up(proposals):
    found = Stream((1,)).distinct(
        3, np.array([4]), lambda draws: np.full(len(draws), 4), proposals=proposals
    )
    assert found.tolist() == []
