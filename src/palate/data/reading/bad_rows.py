"""Rows that cannot be read: the first is an error, or all of them are left out and counted."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from palate.errors import DataError, DataWarning

Read = TypeVar("Read")
OnBadRows = Literal["error", "drop"]
"""What a source does about rows that cannot be read."""


class RowError(DataError):
    """A wrong row, and what to do about it; a flag in that stands last in errors."""

    def __init__(self, fault: str, advice: str) -> None:
        super().__init__(f"{fault} {advice}")
        self.fault, self.advice = fault, advice


def read_each(
    rows: Iterable[tuple[str, Any]],
    read: Callable[[Any, str], Read],
    on_bad_rows: OnBadRows,
    name: str,
) -> tuple[list[Read], int]:
    """Rows as `read` reads them, and how many were left out.

    Args:
        rows: (place, row), the place as errors name it.
        read: (row, place) → what it holds; raises a DataError for a row that is wrong.
        on_bad_rows: "error" raises for the first of them; "drop" leaves them out and says how many.
        name: of the file.

    Raises:
        DataError: a row is wrong and rows are not dropped, or no row is right.
    """
    found: list[Read] = []
    faults: list[DataError] = []
    for place, row in rows:
        try:
            found.append(read(row, place))
        except DataError as error:
            faults.append(error)
    if not faults:
        return found, 0
    n_rows = len(found) + len(faults)
    if on_bad_rows == "error":
        count = f"{len(faults):,} {'row' if len(faults) == 1 else 'rows'}"
        drop = f"pass --set data.options.on_bad_rows=drop ({count} would be dropped)."
        first = faults[0]
        if isinstance(first, RowError) and "--set" in first.advice:
            raise DataError(f"{first.fault} Or {drop} {first.advice}") from first
        raise DataError(f"{first} Or {drop}") from first
    if not found:
        raise DataError(f"{name}: none of {n_rows:,} rows can be read; {faults[0]}") from faults[0]
    warnings.warn(
        DataWarning(
            f"{name}: dropped {len(faults):,} of {n_rows:,} rows, which cannot be read. The first: "
            f"{faults[0]}"
        ),
        stacklevel=4,
    )
    return found, len(faults)
