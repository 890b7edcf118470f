# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""What each row of a log says: how much somebody liked an item, that they did not, or only that
it was shown.

A row is graded by its event where `data.events` gives the event a level, else by its rating or
weight, else it has level 1.
"""

import json
import re
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import narwhals as nw
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.expressions import int64
from palate.data.stars import STAR_DISLIKED, STAR_LEVELS, STARS
from palate.data.tables import SKIP, SourceTables
from palate.errors import DataError, DataWarning

Meaning = int | Literal["shown", "disliked", "rated"]
"""Of an event: a level (0: consumed, neither liked nor disliked), "shown" and passed over,
"disliked", or "rated": the row's rating or weight says how much."""

FEWEST_RATINGS = 20
"""Ratings among which two or three different ones are too few to be stars."""
MOST_WEIGHTS = 10
"""Different weights of which each is a level by itself; of more the thresholds must be said."""

MOST_LEVELS = 20
"""The highest level of an event."""
PLAIN_KEY = re.compile(r"^(?:[^\W\d][\w-]*(?: [\w-]+)*|0|[1-9]\d*)$")
YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null")


@dataclass(frozen=True)
class Feedback:
    """How the rows of one log are graded.

    Attributes:
        graded_by: the column that grades rows whose event does not: "rating", "weight" or None.
        levels: thresholds of that column, ascending.
        disliked: ratings up to this one are dislikes; None for none.
        events: what each event that occurs means; empty for a log without events.
    """

    graded_by: Literal["rating", "weight"] | None
    levels: tuple[float, ...]
    disliked: float | None
    events: dict[str, Meaning]

    @property
    def is_graded(self) -> bool:
        """Whether levels come from events or weights, which add up, rather than from ratings."""
        return self.graded_by == "weight" or any(
            meaning not in ("shown", "rated") for meaning in self.events.values()
        )


def feedback_of(
    tables: SourceTables,
    levels: tuple[float, ...] | None = None,
    disliked: float | Literal["auto"] | None = "auto",
    events: Mapping[str, Meaning] | None = None,
) -> Feedback:
    """How a log is graded, from what was said and what the log holds.

    Args:
        tables: what a source gave.
        levels: thresholds; None: 4 on a scale of stars, each of up to `MOST_WEIGHTS` weights.
        disliked: the highest rating that is a dislike, None for none; "auto": 2.5 on stars.
        events: event → what it means; None where the log has one kind beside "skip".

    Raises:
        DataError: an event has no meaning, a rating or weight is missing, or the scale is one
            for which the thresholds must be said.
    """
    log = tables.interactions
    meanings = _meanings(tables, events or {})
    found = [name for name in ("rating", "weight") if name in log.column_names]
    if len(found) == 2:
        raise DataError(
            "interactions: 'rating' and 'weight' cannot both grade. Give one of them; a source may "
            "leave the other out."
        )
    graded_by = found[0] if found else None
    if "rated" in meanings.values() and graded_by is None and events:
        raise DataError(
            "data.events: 'rated' needs a column 'rating' or 'weight', which this log lacks. Give "
            "the event a level instead, such as 1."
        )
    values = None
    if graded_by is not None:
        values = _graded_values(log, graded_by, meanings)
    if values is None or len(values) == 0:
        return Feedback(None, levels or STAR_LEVELS, None, meanings)
    if graded_by == "weight":
        return Feedback("weight", _weight_levels(values, levels, disliked), None, meanings)
    return Feedback("rating", *_rating_levels(values, levels, disliked), meanings)


