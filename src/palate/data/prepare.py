"""From a source's two tables to clean, split, sorted Parquet.

Relational steps in long form, written in narwhals, so that the same code runs embedded and on a
cluster. Randomness is integer arithmetic that every engine computes alike.

The prepared folder holds

* `interactions.parquet`: user_id, item_id, position, level, disliked, split and, where known,
  turn, timestamp, elapsed, rating and weight; sorted by user and position. Ids are dense, 0-based;
* `items.parquet` and `users.parquet`: row i is id i; `source_id` is the id in the user's files;
* where the source has them, `shown.parquet`: items shown and skipped; `lists.parquet`: candidates
  of each user's context; `texts.parquet`: what was said before each turn.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import narwhals as nw
import pyarrow as pa

from palate.data.catalogue import catalogue
from palate.data.engine import DuckDB
from palate.data.expressions import row_count
from palate.data.feedback import Feedback, graded, nothing_liked
from palate.data.funnel import Funnel, counted
from palate.data.order import HASH, as_rows_stand, by_hash, in_time, tie_rule
from palate.data.preparation import Duplicates, Preparation, gives_contexts, has_order
from palate.data.splits import HELD_OUT, split_rows
from palate.data.tables import INTERACTIONS, SPLITS, SourceTables, check_tables, clock_of
from palate.errors import DataError, DataWarning
from palate.files import write_table

KEPT = ("turn", "timestamp", "elapsed", "rating", "weight")
"""Columns of a source that go into `interactions.parquet` as they are."""
PARTS = {
    "history": "only looked back on",
    "train": "learnt from",
    "validation": "held out to choose by",
    "test": "held out to compare by",
}


def prepare(tables: SourceTables, folder: Path, how: Preparation, seed: int) -> dict[str, Any]:
    """Clean, thin, order, grade and split a log; write it as Parquet.

    Args:
        tables: what a source gave.
        folder: where the Parquet files go; created if need be.
        how: the choices.
        seed: names the order of tied interactions where a hash decides it.

    Returns:
        The manifest: origin, choices, counts, the funnel (what each step left, and why), tie rule,
        and SHA-256 of each file written.

    Raises:
        DataError: the tables are malformed, a step leaves no rows, or it needs a missing column.
    """
    check_tables(tables)
    in_order = has_order(tables, how.order)
    trusted = tables.ordered or how.order == "rows"
    is_said = how.duplicates is not None
    how, feedback = how.resolved(tables)
    columns, whole = tables.interactions.column_names, gives_contexts(tables)
    engine, funnel = DuckDB(), Funnel()
    order = pa.array(range(tables.interactions.num_rows), pa.int64())
    known = [name for name in INTERACTIONS if name in columns]
    read = tables.interactions.select(known).append_column("source_order", order)
    events = graded(engine.open(read), feedback)
    shown = None
    left_out = tables.origin.get("rows_dropped", 0)
    why = _graded_how(feedback)
    if left_out and whole:  # such a row of the file is a context, of several rows here
        why += f"; {left_out:,} rows of the files, each a context, could not be read"
    elif left_out:
        funnel.unreadable(left_out, tables.interactions.num_rows)
    funnel.add("read", events, why)
    if "shown" in feedback.events.values():
        is_shown = nw.col("shown")
        shown = events.filter(is_shown)
        events = events.filter(~is_shown)
        funnel.add("consumed", events, "shown and passed over: kept beside the log")
    if how.split != "given" and row_count(events.filter(nw.col("level") > 0)) == 0:
        raise DataError(nothing_liked(feedback))
    once = events if whole else without_duplicates(events, how.duplicates or "last")
    frame = engine.materialise(once)
    n_once = row_count(frame)
    if how.duplicates == "strongest" and not (is_said or whole):
        _warn_of_lost_dislikes(events, frame)
    if not whole and how.duplicates != "all":
        funnel.add("once each", frame, f"of rows of a user with one item, the {how.duplicates}")
    frame = k_core(frame, how.k_core or 1, engine.materialise)
    if (how.k_core or 1) > 1:
        rare = f"users and items with fewer than {how.k_core} rows, until there are none"
        funnel.add(f"{how.k_core}-core", frame, rare)
    users = dense_ids(frame, "user_id")
    items = dense_ids(engine.open(tables.items.select(["item_id"])) if whole else frame, "item_id")
    frame = engine.materialise(frame.join(users, on="user_id").join(items, on="item_id"))
    ties: dict[str, Any] = {"rule": "source order; no timestamps"}
    if "timestamp" in columns:
        rule = tie_rule(engine, events, tables.items, trusted or "position" in columns)
        frame, ties = in_time(frame, seed, rule), rule.report
    elif in_order:
        frame = as_rows_stand(frame)
    else:
        frame, ties = by_hash(frame, seed), {"rule": f"no order in the log: {HASH}"}
    frame = engine.materialise(frame)
    frame = engine.materialise(split_rows(frame, how, seed, in_order))
    for split in SPLITS:
        part = counted(frame.filter(nw.col("split") == split))
        if part["rows"]:
            funnel.steps.append({"step": split, **part, "part": True, "why": PARTS[split]})

    kept = [name for name in KEPT if name in columns]
    ids = [nw.col("user_code").alias("user_id"), nw.col("item_code").alias("item_id")]
    named = frame.select(*ids, "position", "level", "disliked", "split", *kept)
    interactions = engine.collect(named.sort("user_id", "position"))
    if how.split == "random":
        interactions = interactions.replace_schema_metadata(HELD_OUT)
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
    counts = {
        "interactions_read": tables.interactions.num_rows,
        "interactions_deduplicated": n_once,
        "users": files["users.parquet"].num_rows,
        "items": kept_items.num_rows,
        "interactions": interactions.num_rows,
        "liked": sum(level > 0 for level in interactions["level"].to_pylist()),
        **{f"interactions_{row['values']}": row["counts"] for row in by_split},
    }
    return {
        "origin": tables.origin,
        "preparation": {**vars(how), "graded_by": feedback.graded_by, "seed": seed},
        "counts": counts,
        "funnel": funnel.steps,
        "ties": ties,
        "sha256": {name: write_table(table, folder / name) for name, table in files.items()},
    }


def without_duplicates(frame: nw.LazyFrame, keep: Duplicates) -> nw.LazyFrame:
    """One row for each user and item: the first or the last in the source's time and order, or the
    one of the highest level, of equals the last; or all of them."""
    if keep == "all":
        return frame
    clock = clock_of(frame.collect_schema().names())
    by = [*(["level"] if keep == "strongest" else []), *clock, "source_order"]
    nth = nw.col("source_order").cum_count(reverse=keep != "first")
    place = nth.over("user_id", "item_id", order_by=by)
    return frame.with_columns(place=place).filter(nw.col("place") == 1).drop("place")


def _warn_of_lost_dislikes(events: nw.LazyFrame, once: nw.LazyFrame) -> None:
    """A DataWarning where most dislikes go for a stronger row of the same user and item."""
    is_disliked = nw.col("disliked")
    n_before = row_count(events.filter(is_disliked).select("user_id", "item_id").unique())
    n_lost = n_before - row_count(once.filter(is_disliked))
    if 2 * n_lost > n_before:
        warnings.warn(
            DataWarning(
                f"data.duplicates: {n_lost:,} of {n_before:,} dislikes are lost, since of rows of "
                "a user with one item the strongest stays, here one that likes it. If what came "
                "last is meant, pass --set data.duplicates=last; if not, say so with --set "
                "data.duplicates=strongest."
            ),
            stacklevel=3,
        )


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


def _graded_how(how: Feedback) -> str:
    """What counts as a like and as a dislike, for the funnel."""
    said = [f"{kind or '(no event)'}: {meaning}" for kind, meaning in how.events.items()]
    said = said if how.is_graded and how.graded_by != "weight" else []
    if how.graded_by is not None:
        said.append(f"liked from {how.graded_by} {how.levels[0]:g}")
        if len(how.levels) > 1:
            said.append("more at " + ", ".join(f"{level:g}" for level in how.levels[1:]))
    if how.disliked is not None:
        said.append(f"disliked up to {how.disliked:g}")
    return "; ".join(said) or "every row counts as liked"


def _table_of_ids(engine: DuckDB, codes: nw.LazyFrame, column: str) -> pa.Table:
    """The column as dense ids, and `source_id`, the ids they stand for."""
    table = engine.collect(codes.sort(column))
    dense = pa.array(range(table.num_rows), pa.int64())
    return pa.table({column: dense, "source_id": table[column]})
