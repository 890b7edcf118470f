"""From a source's two tables to clean, split, sorted Parquet.

Relational steps in long form, written in narwhals, so that the same code runs embedded and on a
cluster. Randomness is integer arithmetic that every engine computes alike.

The prepared folder holds

* `interactions.parquet`: user_id, item_id, position, level, disliked, split and, where known,
  timestamp and rating; sorted by user and position. Ids are dense, 0-based;
* `items.parquet` and `users.parquet`: row i is id i; `source_id` is the id in the user's files;
* `shown.parquet`: items shown and skipped, where the source has them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import pyarrow as pa

from palate.data.engine import DuckDB
from palate.data.tables import SKIP, SourceTables, check_tables
from palate.errors import DataError
from palate.files import write_table

Split = Literal["leave_one_out", "global_time"]
ORDERED_TIES = 0.95
"""Share of tied groups in item-id order from which the source order counts as no order."""


@dataclass(frozen=True)
class Preparation:
    """How a log becomes contexts.

    Attributes:
        k_core: keep users and items with at least this many interactions, iterated; 1 keeps all.
        split: "leave_one_out" holds out each user's last liked items (the last for test, the one
            before for validation); "global_time" cuts all users at the same two moments.
        fractions: the moments of "global_time", as shares of all interactions.
        levels: rating thresholds, ascending; an item's level is how many it reaches. Without
            ratings every interaction has level 1.
        disliked: ratings up to this one are observed dislikes; None for no dislikes.
        window: a context's positives are the items liked within this many interactions; 1 is the
            next item.
        duplicates: which of several interactions of a user with one item stays.
        min_history: interactions that must come before a held-out item.
    """

    k_core: int = 5
    split: Split = "leave_one_out"
    fractions: tuple[float, float] = (0.8, 0.9)
    levels: tuple[float, ...] = (4.0,)
    disliked: float | None = 2.5
    window: int = 1
    duplicates: Literal["first", "last"] = "last"
    min_history: int = 1


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
    columns = tables.interactions.column_names
    if "event" in columns and "timestamp" not in columns:
        raise DataError(
            "interactions: the column 'event' needs a column 'timestamp', to tell what was skipped "
            "before the split. Add it, or leave 'event' out."
        )
    if how.split == "global_time" and "timestamp" not in columns:
        raise DataError(
            "split 'global_time' needs a timestamp column, which this source does not give. "
            "Use --set data.split=leave_one_out."
        )
    engine = DuckDB()
    order = pa.array(range(tables.interactions.num_rows), pa.int64())
    events = engine.open(tables.interactions.append_column("source_order", order))
    consumed, shown = events, None
    if "event" in columns:
        is_skip = nw.col("event").fill_null("") == SKIP
        shown = events.filter(is_skip).select("user_id", "item_id", "timestamp")
        consumed = events.filter(~is_skip)

    counts = {"interactions_read": tables.interactions.num_rows}
    frame = engine.materialise(without_duplicates(consumed, how.duplicates))
    counts["interactions_deduplicated"] = row_count(frame)
    frame = k_core(frame, how.k_core, engine.materialise)
    users, items = dense_ids(frame, "user_id"), dense_ids(frame, "item_id")
    frame = engine.materialise(frame.join(users, on="user_id").join(items, on="item_id"))
    frame, ties = positions(frame, seed, "timestamp" in columns)
    frame = engine.materialise(graded(frame, how, "rating" in columns))
    frame = split_rows(frame, how)

    kept = [name for name in ("timestamp", "rating") if name in columns]
    ids = [nw.col("user_code").alias("user_id"), nw.col("item_code").alias("item_id")]
    named = frame.select(*ids, "position", "level", "disliked", "split", *kept)
    interactions = engine.collect(named.sort("user_id", "position"))
    catalogue = _catalogue(engine, items, tables.items)
    files = {
        "interactions.parquet": interactions,
        "items.parquet": catalogue,
        "users.parquet": _table_of_ids(engine, users, "user_id"),
    }
    if shown is not None:
        coded = shown.join(users, on="user_id").join(items, on="item_id")
        files["shown.parquet"] = engine.collect(
            coded.select(*ids, "timestamp").sort("user_id", "timestamp", "item_id")
        )
    by_split = interactions["split"].value_counts().to_pylist()
    counts |= {
        "users": files["users.parquet"].num_rows,
        "items": catalogue.num_rows,
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
    clock = ["timestamp"] if "timestamp" in frame.collect_schema().names() else []
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
    frame: nw.LazyFrame, seed: int, timed: bool
) -> tuple[nw.LazyFrame, dict[str, int | float | str]]:
    """0-based place of each interaction within its user, and what was done about time ties.

    Ties in time keep the source order, unless that is item-id order in at least 95 % of the tied
    groups: such an order says nothing of time, so a hash of (seed, user, item) decides.
    """
    if not timed:
        place = nw.col("source_order").cum_count().over("user_id", order_by="source_order") - 1
        return frame.with_columns(position=place), {"rule": "source order; no timestamps"}
    before = nw.col("item_code").shift(1)
    ascending = before.over("user_id", "timestamp", order_by="source_order") < nw.col("item_code")
    in_order = frame.with_columns(ascending=ascending.fill_null(True).cast(nw.Int64))
    groups = in_order.group_by("user_id", "timestamp").agg(
        n=nw.len(), ordered=nw.col("ascending").min()
    )
    tied = groups.filter(nw.col("n") > 1).select(
        groups=nw.len(), rows=nw.col("n").sum(), ordered=nw.col("ordered").sum()
    )
    row = tied.collect("pyarrow").to_native().to_pylist()[0]
    n_groups, n_rows = row["groups"], int(row["rows"] or 0)
    share = int(row["ordered"] or 0) / n_groups if n_groups else 0.0
    by_hash = n_groups > 0 and share >= ORDERED_TIES
    tie = portable_hash(seed, "user_code", "item_code") if by_hash else nw.col("source_order")
    frame = frame.with_columns(tie=tie)
    place = nw.col("tie").cum_count().over("user_id", order_by=["timestamp", "tie", "item_code"])
    report: dict[str, int | float | str] = {
        "rule": "hash of (seed, user, item)" if by_hash else "source order",
        "tied_groups": n_groups,
        "tied_interactions": n_rows,
        "share_in_item_id_order": round(share, 4),
    }
    return frame.with_columns(position=place - 1), report


def portable_hash(seed: int, *columns: str) -> nw.Expr:
    """Integers below the prime 2^31 − 1 from integer columns, the same on every engine.

    For each column the state goes twice through x² + a x + c modulo the prime: the square mixes
    what a linear generator would only shift. All literals are 64-bit: Spark would otherwise
    compute in 32 bits and overflow.
    """
    prime = _int64(2**31 - 1)
    state: nw.Expr = _int64(seed % (2**31 - 1))
    for column in columns:
        state = (state + nw.col(column).cast(nw.Int64)) % prime
        for factor, constant in ((48_271, 1_013_904_223), (69_621, 12_345)):
            linear = state * _int64(factor) + _int64(constant)
            state = (state * state % prime + linear) % prime
    return state


def graded(frame: nw.LazyFrame, how: Preparation, rated: bool) -> nw.LazyFrame:
    """Adds `level` (how many rating thresholds are reached) and `disliked`."""
    if not rated:
        return frame.with_columns(level=_int64(1), disliked=nw.lit(False))
    level: nw.Expr = _int64(0)
    for threshold in how.levels:
        level = level + (nw.col("rating") >= threshold).cast(nw.Int64)
    never = nw.lit(False)
    disliked = never if how.disliked is None else nw.col("rating") <= how.disliked
    return frame.with_columns(level=level, disliked=disliked)


def split_rows(frame: nw.LazyFrame, how: Preparation) -> nw.LazyFrame:
    """Adds `split`: each user's rows are train, then validation, then test."""
    liked = frame.filter(nw.col("level") > 0)
    if row_count(liked) == 0:
        raise DataError(
            f"data.levels: no rating reaches {how.levels[0] if how.levels else '?'}, so nothing "
            "counts as liked. Lower it with --set data.levels=[…]."
        )
    place = nw.col("position")
    if how.split == "global_time":
        early, late = (_moment(frame, share) for share in how.fractions)
        clock = nw.col("timestamp")
        split = nw.when(clock >= late).then(nw.lit("test"))
        split = split.otherwise(
            nw.when(clock >= early).then(nw.lit("validation")).otherwise(nw.lit("train"))
        )
        return frame.with_columns(split=split)
    if how.window == 1:
        last = liked.group_by("user_code").agg(test_from=place.max())
        earlier = liked.join(last, on="user_code").filter(place < nw.col("test_from"))
        before = earlier.group_by("user_code").agg(validation_from=place.max())
        cuts = last.join(before, on="user_code")
    else:
        cuts = frame.group_by("user_code").agg(test_from=place.max() + 1 - how.window)
        cuts = cuts.with_columns(validation_from=nw.col("test_from") - how.window)
    cuts = cuts.filter(nw.col("validation_from") >= how.min_history)
    split = nw.when(place >= nw.col("test_from")).then(nw.lit("test"))
    held_out = nw.when(place >= nw.col("validation_from")).then(nw.lit("validation"))
    split = split.otherwise(held_out.otherwise(nw.lit("train")))
    return frame.join(cuts, on="user_code", how="left").with_columns(split=split)


