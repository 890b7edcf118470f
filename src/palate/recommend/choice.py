# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Which items lists may hold, and the file that lists are written to."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
from numpy.typing import NDArray

from palate.data.reading import decoded, read_file, require_columns
from palate.data.reading.members import PARQUET
from palate.data.reading.values import as_ids
from palate.data.sources.item_table import DELIMITERS, delimited, read_parquet
from palate.errors import ConfigError, DataError, DataWarning
from palate.files import replacing, write_table

TABLES = (*DELIMITERS, ".parquet")
FORMS = "a text file with an id on each line, or .csv, .tsv or .parquet with a column item_id"


def read_ids(given: Sequence[str], flag: str) -> list[str]:
    """Item ids from what stands behind a flag: files of ids, or ids with commas between them.

    Args:
        given: each a file (an id on each line; or .csv, .tsv or .parquet, perhaps gzipped, with a
            column item_id) or ids such as "12,15".
        flag: names the flag in errors.

    Raises:
        DataError: a file is missing or damaged. One that is empty holds no ids.
    """
    found: list[str] = []
    for one in given:
        path = Path(one).expanduser()
        if not one.strip():  # as a path it would be the working directory
            raise DataError(f"{flag} {one!r}: expected item ids such as 12,15, or {FORMS}.")
        if path.is_file() or path.suffix.lower() in (*TABLES, ".txt", ".gz"):
            ids = _ids_of(path)
        elif path.is_dir():
            raise DataError(f"{flag} {one} is a folder. Expected {FORMS}.")
        else:
            ids = [part.strip() for part in one.split(",") if part.strip()]
            if not ids:
                raise DataError(f"{flag} {one!r}: expected item ids such as 12,15, or {FORMS}.")
        found += ids
    return found


def _ids_of(path: Path) -> list[str]:
    if path.is_file() and not path.read_bytes().strip():
        return []  # nothing is sold out today
    file = read_file(path, FORMS)
    is_table = file.name.lower().removesuffix(".gz").endswith(TABLES)
    if not is_table and not file.content.startswith(PARQUET):
        lines = decoded(file.content, file.name).removeprefix("\ufeff").splitlines()
        column = pa.chunked_array([pa.array([line.strip() for line in lines], pa.string())])
    elif (text := delimited(file)) is None:
        table = read_parquet(file, may_be_empty=True)
        require_columns(["item_id"], table.column_names, file.name)
        column = table["item_id"]
    elif text.has_rows:
        table, n_ragged = text.as_text(["item_id"])
        if n_ragged:
            line, count = text.first_ragged_line()
            raise DataError(
                f"{file.name} line {line}: {count} values; expected {len(text.header)}. Fix or "
                "delete the line."
            )
        column = table["item_id"]
    else:
        text.require(["item_id"])
        return []
    ids, _ = as_ids(column)
    return pc.cast(pc.drop_null(ids), pa.string()).to_pylist()


def items_of(
    names: Sequence[str], allow: Sequence[object] | None, block: Sequence[object]
) -> NDArray[np.bool_]:
    """(items,) which items lists may hold; ids that no item has are counted in a DataWarning.

    Raises:
        DataError: none is left.
    """
    row_of = {name: row for row, name in enumerate(names)}
    may_be = np.full(len(names), allow is None)
    for flag, ids, value in (("allow", allow or (), True), ("block", block, False)):
        different = {str(one) for one in ids}
        known = [row_of[one] for one in different if one in row_of]
        may_be[known] = value
        if len(known) < len(different):
            missing = min(different - row_of.keys())
            warnings.warn(
                f"--{flag}: {len(different) - len(known):,} of {len(different):,} ids are of no "
                f"item that the policy knows, such as {missing}.",
                DataWarning,
                stacklevel=3,
            )
    if not may_be.any():
        raise DataError(
            f"--allow and --block leave none of {len(names):,} items to recommend. Expected the "
            f"item ids of the log the policy was trained on, such as {names[0]}."
        )
    return may_be


def write_lists(lists: pa.Table, out: Path) -> None:
    """Write lists as .csv or .parquet, whole or not at all."""
    if out.suffix.lower() == ".parquet":
        write_table(lists, out)
    else:
        with replacing(out) as temporary:
            pcsv.write_csv(lists, temporary)


def check_out(out: Path, log: Path | None = None) -> None:
    """Raise a ConfigError for a file that lists cannot be written to, or must not replace."""
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"--out {out}: expected a name that ends in .csv or .parquet.")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file in it.")
    if log is not None and out.exists() and log.exists() and out.samefile(log):
        raise ConfigError(f"--out {out} is the log itself; choose another file.")
