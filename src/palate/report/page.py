"""The report of a run: one HTML file that works from disk."""

from pathlib import Path
from typing import Any

from palate.audit import Audit, beside_results
from palate.audit.table import noteworthy, summary
from palate.comparison import stage_slices
from palate.errors import ConfigError
from palate.files import write_text
from palate.report.answer import answer
from palate.report.before_after import BEYOND, all_metrics, beyond_rows, interval_charts, rank_chart
from palate.report.charts import Numbers, number
from palate.report.drawn_negatives import false_negatives
from palate.report.names import SAME_TEXT, list_length, one_answer
from palate.report.people import people
from palate.report.rendering import rendered
from palate.report.run_files import RunFiles, read_run
from palate.report.slices import slice_chart, slice_table
from palate.report.standing import chief_metric
from palate.report.table import caption, table_rows
from palate.report.training_charts import training_charts, warnings_of
from palate.report.words import facts, no_people, training_words

SECTIONS = {
    "results": "Before and after",
    "users": "One by one",
    "slices": "For whom",
    "training": "Training",
    "audit": "Audit",
    "people": "Users",
    "again": "The same again",
}


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of an evaluated run, made from its files alone.

    Args:
        folder: the run folder.
        out: the page; None for `report.html` in the folder.

    Returns:
        Where it is.

    Raises:
        CheckpointError: it is no run folder, is not evaluated, or a file of it cannot be read.
        ConfigError: the page cannot be written there.
    """
    path = out or folder / "report.html"
    write_page(run_page(read_run(folder)), path)
    return path


def write_page(page: str, out: Path) -> None:
    """Write a page, whole or not at all.

    Raises:
        ConfigError: it cannot be written there.
    """
    if out.suffix != ".html" or out.is_dir():
        raise ConfigError(f"--out {out}: expected the name of a page, such as report.html.")
    try:
        write_text(page, out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror}).") from error


def run_page(run: RunFiles) -> str:
    """The report of a run as HTML."""
    size, metrics = run.config.evaluation.candidates, run.metrics
    protocol, metric = chief_metric(metrics)
    leaks = "" if run.audit is None else beside_results(run.audit)
    by_rank = None if run.ranks is None else rank_chart(run.ranks, protocol)
    stages = Numbers(*table_rows(metrics, size))
    intervals = interval_charts(metrics, size)
    can_ask = run.is_aligned and run.has_data
    rows = ()
    if can_ask and run.ranks is not None:
        rows = stage_slices(run.folder, metrics=[metric], protocol=protocol)
    by_slice = slice_chart(rows, protocol, metric, list_length(metrics, size))
    training = training_charts(run.log, run.config.align.metric)
    false = false_negatives(run.folder, run.config) if can_ask else None
    left_out = {"users": by_rank is None, "slices": by_slice is None}
    sections = [(id, name) for id, name in SECTIONS.items() if not left_out.get(id)]
    charts = [*intervals, by_rank and by_rank[0], by_slice, *training]
    return rendered(
        "run.html",
        [chart for chart in charts if chart is not None],
        title=f"{run.name}: before and after alignment",
        name=run.name,
        folder=run.folder,
        sections=sections,
        answer=answer(metrics, size, leaks),
        leaks=leaks,
        facts=facts(run),
        stages=stages,
        first_difference=next((n for n, row in enumerate(stages.rows) if "−" in row[0]), None),
        caption=caption(metrics),
        interval_charts=intervals,
        metrics=all_metrics(metrics, size),
        same_metrics=SAME_TEXT if any(one_answer(metrics, p) for p in metrics["sft"]) else "",
        beyond=beyond_rows(metrics),
        beyond_meaning=BEYOND,
        rank_chart=by_rank and by_rank[0],
        rank_words=by_rank and by_rank[1],
        slice_chart=by_slice,
        slices=slice_table(rows, protocol, metric),
        training_charts=training,
        training_words=training_words(run, false),
        warnings=warnings_of(run.log),
        audit=run.audit and _audit(run.audit),
        people=None if run.examples is None else people(run.examples),
        no_people=no_people(metrics),
        seed=run.config.seed,
        config_text=run.config_text,
        versions=run.versions,
        hashes=Numbers(["file", "SHA-256"], _pairs(run.manifest.get("sha256", {}))),
        counts=Numbers(["", "count"], _pairs(run.manifest.get("counts", {}))),
    )


def _audit(audit: Audit) -> dict[str, Any]:
    header = ["probe", "about", "verdict", "score", "95 % interval", "redrawn"]
    rows = []
    for one in audit.findings:
        rows.append(
            [
                one.probe,
                one.about,
                one.verdict,
                number(one.score),
                f"[{number(one.low)}, {number(one.high)}]",
                number(one.null),
            ]
        )
        if one.copies_as_one is not None:
            low, high = one.copies_as_one
            as_one = f"[{number(low)}, {number(high)}]"
            rows.append([f"{one.probe}, copies as one", one.about, "", "", as_one, ""])
    return {
        "numbers": Numbers(header, rows),
        "words": f"{audit.lists}; {summary(audit)}.",
        "noteworthy": noteworthy(audit),
        "skipped": audit.skipped,
    }


def _pairs(found: dict[str, Any]) -> list[list[str]]:
    return [
        [name, f"{value:,}" if isinstance(value, int) else str(value)]
        for name, value in found.items()
    ]
