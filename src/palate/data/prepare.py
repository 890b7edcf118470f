"""From a source's two tables to clean, split, sorted Parquet.

Relational steps in long form, written in narwhals, so that the same code runs embedded and on a
cluster. Randomness is integer arithmetic that every engine computes alike.

The prepared folder holds

* `interactions.parquet`: user_id, item_id, position, level, disliked, split and, where known,
  turn, timestamp, elapsed and rating; sorted by user and position. Ids are dense, 0-based;
* `items.parquet` and `users.parquet`: row i is id i; `source_id` is the id in the user's files;
* where the source has them, `shown.parquet`: items shown and skipped; `lists.parquet`: candidates
  of each user's context; `texts.parquet`: what was said before each turn.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import pyarrow as pa

from palate.data.catalogue import catalogue
from palate.data.engine import DuckDB
from palate.data.expressions import portable_hash, row_count
from palate.data.preparation import Preparation, gives_contexts
from palate.data.splits import graded, split_rows
from palate.data.tables import INTERACTIONS, SKIP, SourceTables, check_tables, clock_of
from palate.errors import DataError
from palate.files import write_table

ORDERED_TIES = 0.95
"""Share of tied groups in item-id order from which the source order counts as no order."""


def prepare(tables: SourceTables, folder: Path, how: Preparation, seed: int) -> dict[str, Any]:
    """Clean, thin, order, grade and split a log; write it as Parquet.

    Args:
        tables: what a source gave.
        folder: where the Parquet files go; created if need be.
        how: the choices.
        seed: names the order of tied interactions where a hash decides it.

    Returns:
        The manifest: origin, choices, counts, tie rule, and SHA-256 of each file written.

    Raises:
        DataError: the tables are malformed, a step leaves no rows, or it needs a missing column.
    """
    check_tables(tables)
    how = how.resolved(tables)
    columns, whole = tables.interactions.column_names, gives_contexts(tables)
    engine = DuckDB()
    order = pa.array(range(tables.interactions.num_rows), pa.int64())
    known = [name for name in INTERACTIONS if name in columns]
    read = tables.interactions.select(known).append_column("source_order", order)
    events = engine.open(read)
    consumed, shown = events, None
    if "event" in columns:
        is_skip = nw.col("event").fill_null("") == SKIP
        shown = events.filter(is_skip).select("user_id", "item_id", "timestamp")
        consumed = events.filter(~is_skip)

    counts = {"interactions_read": tables.interactions.num_rows}
    once = consumed if whole else without_duplicates(consumed, how.duplicates)
    frame = engine.materialise(once)
    counts["interactions_deduplicated"] = row_count(frame)
    frame = k_core(frame, how.k_core or 1, engine.materialise)
    users = dense_ids(frame, "user_id")
    items = dense_ids(engine.open(tables.items.select(["item_id"])) if whole else frame, "item_id")
    frame = engine.materialise(frame.join(users, on="user_id").join(items, on="item_id"))
    frame, ties = positions(frame, seed, clock_of(columns), "position" in columns)
    frame = engine.materialise(graded(frame, how, "rating" in columns))
    frame = split_rows(frame, how, seed)

    kept = [name for name in ("turn", "timestamp", "elapsed", "rating") if name in columns]
    ids = [nw.col("user_code").alias("user_id"), nw.col("item_code").alias("item_id")]
    named = frame.select(*ids, "position", "level", "disliked", "split", *kept)
    interactions = engine.collect(named.sort("user_id", "position"))
    kept_items = catalogue(engine.collect(items), tables.items)
    files = {
        "interactions.parquet": interactions,
        "items.parquet": kept_items,
        "users.parquet": _table_of_ids(engine, users, "user_id"),
    }
    if shown is not None:
        coded = shown.join(users, on="user_id").join(items, on="item_id")
        files["shown.parquet"] = engine.collect(
            coded.select(*ids, "timestamp").sort("user_id", "timestamp", "item_id")
        )
    if tables.lists is not None:
        place = pa.array(range(tables.lists.num_rows), pa.int64())
        named_lists = tables.lists.select(["user_id", "item_id"])
        listed = engine.open(named_lists.append_column("place", place))
        coded = listed.join(users, on="user_id").join(items, on="item_id")
        files["lists.parquet"] = engine.collect(coded.select(*ids, "place").sort("place"))
    if tables.texts is not None:
        said = engine.open(tables.texts.select(["user_id", "turn", "text"])).join(
            users, on="user_id"
        )
        files["texts.parquet"] = engine.collect(
            said.select(ids[0], "turn", "text").sort("user_id", "turn")
        )
    by_split = interactions["split"].value_counts().to_pylist()
    counts |= {
        "users": files["users.parquet"].num_rows,
        "items": kept_items.num_rows,
        "interactions": interactions.num_rows,
        "liked": sum(level > 0 for level in interactions["level"].to_pylist()),
        **{f"interactions_{row['values']}": row["counts"] for row in by_split},
    }
    return {
        "origin": tables.origin,
        "preparation": {**vars(how), "seed": seed},
        "counts": counts,
        "ties": ties,
        "sha256": {name: write_table(table, folder / name) for name, table in files.items()},
    }


def without_duplicates(frame: nw.LazyFrame, keep: Literal["first", "last"]) -> nw.LazyFrame:
    """One row for each user and item: the first or the last in the source's time and order."""
    clock = clock_of(frame.collect_schema().names())
    nth = nw.col("source_order").cum_count(reverse=keep == "last")
    place = nth.over("user_id", "item_id", order_by=[*clock, "source_order"])
    return frame.with_columns(place=place).filter(nw.col("place") == 1).drop("place")


