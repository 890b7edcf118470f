# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The two tables every source gives: interactions and items.

`interactions`: user_id, item_id and, where known, timestamp (Unix seconds), nanosecond (what comes
after the second, where that tells an order), rating or weight, event, position, elapsed. Row order
is the source order, and that of the positions where they are given; it counts as an order in time
only if `SourceTables.ordered` or the user says so. Where no date is known, elapsed are the seconds
since the user's first interaction: they tell intervals, but neither order the rows nor split them
by time. An event of "skip" says the item was shown and passed over; what others mean `data.events`
says, and one kind alone says it was consumed. A rating may be a dislike; a weight (0 or more)
grades and never dislikes. A source that reads several files may name each row's in `file`: whether
the order of rows with equal times says anything is judged by file.

`items`: item_id, title and any further columns (description, genres, …).

A source of ready-made contexts (candidate files, dialogues) adds to the interactions

* `split`: "history" for rows that are only looked back on, then "train", "validation" or "test"
  for those that are asked for; each user's rows stand in that order;
* `turn`: rows of a user with the same turn are the right answers of one context;

and may give two more tables: `lists`, the candidates shown in each context, and `texts`, what was
said before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from palate.errors import DataError

SKIP = "skip"
SPLITS = ("history", "train", "validation", "test")
INTERACTIONS = (
    "user_id",
    "item_id",
    "timestamp",
    "nanosecond",
    "rating",
    "weight",
    "event",
    "file",
    "position",
    "elapsed",
    "split",
    "turn",
)
"""The columns of interactions that are read; no others get anywhere near the engine."""
REQUIRED = {"interactions": ("user_id", "item_id"), "items": ("item_id", "title")}


@dataclass(frozen=True)
class SourceTables:
    """What a source hands to `prepare`.

    Attributes:
        interactions: one row per event, in source order.
        items: one row per item.
        origin: where the tables came from, for the manifest (name, files with SHA-256, options).
        lists: user_id, item_id: the candidates of each user's one context, in the order shown,
            the right answer among them; None where the source gives none.
        texts: user_id, turn, text: what was said before a turn, lines separated by line breaks;
            None for a source without dialogues.
        ordered: the order of rows is their order in time, where they have neither times nor
            positions: for formats that are sequences.
    """

    interactions: pa.Table
    items: pa.Table
    origin: dict[str, Any] = field(default_factory=dict)
    lists: pa.Table | None = None
    texts: pa.Table | None = None
    ordered: bool = False


def check_tables(tables: SourceTables) -> None:
    """Raise a `DataError` in one sentence if the two tables cannot be prepared."""
    for name, required in REQUIRED.items():
        table: pa.Table = getattr(tables, name)
        for column in required:
            if column not in table.column_names:
                raise DataError(
                    f"{name}: column '{column}' is missing; found {', '.join(table.column_names)}. "
                    f"Expected at least {', '.join(required)}."
                )
            if nulls := table[column].null_count:
                raise DataError(
                    f"{name}: column '{column}' has {nulls} empty values; every row needs one."
                )
        if table.num_rows == 0:
            raise DataError(f"{name}: the table is empty; expected at least one row.")
    if "timestamp" in tables.interactions.column_names:
        clock = clock_of(tables.interactions.column_names)
        missing = max(tables.interactions[name].null_count for name in clock)
        if missing:
            raise DataError(
                f"interactions: column 'timestamp' has {missing} empty values; fill them, or leave "
                "the whole column out and give the rows in order."
            )
    ids = tables.items["item_id"]
    if len(pc.unique(ids)) != len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0].as_py()
        raise DataError(f"items: item_id {twice!r} occurs twice; expected one row per item.")
    for name, table in (("interactions", tables.interactions), ("lists", tables.lists)):
        if table is None:
            continue
        unknown = pc.invert(pc.is_in(table["item_id"], value_set=ids.combine_chunks()))
        if count := pc.sum(unknown).as_py():
            first = table["item_id"].filter(unknown)[0].as_py()
            raise DataError(
                f"{name}: {count} rows name an item that the item table lacks, the first of them "
                f"{first!r}. Add it to the items, or drop those rows."
            )


def clock_of(columns: Iterable[str]) -> list[str]:
    """Which of these columns tell the time, coarse before fine."""
    found = set(columns)
    return [name for name in ("timestamp", "nanosecond") if name in found]
