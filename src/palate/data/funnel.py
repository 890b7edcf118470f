"""How many rows, users and items of a log are left after each step of preparing it, and why."""

from typing import Any

import narwhals as nw

COUNTS = ("rows", "users", "items", "likes", "dislikes")


class Funnel:
    """The steps so far.

    Attributes:
        steps: one dictionary each: step, the five counts of what is left after it, removed (rows
            that went) and why.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def unreadable(self, left_out: int, readable: int) -> None:
        """Begin with the rows of the files, of which a source has left some out."""
        none = dict.fromkeys(COUNTS[1:])
        first = {"step": "in the files", "rows": left_out + readable, **none}
        self.steps.append(first | {"removed": 0, "why": "every row, readable or not"})

    def add(self, step: str, frame: nw.LazyFrame, why: str) -> int:
        """Count what a step has left; returns the rows.

        Args:
            step: its name.
            frame: user_id, item_id, level and disliked after it.
            why: what went, or what the rows are.
        """
        counts = counted(frame)
        removed = self.steps[-1]["rows"] - counts["rows"] if self.steps else 0
        self.steps.append({"step": step, **counts, "removed": removed, "why": why})
        return counts["rows"]


def counted(frame: nw.LazyFrame) -> dict[str, int]:
    """The five counts of a graded log."""
    found = frame.select(
        rows=nw.len(),
        users=nw.col("user_id").n_unique(),
        items=nw.col("item_id").n_unique(),
        likes=(nw.col("level") > 0).cast(nw.Int64).sum(),
        dislikes=nw.col("disliked").cast(nw.Int64).sum(),
    )
    row = found.collect("pyarrow").to_native().to_pylist()[0]
    return {name: int(row[name] or 0) for name in COUNTS}


def funnel_lines(steps: list[dict[str, Any]]) -> list[str]:
    """The steps as a table in plain text, a line each, with a head."""
    rows = [
        [
            f"  {one['step']}" if one.get("part") else one["step"],
            *("" if one[name] is None else f"{one[name]:,}" for name in COUNTS),
            one["why"],
        ]
        for one in steps
    ]
    head = ["", *COUNTS, "why"]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head) - 1)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:]), row[-1]]
        ).rstrip()
        for row in [head, *rows]
    ]
