"""What alignment's set-up costs as the log grows: which moments of a history one pass reads.

    python benchmarks/alignment_setup.py [--quick] [--json PATH]

The floor is a walk in plain Python over the same moments that does nothing but count them. Both
sides are timed turn by turn in one process. Where work is linear, each line has as many nanoseconds
a row.
"""

import argparse
import statistics

import numpy as np
import pyarrow as pa
from measuring import conditions, flags, in_turn, publish

from palate.data.contexts import ContextSet, Interactions
from palate.policies import SequencePolicy
from palate.training.preference_sets import passes

EVENTS = 50
"""Events of each user."""


def main() -> None:
    """Measure, print, and write the table."""
    arguments = flags(__doc__).parse_args()
    users = (1_000, 4_000) if arguments.quick else (2_000, 8_000, 32_000, 128_000)
    figures = {count: measured(count, 1 if arguments.quick else 3) for count in users}
    publish(report(figures, arguments), figures, arguments, "alignment_setup")


def measured(users: int, turns: int) -> dict[str, list[float]]:
    """Seconds of both sides on a log of that many users."""
    contexts = log_of(users)
    policy = SequencePolicy.create(
        pa.table({"item_id": range(100), "title": ["title"] * 100}), max_history=EVENTS
    )
    return in_turn(
        {
            "passes": lambda: passes(contexts, policy, EVENTS),
            "a walk in Python": lambda: walked(contexts),
        },
        turns,
    )


def log_of(users: int) -> ContextSet:
    """Every event but each user's first as a context."""
    rows = np.arange(users * EVENTS)
    begins = rows[rows % EVENTS > 0]
    log = Interactions(
        items=rows % 100,
        levels=np.ones(len(rows), np.int64),
        disliked=np.zeros(len(rows), bool),
        timestamps=None,
        users=rows // EVENTS,
        first_row=np.arange(users + 1) * EVENTS,
        split_starts={},
    )
    return ContextSet(log, begins, begins + 1)


def walked(contexts: ContextSet) -> int:
    """How many moments there are, one by one."""
    count = 0
    for _ in contexts.begins.tolist():
        count += 1
    return count


def report(figures: dict[int, dict[str, list[float]]], given: argparse.Namespace) -> str:
    """The table as Markdown."""
    rows = ""
    for users, sides in figures.items():
        events = users * EVENTS
        ours, floor = (statistics.median(seconds) for seconds in sides.values())
        each, least = (f"{1e9 * seconds / events:.0f}" for seconds in (ours, floor))
        rows += f"| {events:,} | {ours:.2f} | {each} | {least} |\n"
    return f"""# Alignment's set-up as the log grows

{EVENTS} events a user, every event but the first a context, passes of up to {EVENTS} moments;
medians of {1 if given.quick else 3} turns.

| rows | s | ns a row | a walk in Python, ns a row |
|---:|---:|---:|---:|
{rows}
{conditions("numpy")}"""


if __name__ == "__main__":
    main()
