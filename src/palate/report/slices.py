"""For whom alignment is better: differences by slice."""

from collections.abc import Sequence

from palate.comparison import Row
from palate.report.charts import Chart, Estimate, Numbers, interval_chart, number
from palate.report.colours import colour
from palate.report.names import metric_name
from palate.report.standing import p_value, sign_of


def slice_chart(rows: Sequence[Row], protocol: str, metric: str, length: int | str) -> Chart | None:
    """The differences of one metric by slice; None where there is no slice of it. `length` is that
    of the candidate lists."""
    chosen = [row for row in rows if row.slice and (row.protocol, row.metric) == (protocol, metric)]
    if not chosen:
        return None
    name = metric_name(metric, protocol, length)
    return interval_chart(
        "slices",
        f"Difference in {name} by slice",
        "aligned − sft, paired, with 95 % intervals. This is to see where, not whether: with so "
        "many slices one leaves out 0 by chance, so p is corrected (Holm). Coloured where it is "
        "then below 0.05.",
        [row_estimate(f"{row.slice}: {row.part}", row) for row in chosen],
        f"difference in {name}",
        "+",
    )


def slice_table(rows: Sequence[Row], protocol: str, metric: str) -> Numbers:
    """A slice, how many contexts, both means, their difference."""
    header = ["slice", "part", "contexts", "sft", "aligned", "difference", "95 % interval", "p"]
    found = [
        [
            row.slice,
            row.part,
            f"{row.n_contexts:,}",
            number(row.value_b),
            number(row.value_a),
            number(row.difference, "+"),
            f"[{number(row.low, '+')}, {number(row.high, '+')}]",
            p_value(row.p_holm),
        ]
        for row in rows
        if row.slice and (row.protocol, row.metric) == (protocol, metric)
    ]
    return Numbers(header, found)


def row_estimate(label: str, row: Row) -> Estimate:
    """A row's difference; coloured where p, corrected for its family, is below 0.05 and the
    interval leaves out 0."""
    corrected = {"p": row.p_holm, "low": row.low, "high": row.high}
    sign = sign_of(corrected)
    name = "baseline" if sign == "undecided" else sign
    return Estimate(label, row.difference, row.low, row.high, colour(name))
