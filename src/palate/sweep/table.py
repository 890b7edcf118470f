"""What a sweep has found: rows for curves, and a table of settings and runs."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from palate.comparison import Comparison, Mean, compare
from palate.files import write_json, write_text
from palate.sweep.grid import short_names
from palate.sweep.plan import read_plan
from palate.sweep.seconds import seconds_of

STAGES = ("sft", "sft_continued", "aligned")
NUMBERS = (
    *STAGES,
    "aligned_sd",
    "difference",
    "difference_sd",
    "low",
    "high",
    "any_seed_low",
    "any_seed_high",
    "n_users",
)


def sweep_rows(folder: Path | str) -> list[dict[str, Any]]:
    """The finished runs of a sweep, for curves.

    Args:
        folder: of the sweep, finished or not.

    Returns:
        A dictionary per run, in the order of the grid: `run`, its folder below that of the sweep;
        `setting`, the name that runs with other seeds share; `values`, key → value; `seed`; and
        `metrics`, what its `metrics.json` holds: [stage][protocol][metric] → value, low, high.

    Raises:
        ConfigError: the folder is not that of a sweep.
    """
    folder = Path(folder)
    rows = []
    for run in read_plan(folder)["runs"]:
        if "evaluate" in seconds_of(folder / run["run"]):
            metrics = json.loads((folder / run["run"] / "metrics.json").read_text("utf-8"))
            named = {name: run[name] for name in ("run", "setting", "values", "seed")}
            rows.append({**named, "metrics": metrics})
    return rows


def sweep_table(folder: Path | str, metrics: Sequence[str] = ("ndcg@10",)) -> dict[str, Any]:
    """Settings over their seeds, and their runs one by one.

    A setting's users are pooled as `palate.comparison.compare` does: a user's values are averaged
    over the seeds, and users are resampled.

    Args:
        folder: of the sweep, finished or not.
        metrics: of a ranking, at any cutoff.

    Returns:
        `over` (the keys), `seeds`, `metrics`, `settings` and `runs`. A row of either has `values`,
        `seeds`, `protocol`, `metric`; the means of `sft`, `sft_continued` and `aligned`;
        `difference` (aligned − sft) with its 95 % interval `low`, `high` over users, these trained
        policies as they are, and `any_seed_low`, `any_seed_high`, which allow for another training
        (None for one seed); `aligned_sd` and `difference_sd`, between seeds; `n_users`. A run's
        row also has `run`.

    Raises:
        PalateError: the folder is not that of a sweep, or a metric is unknown.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    runs = sweep_rows(folder)
    table: dict[str, Any] = {name: plan[name] for name in ("over", "seeds")}
    table |= {"metrics": list(metrics), "settings": [], "runs": []}
    for name in dict.fromkeys(run["setting"] for run in runs):
        of_setting = [run for run in runs if run["setting"] == name]
        table["settings"] += _rows(folder, of_setting, metrics)
    for run in runs:
        table["runs"] += [{"run": run["run"], **row} for row in _rows(folder, [run], metrics)]
    return table


