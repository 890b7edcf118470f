# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Negatives that were chosen beforehand, for each user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from palate.data.contexts import Context, Ids
from palate.data.prepared import Prepared
from palate.errors import ConfigError, DataError
from palate.negatives.stream import Stream

COLUMNS = ("user_id", "item_id")
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Fixed:
    """The items listed for the user.

    Attributes:
        by_user: for each user id, the item ids, in the order they are listed.
    """

    by_user: Sequence[Ids]

    def draw(self, context: Context, count: int, exclude: Ids, key: tuple[int, ...]) -> Ids:
        """See `NegativeSampler.draw`; a random part of a longer list, all of a shorter one.

        Both in the order of the list.
        """
        barred = set(exclude.tolist())
        listed = dict.fromkeys(self.by_user[context.user_id].tolist())
        own = np.array([item for item in listed if item not in barred], np.int64)
        if len(own) <= count:
            return own
        return own[np.sort(Stream(key).permutation(len(own))[:count])]


def fixed(data: Prepared, path: Path | None = None) -> Fixed:
    """Items from a file, or those that the source showed each user.

    Options:
        path: CSV (.csv), tab-separated (.tsv) or Parquet (.parquet) with the columns user_id and
            item_id, in the ids of the source, one row per negative. Default: the candidate lists
            of the source (`Prepared.lists`), where it has some.

    Raises:
        ConfigError: neither a file nor lists.
        DataError: the file is missing or unreadable, or names a user or item that is not in the
            prepared data.
    """
    if path is not None:
        return Fixed(read_lists(path, data))
    if data.lists is None:
        raise ConfigError(
            "align.negatives.fixed: this source shows no candidate lists, so the negatives must "
            "come from a file with the columns user_id and item_id. Type "
            "align.sampler_options.fixed.path: FILE (.csv, .tsv or .parquet)."
        )
    return Fixed(data.lists)


def read_lists(path: Path, data: Prepared) -> list[Ids]:
    """Dense item ids for each user, in the order of a file that holds ids of the source."""
    table, place, first = _read(path)
    dense = {}
    for name, known in (("user_id", data.users), ("item_id", data.items)):
        source_ids = known["source_id"].cast(pa.string()).combine_chunks()
        found = pc.index_in(table[name], value_set=source_ids)
        missing = np.flatnonzero(found.is_null().to_numpy())
        if len(missing):
            row = int(missing[0])
            what = name.removesuffix("_id")
            raise DataError(
                f"{path}, {place} {row + first}: there is no {what} "
                f"{table[name][row].as_py()!r} in the prepared data ({len(missing)} of "
                f"{table.num_rows} rows name an unknown {what}). Expected ids of the source, "
                "after k-core filtering. Delete those rows."
            )
        dense[name] = found.to_numpy().astype(np.int64)
    order = np.argsort(dense["user_id"], kind="stable")
    bounds = np.searchsorted(dense["user_id"][order], np.arange(1, data.users.num_rows))
    return np.split(dense["item_id"][order], bounds)


def _read(path: Path) -> tuple[pa.Table, str, int]:
    """The two columns, what a row of the file is called, and the number of the first."""
    path = path.expanduser()
    kind = path.suffix.lower()
    if kind not in (*SEPARATORS, ".parquet"):
        raise DataError(
            f"{path} is neither .csv, .tsv nor .parquet. Save the negatives as one of these, with "
            "the columns user_id and item_id."
        )
    if not path.is_file():
        raise DataError(f"{path} does not exist. Expected a file of negatives for `fixed`.")
    try:
        if kind == ".parquet":
            table = pq.read_table(path)
        else:
            table = pcsv.read_csv(
                path,
                parse_options=pcsv.ParseOptions(delimiter=SEPARATORS[kind]),
                convert_options=pcsv.ConvertOptions(
                    column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False
                ),
            )
        for column in COLUMNS:
            if table.column_names.count(column) != 1:
                raise DataError(
                    f"{path} has the columns {', '.join(table.column_names)}. Expected one "
                    "user_id and one item_id."
                )
        # as text: the file's ids and the source's may be of different types
        columns = {column: table[column].cast(pa.string()) for column in COLUMNS}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as {kind[1:]}: {error}. Fix the file.") from error
    place, first = ("row", 1) if kind == ".parquet" else ("line", 2)
    return pa.table(columns), place, first