def graded(frame: nw.LazyFrame, how: Feedback) -> nw.LazyFrame:
    """Adds `level` (how many thresholds are reached, or what the event says), `disliked` and
    `shown`."""
    level: nw.Expr = int64(1)
    disliked: nw.Expr = nw.lit(False)
    shown: nw.Expr = nw.lit(False)
    if how.graded_by is not None:
        value = nw.col(how.graded_by)
        level = int64(0)
        for threshold in how.levels:
            level = level + (value >= threshold).cast(nw.Int64)
        if how.disliked is not None:
            disliked = value <= how.disliked
    event = nw.col("event").fill_null("") if how.events else nw.lit("")
    for kind, meaning in how.events.items():
        if meaning == "rated":
            continue
        worth = meaning if isinstance(meaning, int) else 0
        level = nw.when(event == kind).then(int64(worth)).otherwise(level)
        disliked = nw.when(event == kind).then(nw.lit(meaning == "disliked")).otherwise(disliked)
        shown = nw.when(event == kind).then(nw.lit(meaning == "shown")).otherwise(shown)
    return frame.with_columns(level=level, disliked=disliked, shown=shown)


def nothing_liked(how: Feedback) -> str:
    """The sentence for a log in which nothing reaches a level."""
    if how.graded_by is None:
        return (
            "data.events: no row has an event with a level of at least 1, so nothing counts as "
            "liked. Give one to the events that say somebody liked an item."
        )
    return (
        f"data.levels: no {how.graded_by} reaches {how.levels[0]}, so nothing counts as liked. "
        "Lower it with --set data.levels=[…]."
    )


def _meanings(tables: SourceTables, events: Mapping[str, Meaning]) -> dict[str, Meaning]:
    log = tables.interactions
    if "event" not in log.column_names:
        if events:
            raise DataError(
                "data.events: this log has no column 'event'. Name yours with --set "
                "data.options.columns.event=…, or leave data.events out."
            )
        return {}
    counts = pc.value_counts(pc.fill_null(log["event"], "")).to_pylist()
    kinds = {row["values"]: row["counts"] for row in counts}
    unsaid = [kind for kind in kinds if kind not in events and kind != SKIP]
    if len(unsaid) > (0 if events else 1):
        raise DataError(_unsaid(tables, {kind: kinds[kind] for kind in unsaid}, events))
    default: dict[str, Meaning] = {kind: "shown" if kind == SKIP else "rated" for kind in kinds}
    return {kind: events.get(kind, default[kind]) for kind in kinds}


def _unsaid(tables: SourceTables, unsaid: dict[str, int], said: Mapping[str, Meaning]) -> str:
    often = sorted(unsaid, key=lambda kind: (-unsaid[kind], kind))
    listed = ", ".join(f"{kind or '(empty)'} in {unsaid[kind]:,} rows" for kind in often[:6])
    listed += ", …" if len(often) > 6 else ""
    found = dict(said) | {kind: min(n, MOST_LEVELS) for n, kind in enumerate(often, len(said) + 1)}
    example = ", ".join(f"{_key(kind)}: {worth}" for kind, worth in found.items())
    flag = shlex.quote(f"data.events={{{example}}}")
    hint = ""
    if tables.origin.get("source") == "files":
        hint = ", or leave the column out with --set data.options.columns.event=null"
    return (
        f"interactions: the column 'event' holds {listed}, and nothing says what "
        f"{'they mean' if len(unsaid) > 1 else 'that means'}. "
        f"{'Add' if said else 'Give'} a level to each, the strongest the highest, as in --set "
        f"{flag}, or shown, disliked or rated (docs/data.md){hint}."
    )


def _key(kind: str) -> str:
    """An event as a key of YAML, in quotation marks where it would be something else."""
    is_plain = PLAIN_KEY.match(kind) and kind.lower() not in YAML_WORDS
    return kind if is_plain else json.dumps(kind, ensure_ascii=False)


