"""Vectors as they are found → one row of length 1 for each item."""

from math import prod

import numpy as np
from numpy.typing import NDArray

SIZE = 256
"""Default width of what is reduced. Ranking by nearest text vectors still gains from 128 to 256
(NDCG@20 .018 to .024 on Amazon Beauty); a million items take 1 GB."""
FAINT = 1e-4
"""Share of the largest length below which a reduced vector is the rounding of none."""

Found = tuple[NDArray[np.int64], NDArray[np.generic]]
"""(m,) rows of the items that have a vector; (m, …) numbers."""


def settled(
    rows: NDArray[np.int64], found: NDArray[np.generic], n_items: int, size: int | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Reduce vectors or pixels, bring them to length 1 and put them in their rows.

    Length 1 makes the scale of a stream the same wherever its vectors come from. A vector of zeros
    is how many files write that there is none, and counts as none.

    Args:
        rows: (m,) items that have one.
        found: (m, d) vectors, or (m, …) pixels, which become principal components.
        n_items: size of the catalogue.
        size: width; wider vectors become principal components. None: 256 for pixels.

    Returns:
        (n_items, d) vectors, zeros where there is none; (n_items,) whether there is one.
    """
    if found.ndim > 2 and size is None:
        size = SIZE
    flat = found.reshape(len(found), prod(found.shape[1:])).astype(np.float32)
    some = np.flatnonzero(flat.any(axis=1))
    rows, flat = rows[some], flat[some]
    if size is not None and flat.shape[1] > size and len(flat) > 1:
        flat = principal_components(flat, size)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    seen = lengths[:, 0] > FAINT * lengths.max(initial=0)
    vectors = np.zeros((n_items, flat.shape[1]), np.float32)
    vectors[rows[seen]] = flat[seen] / lengths[seen]
    present = np.zeros(n_items, bool)
    present[rows[seen]] = True
    return vectors, present


def principal_components(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(m, d) → (m, size), or fewer where there are fewer vectors; signs and seed are fixed."""
    from sklearn.decomposition import PCA  # takes a second to import

    return PCA(min(size, *vectors.shape), random_state=0).fit_transform(vectors)
