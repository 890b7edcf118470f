# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""What came first: the place of each interaction within its user.

Times decide where there are any, then the order of the rows. Where neither says anything, a hash
of (seed, user, item) decides, so that no order of ids or of a database passes for one in time.
"""

import re
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.engine import DuckDB
from palate.data.expressions import portable_hash
from palate.data.tables import clock_of

ORDERED_TIES = 0.95
"""Share of tied groups in item-id order from which the source order counts as no order."""
HASH = "hash of (seed, user, item)"


@dataclass(frozen=True)
class TieRule:
    """Who decides among equal times, for each input file.

    Attributes:
        by_hash: the files in which a hash does; in the others the source order.
        report: the rule in words, and the counts behind it.
    """

    by_hash: tuple[Any, ...]
    report: dict[str, Any]


def tie_rule(
    engine: DuckDB, events: nw.LazyFrame, items: pa.Table, trusted: bool = False
) -> TieRule:
    """Whether the order of rows with equal times says anything, for each input file on its own.

    The source order stays, unless it is the order of the item ids in at least 95 % of the file's
    tied groups, or of those of three rows or more: a pair stands in it half the time by chance, a
    larger group seldom. One such group among pairs may be one appended row, and is no evidence.
    Ids are compared as numbers ("i9" before "i10") and as text.

    Args:
        engine: where the frame lives.
        events: user_id, item_id, timestamp, source_order and, where there are such, nanosecond and
            file; as read, since what is thinned out tells of the order too.
        items: the catalogue, for the order of its ids.
        trusted: the order of rows is known to be one, so that only counts are made.
    """
    columns = events.collect_schema().names()
    named = "file" in columns
    events = events.with_columns(file=nw.col("file") if named else nw.lit(""))
    group = ["file", "user_id", *clock_of(columns)]
    joined = events.join(engine.open(_orders(items["item_id"])), on="item_id")
    rising = {
        name: nw.col(name).shift(1).over(*group, order_by="source_order") <= nw.col(name)
        for name in ("as_number", "as_text")
    }
    steps = joined.with_columns(
        **{f"{name}_rises": up.fill_null(True).cast(nw.Int64) for name, up in rising.items()}
    )
    groups = steps.group_by(*group).agg(
        rows=nw.len(),
        different=nw.col("item_id").n_unique(),
        as_number=nw.col("as_number_rises").min(),
        as_text=nw.col("as_text_rises").min(),
    )
    tied = groups.filter(nw.col("different") > 1)
    large = (nw.col("different") > 2).cast(nw.Int64)
    counts = tied.group_by("file").agg(
        groups=nw.len(),
        rows=nw.col("rows").sum(),
        large=large.sum(),
        as_number=nw.col("as_number").sum(),
        as_text=nw.col("as_text").sum(),
        large_as_number=(nw.col("as_number") * large).sum(),
        large_as_text=(nw.col("as_text") * large).sum(),
    )
    found = [_decided(row, trusted) for row in engine.collect(counts.sort("file")).to_pylist()]
    n_groups = sum(one["tied_groups"] for one in found)
    in_order = sum(one["share_in_item_id_order"] * one["tied_groups"] for one in found)
    hashed = tuple(one["file"] for one in found if one["rule"] == HASH)
    rule = HASH if hashed and len(hashed) == len(found) else "source order"
    if 0 < len(hashed) < len(found):
        rule = f"{HASH} in {len(hashed)} of {len(found)} files with ties, else source order"
    report: dict[str, Any] = {
        "rule": rule,
        "tied_groups": n_groups,
        "tied_interactions": sum(one["tied_interactions"] for one in found),
        "share_in_item_id_order": round(in_order / n_groups, 4) if n_groups else 0.0,
    }
    if named:
        report["files"] = found
    return TieRule(hashed, report)


def _decided(row: dict[str, Any], trusted: bool) -> dict[str, Any]:
    """The rule of one file, from its counts of tied groups."""
    groups, large = int(row["groups"]), int(row["large"])
    in_order = max(int(row["as_number"]), int(row["as_text"]))
    large_in_order = max(int(row["large_as_number"]), int(row["large_as_text"]))
    by_ids = in_order >= ORDERED_TIES * groups
    by_large = large > 1 and large_in_order >= ORDERED_TIES * large
    return {
        "file": row["file"],
        "rule": HASH if (by_ids or by_large) and not trusted else "source order",
        "tied_groups": groups,
        "tied_interactions": int(row["rows"]),
        "share_in_item_id_order": round(in_order / groups, 4),
    }


def _orders(ids: pa.ChunkedArray) -> pa.Table:
    """item_id, and its place in the order of ids read as numbers and as text."""
    texts = pc.cast(ids, pa.string())
    if pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type):
        # "item 9" before "item 10": digits count as a number, as whoever sorted them may have
        parts = [re.split(r"(\d{1,18})", text) for text in texts.to_pylist()]
        keys = [
            [int(part) if place % 2 else part for place, part in enumerate(one)] for one in parts
        ]
        by_number = sorted(range(len(keys)), key=keys.__getitem__)
    else:
        by_number = pc.sort_indices(ids).to_numpy()
    return pa.table(
        {
            "item_id": ids,
            "as_number": _places(np.asarray(by_number, np.int64)),
            "as_text": _places(pc.sort_indices(texts).to_numpy()),
        }
    )


def _places(order: np.ndarray) -> np.ndarray:
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def in_time(frame: nw.LazyFrame, seed: int, ties: TieRule) -> nw.LazyFrame:
    """Adds `position`, the 0-based place of each interaction within its user, by time."""
    tie: nw.Expr = nw.col("source_order")
    columns = frame.collect_schema().names()
    before = clock_of(columns)
    if ties.by_hash:
        drawn = portable_hash(seed, "user_code", "item_code")
        tie = drawn
        if "file" in columns:
            before.append("file")
            tie = (
                nw.when(nw.col("file").is_in(list(ties.by_hash)))
                .then(drawn)
                .otherwise(nw.col("source_order"))
            )
    by = [*before, "tie", "item_code", "source_order"]
    place = nw.col("source_order").cum_count().over("user_code", order_by=by)
    return frame.with_columns(tie=tie).with_columns(position=place - 1)


def as_rows_stand(frame: nw.LazyFrame) -> nw.LazyFrame:
    """Adds `position` in the order of the source."""
    place = nw.col("source_order").cum_count().over("user_code", order_by="source_order") - 1
    return frame.with_columns(position=place)


def by_hash(frame: nw.LazyFrame, seed: int) -> nw.LazyFrame:
    """Adds `position` for a log whose rows stand in no order: by a hash of (seed, user, item)."""
    tie = portable_hash(seed, "user_code", "item_code")
    by = ["tie", "item_code", "source_order"]
    place = nw.col("source_order").cum_count().over("user_code", order_by=by) - 1
    return frame.with_columns(tie=tie).with_columns(position=place)