def write_tables(folder: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """Write `table.json`, `table.csv` and `table.md`; returns what the first holds."""
    table = sweep_table(folder, metrics)
    write_json(table, folder / "table.json")
    write_text(csv_table(table), folder / "table.csv")
    write_text(markdown_tables(table), folder / "table.md")
    return table


def csv_table(table: dict[str, Any]) -> str:
    """All rows; those of settings have no run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *table["over"], "seeds", "protocol", "metric", *NUMBERS])
    for row in (*table["settings"], *table["runs"]):
        values = [_text(row["values"][key]) for key in table["over"]]
        seeds = " ".join(map(str, row["seeds"]))
        numbers = [row[name] for name in NUMBERS]
        writer.writerow(
            [row.get("run", ""), *values, seeds, row["protocol"], row["metric"], *numbers]
        )
    return text.getvalue()


def markdown_tables(table: dict[str, Any]) -> str:
    """For each metric the settings, then the runs."""
    parts = []
    for metric in table["metrics"]:
        settings = [row for row in table["settings"] if row["metric"] == metric]
        runs = [row for row in table["runs"] if row["metric"] == metric]
        if settings:
            parts.append(f"## {metric.upper()}, {settings[0]['protocol']}\n")
            parts += [_markdown(settings, table["over"]), _markdown(runs, table["over"], True)]
    return "\n".join([*parts, f"{_caption(table)}\n"])


def rich_tables(table: dict[str, Any]) -> list[Table]:
    """The settings by each metric, for a terminal of 80 columns."""
    found = []
    for metric in table["metrics"]:
        rows = [row for row in table["settings"] if row["metric"] == metric]
        if not rows:
            continue
        one = Table(
            title=f"{metric.upper()}, {rows[0]['protocol']}",
            caption=_caption(table),
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1),
        )
        for name in short_names(table["over"]).values():
            one.add_column(name, overflow="fold")
        for name in ("seeds", "aligned", "sd", "− sft", "95 % interval"):
            one.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            values = [_text(row["values"][key]) for key in table["over"]]
            one.add_row(
                *values,
                str(len(row["seeds"])),
                f"{row['aligned']:.4f}",
                _sd(row["aligned_sd"]),
                f"{row['difference']:+.4f}",
                _interval(row),
            )
        found.append(one)
    return found


def _rows(
    folder: Path, runs: Sequence[dict[str, Any]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """A row per metric of runs that differ by the seed alone."""
    folders = [folder / run["run"] for run in runs]
    found = compare(folders, metrics, stages=STAGES, by_slice=False)
    rows = []
    for row in found.rows:
        if row.a == "aligned":
            means = {stage: _mean(found, stage, row.protocol, row.metric) for stage in STAGES}
            rows.append(
                {
                    "setting": runs[0]["setting"],
                    "values": runs[0]["values"],
                    "seeds": [run["seed"] for run in runs],
                    "protocol": row.protocol,
                    "metric": row.metric,
                    **{stage: mean.value for stage, mean in means.items()},
                    "aligned_sd": means["aligned"].seed_sd,
                    "difference": row.difference,
                    "difference_sd": row.seed_sd,
                    "low": row.low,
                    "high": row.high,
                    "any_seed_low": row.any_seed_low,
                    "any_seed_high": row.any_seed_high,
                    "n_users": row.n_users,
                }
            )
    return rows


def _mean(found: Comparison, side: str, protocol: str, metric: str) -> Mean:
    return next(
        mean
        for mean in found.means
        if (mean.side, mean.protocol, mean.metric) == (side, protocol, metric)
    )


def _markdown(rows: Sequence[dict[str, Any]], over: Sequence[str], one_by_one: bool = False) -> str:
    keys = list(short_names(over).values())
    header = [*keys, "seed" if one_by_one else "seeds", *STAGES]
    header += [] if one_by_one else ["sd"]
    header += ["aligned − sft", "95 % interval"]
    lines = [header, [*["---"] * len(keys), *["---:"] * (len(header) - len(keys))]]
    for row in rows:
        cells = [_text(row["values"][key]).replace("|", r"\|") for key in over]
        cells.append(str(row["seeds"][0] if one_by_one else len(row["seeds"])))
        cells += [f"{row[stage]:.4f}" for stage in STAGES]
        cells += [] if one_by_one else [_sd(row["aligned_sd"])]
        lines.append([*cells, f"{row['difference']:+.4f}", _interval(row)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _caption(table: dict[str, Any]) -> str:
    several = any(len(row["seeds"]) > 1 for row in table["settings"])
    over = "users and seeds" if several else "users"
    between = "sd: of aligned, between seeds; " if several else ""
    return f"{between}intervals over {over}, not corrected for the number of settings"


def _interval(row: dict[str, Any]) -> str:
    """Over users, and over seeds where there are several."""
    if row["any_seed_low"] is None:
        return f"[{row['low']:+.4f}, {row['high']:+.4f}]"
    return f"[{row['any_seed_low']:+.4f}, {row['any_seed_high']:+.4f}]"


def _sd(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
