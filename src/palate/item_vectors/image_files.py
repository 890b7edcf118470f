"""A folder of images, one per item, named by the item's id in the source."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.reading import listed
from palate.errors import DataError
from palate.item_vectors.vector_files import source_ids


def image_files(folder: Path, items: pa.Table) -> tuple[NDArray[np.int64], list[Path]]:
    """The items that have an image, and its file.

    Args:
        folder: files such as 318.jpg for the item with source_id 318; others are left aside.
        items: the catalogue.

    Returns:
        (m,) rows of the items; m files.

    Raises:
        DataError: no file is named by an item's id, or two are named by the same.
    """
    by_name: dict[str, Path] = {}
    wanted = source_ids(items).to_pylist()
    known = set(wanted)
    for file in sorted(folder.iterdir()):
        if file.is_dir() or file.name.startswith(".") or file.stem not in known:
            continue
        if file.stem in by_name:
            raise DataError(
                f"{folder} has two images of item {file.stem}: {by_name[file.stem].name} and "
                f"{file.name}. Expected one; take the other away."
            )
        by_name[file.stem] = file
    if not by_name:
        raise DataError(
            f"{folder} has no image of any item; found {listed(folder)}. Expected files named by "
            f"the source's item ids, such as {wanted[0]}.jpg."
        )
    rows = [row for row, name in enumerate(wanted) if name in by_name]
    return np.asarray(rows, np.int64), [by_name[wanted[row]] for row in rows]
