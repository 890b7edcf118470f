"""Users one can look at: their lists before and after, and what moved."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

BEFORE, AFTER = "sft", "aligned"


@dataclass(frozen=True)
class Listed:
    """An item of a list.

    Attributes:
        title: what it is.
        move: "new", "out", "up 3", "down 2", or "" where nothing changed or nothing is compared.
        is_held_out: whether the person went on to like it.
    """

    title: str
    move: str
    is_held_out: bool


@dataclass(frozen=True)
class HeldOut:
    """What a person went on to like, and its ranks in the catalogue."""

    title: str
    before: str
    after: str


@dataclass(frozen=True)
class Person:
    """One example.

    Attributes:
        name: the id in the source.
        said: the dialogue before, or None.
        history: titles and what was felt about them, oldest first.
        earlier: items before those.
        held_out: what was held out.
        before, after: the lists; the latter None where nothing is aligned.
        change: in a few words, how the best rank of what was held out changed.
        trend: "better", "worse" or "".
    """

    name: str
    said: str | None
    history: list[tuple[str, str]]
    earlier: int
    held_out: list[HeldOut]
    before: list[Listed]
    after: list[Listed] | None
    change: str
    trend: str


def people(examples: pa.Table) -> list[Person]:
    """The users of an `examples.parquet`; feelings are shown where not all are the same."""
    rows = examples.to_pylist()
    feelings = {item["felt"] for row in rows for item in row["history"]}
    return [_person(row, len(feelings) > 1) for row in rows]


def _person(row: dict[str, Any], shows_feelings: bool) -> Person:
    stages = {stage["stage"]: stage for stage in row["stages"]}
    answers = {item["item_id"] for item in row["held_out"]}
    ranks = [stages[stage]["ranks"] if stage in stages else None for stage in (BEFORE, AFTER)]
    before = stages[BEFORE]["items"] if BEFORE in stages else []
    after = stages[AFTER]["items"] if AFTER in stages else None
    moves = {} if after is None else _moves(after, before)
    change, trend = _change(*ranks)
    history = [(item["title"], item["felt"] if shows_feelings else "") for item in row["history"]]
    return Person(
        name=row["user"],
        said=row["said"],
        history=history,
        earlier=row["history_length"] - len(history),
        held_out=[
            HeldOut(item["title"], *("" if of is None else f"{of[place]:g}" for of in ranks))
            for place, item in enumerate(row["held_out"])
        ],
        before=_listed(before, answers, {i: move for i, move in moves.items() if move == "out"}),
        after=None if after is None else _listed(after, answers, moves),
        change=change,
        trend=trend,
    )


def _listed(items: list[dict[str, Any]], answers: set[int], moves: dict[int, str]) -> list[Listed]:
    return [
        Listed(item["title"], moves.get(item["item_id"], ""), item["item_id"] in answers)
        for item in items
    ]


def _moves(items: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> dict[int, str]:
    """What happened to the items of either list since the earlier one."""
    was = {item["item_id"]: place for place, item in enumerate(earlier)}
    now = {item["item_id"]: place for place, item in enumerate(items)}
    return dict.fromkeys(was, "out") | {item: _move(was.get(item), now[item]) for item in now}


def _move(was: int | None, now: int) -> str:
    if was is None:
        return "new"
    if was == now:
        return ""
    return f"up {was - now}" if was > now else f"down {now - was}"


def _change(before: list[float] | None, after: list[float] | None) -> tuple[str, str]:
    """How the best rank of what was held out changed, and which way."""
    first, second = (min(ranks) if ranks else None for ranks in (before, after))
    if first is None or second is None:
        only = first if second is None else second
        return ("" if only is None else f"place {only:g}"), ""
    if first == second:
        return f"place {first:g}, as before", ""
    return f"place {first:g} → {second:g}", "better" if second < first else "worse"
