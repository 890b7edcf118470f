# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The people of a log, each with what they have had."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.contexts import Context, Ids
from palate.data.reading.values import composed, in_one_type
from palate.data.sources.files import files
from palate.data.tables import SKIP, clock_of
from palate.errors import DataError, DataWarning

NOTHING = np.empty(0, np.int64)


class Person(NamedTuple):
    """Somebody of a log.

    Attributes:
        user_id: as in the log.
        items: rows of the catalogue, each once, the latest last; empty where none is known.
        times: Unix seconds of each; None for a log without times.
    """

    user_id: Any
    items: Ids
    times: Ids | None

    def context(self, row: int) -> Context:
        """What a policy is asked: named by the person, so that whoever else is in the file, the
        prompt is the same.

        Args:
            row: in the batch; two people who have had the same are two all the same.
        """
        name = moment_of(self.user_id)
        return Context(self.items, NOTHING, NOTHING, name, user_id=row, times=self.times)


def moment_of(user_id: object) -> int:
    """The context id of the moment for which somebody's list is made: 63 bits from their id."""
    digest = blake2b(str(user_id).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def people_of(
    log: Path,
    columns: Mapping[str, str],
    names: Sequence[str],
    on_bad_rows: Literal["error", "drop"] = "error",
    shown: Collection[str] = (SKIP,),
    needs_one: bool = True,
) -> list[Person]:
    """Everyone in a log, by their first row in time, with the items that a catalogue knows.

    Args:
        log: interactions as the source `files` reads them.
        columns: our name of a column → the file's.
        names: the catalogue's item ids in the source, as text.
        on_bad_rows: as in the source `files`.
        shown: events of what was shown and passed over, which nobody has had.
        needs_one: refuse a log that names no item of the catalogue, and do not only warn.

    Raises:
        DataError: the log is unreadable, or names no item of the catalogue where it must.
    """
    events = _events(log, columns, on_bad_rows)
    ids, of_catalogue = in_one_type(events["item_id"], pa.chunked_array([pa.array(names)]))
    is_consumed = [True] * events.num_rows
    if "event" in events.column_names:
        passed_over = pa.array(sorted(shown), pa.string())
        found = pc.is_in(pc.fill_null(events["event"], ""), value_set=passed_over)
        is_consumed = pc.invert(found).to_pylist()
    is_timed = "timestamp" in events.column_names
    times = events["timestamp"].to_pylist() if is_timed else [0] * events.num_rows
    row_of = {name: row for row, name in enumerate(composed(of_catalogue).to_pylist())}
    histories: dict[Any, dict[int, int]] = {}
    unknown, is_one_known = 0, False
    users, items = events["user_id"].to_pylist(), ids.to_pylist()
    for user, item, time, consumed in zip(users, items, times, is_consumed, strict=True):
        history = histories.setdefault(user, {})
        row = row_of.get(str(item))
        is_one_known |= row is not None
        if not consumed:
            continue
        if row is None:
            unknown += 1
        else:
            history.pop(row, None)  # of several events with one item the last counts
            history[row] = time
    if not is_one_known:
        told = (
            f"{log}: none of its {events.num_rows:,} rows names an item that the policy knows, "
            f"such as {names[0]}. Expected the item ids of the log it was trained on."
        )
        if needs_one:
            raise DataError(told)
        warnings.warn(told, DataWarning, stacklevel=3)
    elif unknown:
        warnings.warn(
            f"{log}: {unknown:,} of {events.num_rows:,} rows name an item that the policy does not "
            "know; they are left out.",
            DataWarning,
            stacklevel=3,
        )
    return [
        Person(
            user,
            np.fromiter(history, np.int64, len(history)),
            np.fromiter(history.values(), np.int64, len(history)) if is_timed else None,
        )
        for user, history in histories.items()
    ]


def _events(log: Path, columns: Mapping[str, str], on_bad_rows: str) -> pa.Table:
    """The rows of a log in the order of time."""
    options = {"columns": dict(columns), "on_bad_rows": on_bad_rows}
    try:
        events = files(log, **options).interactions
    except DataError as error:  # said for a run's configuration; here it is flags
        said = str(error).replace("--set data.options.columns.", "--columns ")
        said = said.replace("--set 'data.options.columns.", "--columns '")
        drop = "--set data.options.on_bad_rows=drop"
        raise DataError(said.replace(drop, "--on-bad-rows drop")) from error
    if not (clock := clock_of(events.column_names)):
        return events
    events = events.append_column("row", pa.array(range(events.num_rows)))
    return events.sort_by([(name, "ascending") for name in (*clock, "row")])