def row_count(frame: nw.LazyFrame) -> int:
    """Number of rows; runs the plan."""
    return int(frame.select(n=nw.len()).collect("pyarrow")["n"][0])


def _moment(frame: nw.LazyFrame, share: float) -> int:
    when = nw.col("timestamp").quantile(share, interpolation="linear")
    return int(frame.select(when=when).collect("pyarrow")["when"][0])


def _catalogue(engine: DuckDB, codes: nw.LazyFrame, items: pa.Table) -> pa.Table:
    """The kept items in order of their ids; an empty title becomes "item" and the source id."""
    found = engine.collect(codes.join(engine.open(items), on="item_id").sort("item_code"))
    table = _with_source_id(found, "item_id")
    named = [
        title if title.strip() else f"item {source_id}"
        for title, source_id in zip(
            table["title"].cast(pa.string()).to_pylist(),
            table["source_id"].to_pylist(),
            strict=True,
        )
    ]
    return table.set_column(table.column_names.index("title"), "title", pa.array(named))


def _table_of_ids(engine: DuckDB, codes: nw.LazyFrame, column: str) -> pa.Table:
    return _with_source_id(engine.collect(codes.sort(column)), column)


def _with_source_id(table: pa.Table, column: str) -> pa.Table:
    rest: Sequence[str] = [
        name for name in table.column_names if name not in (column, column.replace("_id", "_code"))
    ]
    dense = pa.array(range(table.num_rows), pa.int64())
    return pa.table(
        {column: dense, "source_id": table[column], **{name: table[name] for name in rest}}
    )


def _int64(value: int) -> nw.Expr:
    return nw.lit(value, dtype=nw.Int64)