def k_core(
    frame: nw.LazyFrame, k: int, materialise: Callable[[nw.LazyFrame], nw.LazyFrame]
) -> nw.LazyFrame:
    """The largest part of the log in which every user and item has at least k interactions."""
    before = row_count(frame)
    start = before
    while k > 1:
        for column in ("user_id", "item_id"):
            often = frame.group_by(column).agg(n=nw.len()).filter(nw.col("n") >= k)
            frame = materialise(frame.join(often.select(column), on=column, how="semi"))
        after = row_count(frame)
        if after == 0:
            raise DataError(
                f"data.k_core: no interactions are left of {start} when every user and item needs "
                f"{k}. Try --set data.k_core={max(1, k // 2)}."
            )
        if after == before:
            break
        before = after
    return frame


def dense_ids(frame: nw.LazyFrame, column: str) -> nw.LazyFrame:
    """(source id, 0-based code) for each id of a column, numbered in ascending order of ids."""
    code = column.replace("_id", "_code")
    return frame.select(column).unique().with_row_index(code, order_by=column)


def positions(
    frame: nw.LazyFrame, seed: int, clock: Sequence[str], placed: bool = False
) -> tuple[nw.LazyFrame, dict[str, int | float | str]]:
    """0-based place of each interaction within its user, and what was done about time ties.

    Ties in time keep the source order, unless that is item-id order in at least 95 % of the tied
    groups: such an order says nothing of time, so a hash of (seed, user, item) decides. Where the
    source gives positions, they were its order. `clock` are the columns that tell the time.
    """
    if not clock:
        place = nw.col("source_order").cum_count().over("user_id", order_by="source_order") - 1
        return frame.with_columns(position=place), {"rule": "source order; no timestamps"}
    before = nw.col("item_code").shift(1)
    ascending = before.over("user_id", *clock, order_by="source_order") < nw.col("item_code")
    in_order = frame.with_columns(ascending=ascending.fill_null(True).cast(nw.Int64))
    groups = in_order.group_by("user_id", *clock).agg(n=nw.len(), ordered=nw.col("ascending").min())
    tied = groups.filter(nw.col("n") > 1).select(
        groups=nw.len(), rows=nw.col("n").sum(), ordered=nw.col("ordered").sum()
    )
    row = tied.collect("pyarrow").to_native().to_pylist()[0]
    n_groups, n_rows = row["groups"], int(row["rows"] or 0)
    share = int(row["ordered"] or 0) / n_groups if n_groups else 0.0
    by_hash = n_groups > 0 and share >= ORDERED_TIES and not placed
    tie = portable_hash(seed, "user_code", "item_code") if by_hash else nw.col("source_order")
    frame = frame.with_columns(tie=tie)
    place = nw.col("tie").cum_count().over("user_id", order_by=[*clock, "tie", "item_code"])
    report: dict[str, int | float | str] = {
        "rule": "hash of (seed, user, item)" if by_hash else "source order",
        "tied_groups": n_groups,
        "tied_interactions": n_rows,
        "share_in_item_id_order": round(share, 4),
    }
    return frame.with_columns(position=place - 1), report


def _table_of_ids(engine: DuckDB, codes: nw.LazyFrame, column: str) -> pa.Table:
    """The column as dense ids, and `source_id`, the ids they stand for."""
    table = engine.collect(codes.sort(column))
    dense = pa.array(range(table.num_rows), pa.int64())
    return pa.table({column: dense, "source_id": table[column]})
