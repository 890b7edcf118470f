"""The page of a comparison of runs."""

from palate.comparison import Comparison, Row
from palate.comparison.table import remarks, sections
from palate.report.answer import LEVEL, metric_name, p_text
from palate.report.charts import Chart, interval_chart, number
from palate.report.rendering import rendered
from palate.report.slices import row_estimate


def comparison_page(comparison: Comparison) -> str:
    """A comparison as HTML: its differences drawn, the tables of the terminal below."""
    charts = [
        *_charts(comparison.rows, "differences", "Paired on the same contexts, 95 % intervals."),
        *_charts(comparison.slices, "slices", "By slice: to see where, not whether."),
    ]
    return rendered(
        "comparison.html",
        charts,
        title=f"Comparison of {', '.join(side.name for side in comparison.sides)}",
        sections=[("differences", "Differences"), ("tables", "Tables")],
        sentence=_sentence(comparison.rows),
        remarks=[*comparison.notes, *remarks(comparison)],
        charts=charts,
        tables=sections(comparison),
    )


def _charts(rows: tuple[Row, ...], name: str, reads: str) -> list[Chart]:
    """A chart for each metric."""
    found = []
    for place, key in enumerate(dict.fromkeys((row.protocol, row.metric) for row in rows)):
        of_metric = [row for row in rows if (row.protocol, row.metric) == key]
        several = len({(row.a, row.b) for row in of_metric}) > 1
        shown = f"{metric_name(key[1])}, {key[0]}"
        found.append(
            interval_chart(
                f"{name}-{place}",
                f"{'Slices' if name == 'slices' else 'Differences'} in {shown}",
                reads,
                [row_estimate(_label(row, several), row) for row in of_metric],
                f"difference in {metric_name(key[1])}",
                "+",
            )
        )
    return found


def _label(row: Row, several: bool) -> str:
    pair = f"{row.a} − {row.b}"
    if not row.slice:
        return pair
    return f"{row.slice}: {row.part} ({pair})" if several else f"{row.slice}: {row.part}"


def _sentence(rows: tuple[Row, ...]) -> str:
    """How many differences are certain, and the largest of them."""
    certain = [row for row in rows if row.p_holm < LEVEL]
    if not certain:
        return f"None of {len(rows)} differences could be shown."
    most = max(certain, key=lambda row: abs(row.difference))
    return (
        f"{len(certain)} of {len(rows)} differences are certain. The largest: {most.a} − {most.b}, "
        f"{metric_name(most.metric)} {number(most.difference, '+')} "
        f"[{number(most.low, '+')}, {number(most.high, '+')}], {p_text(most.p_holm)} (Holm)."
    )
