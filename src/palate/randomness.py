"""Counter-based randomness: every draw is a pure function of its keys.

There is no generator state anywhere in Palate. A draw is named by integers (seed, purpose,
epoch, context id, …); the same name gives the same number on any worker, in any order and
after any restart. Keys broadcast against each other as numpy arrays do.

The mixing function is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied once per key.
"""

from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)

Key = ArrayLike | str


def random_bits(*keys: Key) -> NDArray[np.uint64]:
    """64 random bits for each element of the broadcast keys.

    Args:
        keys: integers, integer arrays, or a short string that names the purpose of the draw.

    Returns:
        uint64 array of the broadcast shape (a 0-d array when all keys are scalars).
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            number = crc32(key.encode()) if isinstance(key, str) else key
            state = _mix(state + GOLDEN + np.asarray(number).astype(np.uint64))
    return state


def uniform(*keys: Key) -> NDArray[np.float64]:
    """Uniform draws in [0, 1), one for each element of the broadcast keys."""
    return (random_bits(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(*keys: Key) -> NDArray[np.float64]:
    """Standard normal draws (Box and Muller's transform), one for each element of the keys."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(*keys, 1)))
    return (radius * np.cos(2.0 * np.pi * uniform(*keys, 2))).astype(np.float64)


def gumbel(*keys: Key) -> NDArray[np.float64]:
    """Standard Gumbel draws: adding them to logits and taking the maximum samples a softmax."""
    return -np.log(-np.log1p(-uniform(*keys)) + 1e-300)


def integers(upper: int, *keys: Key) -> NDArray[np.int64]:
    """Integers in [0, upper), one for each element of the broadcast keys."""
    return (uniform(*keys) * upper).astype(np.int64)


def permutation(length: int, *keys: Key) -> NDArray[np.int64]:
    """A random order of range(length), named by scalar keys."""
    return np.argsort(random_bits(*keys, np.arange(length)), kind="stable")


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * MIX_1
    state = (state ^ (state >> np.uint64(27))) * MIX_2
    return state ^ (state >> np.uint64(31))