def _graded_values(
    log: pa.Table, column: str, meanings: Mapping[str, Meaning]
) -> pa.ChunkedArray | pa.Array:
    """The values that grade; DataError if one of them is no finite number, or a weight below 0."""
    values = log[column]
    bad = pc.or_kleene(pc.is_null(values, nan_is_null=True), pc.is_inf(values))
    graded_rows = None
    if meanings:
        graded_by = [kind for kind, meaning in meanings.items() if meaning == "rated"]
        kinds = pa.array(graded_by, pa.string())
        graded_rows = pc.is_in(pc.fill_null(log["event"], ""), value_set=kinds)
        bad = pc.and_(bad, graded_rows)
    if count := pc.sum(bad).as_py() or 0:
        row = pc.index(bad, True).as_py() + 1
        raise DataError(
            f"interactions: {count} {column}s are empty, NaN or infinite, the first in row {row}. "
            "Expected a finite number for each consumed item; drop those rows or the column."
        )
    values = values if graded_rows is None else values.filter(graded_rows)
    if column == "weight" and len(values) and pc.min(values).as_py() < 0:
        raise DataError(
            f"interactions: a weight is {pc.min(values).as_py():g}. Expected 0 or more: a weight "
            "says how much, and never a dislike; name a column with dislikes 'rating'."
        )
    return values


def _weight_levels(
    values: pa.ChunkedArray | pa.Array,
    levels: tuple[float, ...] | None,
    disliked: float | Literal["auto"] | None,
) -> tuple[float, ...]:
    if isinstance(disliked, float | int):
        raise DataError(
            f"data.disliked is {disliked:g}, but the column 'weight' grades and never dislikes. "
            "Leave data.disliked out, or name the column 'rating'."
        )
    if levels is not None:
        return levels
    different = sorted(value for value in pc.unique(values).to_pylist() if value > 0)
    if not different:
        raise DataError(
            "interactions: the column 'weight' holds nothing above 0, so nothing counts as liked. "
            "Give what was liked a weight, or leave the column out."
        )
    if len(different) > MOST_WEIGHTS:
        ends = pc.min_max(values).as_py()
        raise DataError(
            f"interactions: the column 'weight' holds {len(different):,} different weights from "
            f"{ends['min']:g} to {ends['max']:g}, too many for a level each. Say from which weight "
            "an item counts as liked with --set data.levels=[…], ascending."
        )
    return tuple(map(float, different))


def _rating_levels(
    values: pa.ChunkedArray | pa.Array,
    levels: tuple[float, ...] | None,
    disliked: float | Literal["auto"] | None,
) -> tuple[tuple[float, ...], float | None]:
    different = pc.unique(values)
    on_stars = pc.all(pc.is_in(pc.cast(different, pa.float64()), value_set=pa.array(STARS))).as_py()
    if not on_stars and (levels is None or disliked == "auto"):
        ends = pc.min_max(values).as_py()
        missing = [
            name
            for name, unsaid in (("levels", levels is None), ("disliked", disliked == "auto"))
            if unsaid
        ]
        asked = {
            "levels": "from which rating an item counts as liked (--set data.levels=[…])",
            "disliked": "up to which one it is disliked (--set data.disliked=…, null for never)",
        }
        raise DataError(
            f"interactions: ratings run from {ends['min']:g} to {ends['max']:g}, which is no scale "
            f"of 0.5 to 5 stars. Say {' and '.join(asked[name] for name in missing)}; counts of "
            "plays or purchases belong in a column 'weight'."
        )
    is_default = levels is None and disliked == "auto"
    if on_stars and is_default and len(different) in (2, 3) and len(values) >= FEWEST_RATINGS:
        listed = ", ".join(f"{value:g}" for value in sorted(different.to_pylist()))
        warnings.warn(
            DataWarning(
                f"interactions: ratings are {listed} only, and are read as stars: liked from "
                f"{STAR_LEVELS[0]:g}, disliked up to {STAR_DISLIKED:g}. If they stand for clicks, "
                "purchases and the like, name the column 'weight', or the events in data.events; "
                "if they are stars, say data.levels."
            ),
            stacklevel=4,
        )
    chosen = STAR_LEVELS if levels is None else levels
    lowest = STAR_DISLIKED if disliked == "auto" else disliked
    if lowest is not None and lowest >= chosen[0]:
        raise DataError(
            f"data.disliked is {lowest:g}, at or above the first of data.levels "
            f"{list(chosen)}; an item cannot be both liked and disliked. Set data.disliked lower, "
            "or to null for no dislikes."
        )
    return chosen, lowest
