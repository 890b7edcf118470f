"""The page of a comparison of runs."""

from palate.comparison import Comparison, Row
from palate.comparison.table import remarks, sections
from palate.report.charts import Chart, interval_chart, number
from palate.report.names import metric_name
from palate.report.rendering import rendered
from palate.report.slices import row_estimate
from palate.report.standing import LEVEL, p_text


def comparison_page(comparison: Comparison) -> str:
    """A comparison as HTML: its differences drawn, the tables of the terminal below."""
    paired = "Paired on the same contexts, 95 % intervals. Coloured where the corrected p < 0.05."
    charts = [
        *_charts(comparison.rows, "differences", paired),
        *_charts(comparison.slices, "slices", f"By slice: to see where, not whether. {paired}"),
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
    """How many differences are beyond chance, and the largest of them."""
    shown = [row for row in rows if row.p_holm < LEVEL]
    every = "The one difference" if len(rows) == 1 else f"{len(shown)} of {len(rows)} differences"
    if not shown:
        every = "The difference" if len(rows) == 1 else f"None of {len(rows)} differences"
        return f"{every} could {'not ' if len(rows) == 1 else ''}be shown."
    most = max(shown, key=lambda row: abs(row.difference))
    has = "has" if len(shown) == 1 else "have"
    return (
        f"{every} {has} p < 0.05 after correction. The largest: {most.a} − {most.b}, "
        f"{metric_name(most.metric)} {number(most.difference, '+')} "
        f"[{number(most.low, '+')}, {number(most.high, '+')}], {p_text(most.p_holm)} (Holm)."
    )
