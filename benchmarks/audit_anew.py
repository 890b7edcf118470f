"""Verdicts of the audit on 60 planted faults and 60 sound files made anew, and how it grows.

    python benchmarks/audit_anew.py [--quick] [--json PATH] [--tuning]

The files come from the 30 kinds of `audit_cases.py`, in four worlds each, from seeds on which no
limit was chosen; --tuning takes the seeds on which limits were chosen. The growth is that of the
search for test windows in training, with a log in which every user stands under two ids.
"""

import time
from typing import Any

import numpy as np
from audit_cases import CLEAN, FINAL, PLANTED, TUNING, WORLDS, Verdict, judged
from measuring import conditions, flags, publish

from palate.audit.structure import shared_windows
from palate.data.contexts import ContextSet, Interactions

USERS = (4_000, 8_000, 16_000, 32_000)
EVENTS = 50
"""Events of each user."""


def main() -> None:
    """Audit, measure, print, and write the tables."""
    parser = flags(__doc__)
    parser.add_argument("--tuning", action="store_true", help="the seeds limits were chosen on")
    given = parser.parse_args()
    first = TUNING if given.tuning else FINAL
    worlds = range(1 if given.quick else WORLDS)
    began = time.process_time()
    verdicts = [judged(kind, n, first) for kind in (*PLANTED, *CLEAN) for n in worlds]
    seconds = time.process_time() - began
    planted = [one for one in verdicts if one.kind.expected != "ok"]
    clean = [one for one in verdicts if one.kind.expected == "ok"]
    growth = [grown(n) for n in (USERS[:2] if given.quick else USERS)]
    which = "on which its limits were chosen" if given.tuning else "on which no limit was chosen"
    text = f"""# Audit of files made anew

From seeds {which}: {right(planted)} of {len(planted)} planted faults are found, by a
probe named for them; {right(clean)} of {len(clean)} sound files are left alone: nothing leaks, and
no probe of their lists cautions but those in brackets. {seconds:.0f} s of one core, files made and
audited.

| planted | found | by |
|---|---:|---|
{table(planted, worlds)}
| sound | left alone | may caution |
|---|---:|---|
{table(clean, worlds)}
{wrong(verdicts)}## Test windows in training, as the log grows

{EVENTS} events a user, half of the users the same as the other half, a test window for each of the
one half.

| users | events | s | flagged |
|---:|---:|---:|---:|
{"".join(f"| {n:,} | {n * EVENTS:,} | {s:.2f} | {share:.2f} |{chr(10)}" for n, s, share in growth)}
{conditions("numpy")}"""
    figures = [{"kind": v.kind.name, "world": v.world, "right": v.is_right} for v in verdicts]
    publish(text, {"verdicts": figures, "growth": growth}, given, "audit_anew")


def right(verdicts: list[Verdict]) -> int:
    """How many are right."""
    return sum(one.is_right for one in verdicts)


def table(verdicts: list[Verdict], worlds: range) -> str:
    """A line for each kind."""
    lines = []
    for begin in range(0, len(verdicts), len(worlds)):
        same = verdicts[begin : begin + len(worlds)]
        kind = same[0].kind
        lines.append(f"| {kind.name} | {right(same)} of {len(same)} | {', '.join(kind.probes)} |\n")
    return "".join(lines)


def wrong(verdicts: list[Verdict]) -> str:
    """What was said of the files that were judged wrongly."""
    lines = [
        f"- {one.kind.name}, world {one.world}: "
        + ", ".join(f"{f.probe} {f.verdict}" for f in one.found.findings if f.verdict != "ok")
        for one in verdicts
        if not one.is_right
    ]
    return "Judged wrongly:\n\n" + "\n".join(lines) + "\n\n" if lines else ""


def grown(users: int) -> tuple[int, float, float]:
    """Users, seconds of a search, and the share that is found."""
    half = users // 2
    items = np.tile(np.random.default_rng(0).integers(0, 5000, half * EVENTS), 2)
    log = Interactions(
        items=items,
        levels=np.ones(len(items), np.int64),
        disliked=np.zeros(len(items), bool),
        timestamps=None,
        users=np.repeat(np.arange(users), EVENTS),
        first_row=np.arange(users + 1) * EVENTS,
        split_starts={},
    )
    ends = np.arange(1, half + 1) * EVENTS
    contexts = ContextSet(log, ends - 1, ends)
    began = time.process_time()
    flags_: Any = shared_windows(contexts, np.arange(half * EVENTS, users * EVENTS))
    return users, time.process_time() - began, float(flags_.mean())


if __name__ == "__main__":
    main()
