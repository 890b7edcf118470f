"""Verdicts of the audit on 40 candidate files whose faults are known, and on Last.fm's.

    python benchmarks/audit.py [--quick] [--json PATH] [--lastfm FOLDER]

20 files have one fault each, 20 have none (`planted_lists.py`); the last column says whether the
verdict on the whole file is right, and whether a probe named beforehand gives it.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import conditions, flags, publish
from planted_lists import CLEAN, PLANTED, Case

from palate.audit import Audit, audit

FIRST_SEED = 100_000
"""Not one of those that the limits of the audit were chosen on."""


def main() -> None:
    """Audit, print, and write the table."""
    parser = flags(__doc__)
    parser.add_argument("--lastfm", type=Path, help="folder with the published files of S-DPO")
    given = parser.parse_args()
    cases = (*PLANTED, *CLEAN)[:: 4 if given.quick else 1]
    rows = [judged(case, seed) for seed, case in enumerate(cases, FIRST_SEED)]
    right = sum(row["right"] for row in rows)
    named = sum(row["right"] and row["named"] for row in rows)
    published = published_lists(given.lastfm) if given.lastfm else ""
    text = f"""# Audit of candidate files whose faults are known

The verdict is right on {right} of {len(rows)} files; on {named} a probe named
beforehand gives it.

| file | lists | right verdict | verdict | given by (score; on redrawn lists) | s | |
|---|---:|---|---|---|---:|---|
{"".join(line(row) for row in rows)}
{published}{conditions("numpy")}"""
    publish(text, rows, given, "audit")


def judged(case: Case, seed: int) -> dict[str, Any]:
    """The verdict on one file."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = case.write(Path(temporary), seed)
        began = time.perf_counter()
        found = audit(folder, options={"items": "items.tsv"})
    return {
        "name": case.name,
        "expected": case.verdict,
        "audit": found.to_json(),
        "right": found.verdict == case.verdict,
        "named": is_named(case, found),
        "seconds": time.perf_counter() - began,
    }


def is_named(case: Case, found: Audit) -> bool:
    """Whether a probe that should give the verdict gives it."""
    by = {one.probe for one in found.findings if one.verdict == found.verdict}
    return not case.probes or bool(by & set(case.probes))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    findings = row["audit"]["findings"]
    lists = next(one["n"] for one in findings if one["about"] == "lists")
    told = ", ".join(words(one) for one in findings if one["verdict"] != "ok")
    judgement = "**wrong**" if not row["right"] else "right" if row["named"] else "another probe"
    return (
        f"| {row['name']} | {lists:,} | {row['expected']} | {row['audit']['verdict']} | {told} | "
        f"{row['seconds']:.1f} | {judgement} |\n"
    )


def words(finding: dict[str, Any]) -> str:
    """A finding in a cell."""
    null = "" if finding["null"] is None else f"; {finding['null']:.3f}"
    return f"{finding['probe']}: {finding['verdict']} ({finding['score']:.3f}{null})"


def published_lists(folder: Path) -> str:
    """A section on the published files."""
    began = time.perf_counter()
    found = audit(folder)
    seconds = time.perf_counter() - began
    rows = "".join(
        f"| {one.probe} | {one.score:.4f} | {one.low:.4f}–{one.high:.4f} | "
        f"{'' if one.null is None else f'{one.null:.4f}'} | {one.verdict} |\n"
        for one in found.findings
    )
    return f"""## The published Last.fm files (S-DPO, with `--lastfm`)

{found.lists}, {seconds:.0f} s.

| probe | score | 95 % interval | redrawn | verdict |
|---|---:|---|---:|---|
{rows}
"""


if __name__ == "__main__":
    main()
