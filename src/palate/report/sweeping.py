"""The page of a sweep: the chief metric against what was swept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palate.errors import CheckpointError
from palate.report.charts import (
    Chart,
    Estimate,
    Line,
    Numbers,
    interval_chart,
    interval_text,
    line_chart,
    number,
)
from palate.report.colours import SERIES, colour
from palate.report.names import metric_name
from palate.report.page import write_page
from palate.report.rendering import rendered
from palate.sweep import sweep_table

Row = Mapping[str, Any]
NEGATIVES = "align.negatives"


def write_sweep(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a sweep, by NDCG@10.

    Args:
        folder: of the sweep, finished or not.
        out: the page; None for `report.html` in the folder.

    Returns:
        Where it is.

    Raises:
        ConfigError: it is no sweep's folder, or the page cannot be written there.
        CheckpointError: none of its runs is finished.
    """
    if not (rows := sweep_table(folder)["settings"]):
        raise CheckpointError(
            f"{folder} has no finished run yet. Go on with the same palate sweep command."
        )
    path = out or folder / "report.html"
    write_page(sweep_page(rows, folder.resolve().name), path)
    return path


def sweep_page(rows: Sequence[Row], name: str = "") -> str:
    """A sweep as HTML: curves, and what each setting gains over imitation.

    Args:
        rows: at least one setting, all by the same metric, as `settings` of
            `palate.sweep.sweep_table`.
        name: what the sweep is called.
    """
    shown = metric_name(rows[0]["metric"])
    best = max(rows, key=lambda row: row["aligned"])
    seeds = max(len(row["seeds"]) for row in rows)
    charts = [chart for chart in (_curves(rows, shown), _gains(rows, shown)) if chart is not None]
    over = "users and seeds" if seeds > 1 else "users, of one seed: how far seeds differ is unknown"
    return rendered(
        "sweep.html",
        charts,
        title=f"Sweep {name}".strip(),
        name=name,
        sections=[("curves", "Curves"), ("runs", "All settings")],
        question=f"Which of {len(rows)} settings ranks best?",
        sentence=(
            f"{_label(best['values'], list(best['values']))}: {shown} {number(best['aligned'])}, "
            f"over imitation {interval_text(_gain(best), '+')}."
        ),
        remarks=[
            "The best of several is flattered by having been chosen on these test contexts. "
            "Repeat it with other seeds.",
            f"95 % intervals over {over}; not corrected for the number of settings.",
        ],
        charts=charts,
        settings=_numbers(rows),
    )


def _numbers(rows: Sequence[Row]) -> Numbers:
    header = ["setting", "seeds", "sft", "sft_continued", "aligned", "sd", "aligned − sft"]
    stages = ("sft", "sft_continued", "aligned", "aligned_sd")
    return Numbers(
        [*header, "95 % interval"],
        [
            [
                _label(row["values"], list(row["values"])),
                str(len(row["seeds"])),
                *(number(row[stage]) for stage in stages),
                *interval_text(_gain(row), "+").split(" ", 1),
            ]
            for row in rows
        ],
    )


def _curves(rows: Sequence[Row], shown: str) -> Chart | None:
    """The metric against the number of negatives, or the first key that holds numbers."""
    axis = _axis([row["values"] for row in rows])
    if axis is None:
        return None
    samplers = {tuple(v) for row in rows if isinstance(v := row["values"][axis], Mapping)}
    of_line: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _x(row, axis)):
        of_line.setdefault(_other(row["values"], axis, len(samplers) > 1), []).append(row)
    lines = []
    for place, (label, found) in enumerate(of_line.items()):
        y = [row["aligned"] for row in found]
        spread = [row["aligned_sd"] or 0.0 for row in found]
        lines.append(
            Line(
                label or "aligned",
                [_x(row, axis) for row in found],
                y,
                colour(SERIES[place % len(SERIES)]),
                [value - sd for value, sd in zip(y, spread, strict=True)],
                [value + sd for value, sd in zip(y, spread, strict=True)],
            )
        )
    every = sorted({_x(row, axis) for row in rows})
    imitation = [float(np.mean([r["sft"] for r in rows if _x(r, axis) == x])) for x in every]
    lines.append(Line("sft", every, imitation, colour("baseline"), is_thin=True))
    name = "negatives" if axis == NEGATIVES else axis
    return line_chart(
        "curves",
        f"{shown} against {name}",
        "Aligned policies, ± one standard deviation between seeds; the thin line is imitation. A "
        "curve that falls as negatives are added is the sign of collapse.",
        lines,
        name,
        shown,
    )


def _gains(rows: Sequence[Row], shown: str) -> Chart:
    """What every setting gains over imitation, the best first."""
    return interval_chart(
        "settings",
        f"Gain in {shown} over imitation",
        "aligned − sft of every setting with its 95 % interval.",
        [_gain(row) for row in sorted(rows, key=lambda row: -row["difference"])],
        f"difference in {shown}",
        "+",
    )


def _gain(row: Row) -> Estimate:
    """The difference to imitation; its interval allows for other seeds where there are several."""
    kind = "any_seed_" if row["any_seed_low"] is not None else ""
    low, high = row[f"{kind}low"], row[f"{kind}high"]
    name = "better" if low > 0 else "worse" if high < 0 else "baseline"
    label = _label(row["values"], list(row["values"]))
    return Estimate(label, row["difference"], low, high, colour(name))


def _axis(values: Sequence[Mapping[str, Any]]) -> str | None:
    """The key to draw against: the negatives, else the first with several numbers."""
    for key in sorted(values[0], key=lambda key: key != NEGATIVES):
        found = [_number(one[key]) for one in values]
        if None not in found and len(set(found)) > 1:
            return key
    return None


def _x(row: Row, axis: str) -> float:
    found = _number(row["values"][axis])
    assert found is not None  # _axis has looked
    return found


def _number(value: Any) -> float | None:
    """A number, or the number of negatives in a mixture of samplers."""
    counts: list[Any] = list(value.values()) if isinstance(value, dict) and value else [value]
    are_numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in counts)
    return float(sum(counts)) if are_numbers else None


def _other(values: Mapping[str, Any], axis: str, names_samplers: bool) -> str:
    """What tells the lines apart: the other keys, and which samplers drew where that varies."""
    words = _label(values, [key for key in values if key != axis])
    samplers = " + ".join(values[axis]) if names_samplers else ""
    return ", ".join(word for word in (words, samplers) if word)


def _label(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(_text(key, values[key]) for key in keys)


def _text(key: str, value: Any) -> str:
    """A value for people; a name speaks for itself, a number needs its key."""
    if isinstance(value, Mapping):
        return " + ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, str):
        return value
    return f"{key.rpartition('.')[2]} {json.dumps(value, ensure_ascii=False)}"
