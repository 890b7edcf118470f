"""Many numbers under one key, at little cost for each context.

`palate.randomness` mixes its keys with numpy one after another, which costs more than the draw
itself where ten numbers are wanted under a key of five integers. Here the integers are mixed in
plain Python and only the last step is an array's; the numbers are the same.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from palate.randomness import GOLDEN, MIX_1, MIX_2

_WORD = (1 << 64) - 1
_STEP, _FIRST, _SECOND = int(GOLDEN), int(MIX_1), int(MIX_2)
_11, _27, _30, _31 = (np.uint64(shift) for shift in (11, 27, 30, 31))


def first_state(key: tuple[int, ...]) -> int:
    """What number 0 of a key is mixed from; number n from this plus n, all modulo 2⁶⁴."""
    state = 0
    for number in key:
        state = (state + _STEP + int(number)) & _WORD
        state = ((state ^ (state >> 30)) * _FIRST) & _WORD
        state = ((state ^ (state >> 27)) * _SECOND) & _WORD
        state ^= state >> 31
    return (state + _STEP) & _WORD


class Stream:
    """The numbers 0, 1, 2, … of a key: `bits(a, b)` is `random_bits(*key, np.arange(a, b))`.

    Args:
        key: integers that name the draw.
    """

    __slots__ = ("_next",)

    def __init__(self, key: tuple[int, ...]) -> None:
        self._next = np.uint64(first_state(key))

    def bits(self, start: int, stop: int) -> NDArray[np.uint64]:
        """64 random bits each for the numbers start … stop − 1."""
        state = np.arange(start, stop, dtype=np.uint64)
        state += self._next
        state ^= state >> _30
        state *= MIX_1
        state ^= state >> _27
        state *= MIX_2
        state ^= state >> _31
        return state

    def uniform(self, start: int, stop: int) -> NDArray[np.float64]:
        """Uniform draws in [0, 1) for the numbers start … stop − 1."""
        return (self.bits(start, stop) >> _11).astype(np.float64) * 2.0**-53

    def permutation(self, length: int) -> NDArray[np.int64]:
        """A random order of range(length)."""
        return np.argsort(self.bits(0, length), kind="stable")

    def distinct(
        self,
        count: int,
        exclude: NDArray[np.int64],
        item_of: Callable[[NDArray[np.float64]], NDArray[np.int64]],
        proposals: int | None = None,
    ) -> NDArray[np.int64]:
        """The first `count` different items outside `exclude`, by rejection.

        Each next item has the chances that proposals give it among the items still left, and the
        size of the catalogue costs nothing.

        Args:
            count: how many.
            exclude: item ids not to draw.
            item_of: uniform draws in [0, 1) → item ids.
            proposals: give up after about so many, with fewer than `count`; None for never.
        """
        barred = np.sort(exclude)
        drawn: dict[int, None] = {}  # in the order of their first proposal
        start, stop = 0, 2 * count
        while len(drawn) < count and (proposals is None or start < proposals):
            items = item_of(self.uniform(start, stop))
            if len(barred):
                items = items[barred.take(barred.searchsorted(items), mode="clip") != items]
            drawn.update(dict.fromkeys(items.tolist()))
            start, stop = stop, 2 * stop
        return np.array(list(drawn)[:count], np.int64)
