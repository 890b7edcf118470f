"""The table of before and after, for a terminal and for a document."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from palate.evaluation.metrics import chief_cutoff
from palate.evaluation.stages import ORDER, PAIRS, TRUTH
from palate.report.names import list_length, shown_once
from palate.report.standing import sign_of


def table_rows(metrics: dict[str, Any], candidates: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of stages, then of the differences, as text.

    Args:
        metrics: what `metrics.json` holds.
        candidates: length of the candidate lists, for the headings.
    """
    held = {
        protocol: values
        for stage in (*ORDER, *TRUTH)
        for protocol, values in metrics.get(stage, {}).items()
    }
    ranked = [name for p in ("catalogue", "candidates") for name in held.get(p, {})]
    cutoffs = {int(name.split("@")[1]) for name in ranked if "@" in name}
    k = chief_cutoff(cutoffs)
    length = list_length(metrics, candidates)
    wanted = [
        (f"NDCG@{k}", "catalogue", f"ndcg@{k}"),
        (f"graded NDCG@{k}", "catalogue", f"ndcg_graded@{k}"),
        (f"HR@{k}", "catalogue", f"hr@{k}"),
        (f"HR@1|{length}", "candidates", "hr@1"),
        (f"NDCG@{k}|{length}", "candidates", f"ndcg@{k}"),
        (f"graded NDCG@{k}|{length}", "candidates", f"ndcg_graded@{k}"),
    ]
    found = [(t, p, m) for t, p, m in wanted if m in held.get(p, {})]
    once = {p: shown_once([m for _, of, m in found if of == p], metrics, p) for p in held}
    columns = [(t, p, m) for t, p, m in found if m in once[p]]
    columns = columns[: 4 if any("graded" in m for _, _, m in columns) else 3]
    if "generation" in held:
        written = [("ValidRatio", "valid_ratio"), ("HitRatio@1", "hit_ratio@1")]
        columns = [columns[0], *((title, "generation", name) for title, name in written)]
    header = ["stage", columns[0][0], "95 % interval", *(title for title, _, _ in columns[1:])]
    stages = [stage for stage in (*ORDER, *TRUTH) if stage in metrics]
    rows = [_row(stage, metrics[stage], columns, "") for stage in stages]
    for a, b in PAIRS:
        if f"{a}-{b}" in metrics["differences"]:
            rows.append(_row(f"{a}−{b}", metrics["differences"][f"{a}-{b}"], columns, "+"))
    return header, rows


def rich_table(metrics: dict[str, Any], candidates: int) -> Table:
    """The table for a terminal; fits 80 columns."""
    header, rows = table_rows(metrics, candidates)
    tight = len(header) > 5
    table = Table(
        caption=caption(metrics),
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=tight,
        show_edge=not tight,
    )
    for index, title in enumerate(header):
        title = title.replace("graded ", "graded\n")
        table.add_column(title, justify="left" if index == 0 else "right", no_wrap=True)
    first_difference = next((row[0] for row in rows if "−" in row[0]), None)
    for row in rows:
        if row[0] == first_difference:
            table.add_section()
        table.add_row(*row, style="bold" if row[0] == "aligned" else None)
    return table


def markdown_table(metrics: dict[str, Any], candidates: int) -> str:
    """The table for a document."""
    header, rows = table_rows(metrics, candidates)
    header = [title.replace("|", r"\|") for title in header]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{caption(metrics)}\n".replace("*", "\\*")


def caption(metrics: dict[str, Any]) -> str:
    """What stands below the table: how many contexts, what intervals and stars mean."""
    used, of = metrics["test_contexts"]["used"], metrics["test_contexts"]["of"]
    return (
        f"{used:,} of {of:,} test contexts; intervals by user; "
        "* p < 0.05 (sign-flip permutation by user) and 0 outside of the interval"
    )


def _row(
    name: str, values: dict[str, Any], columns: list[tuple[str, str, str]], sign: str
) -> list[str]:
    cells = [values.get(protocol, {}).get(metric) for _, protocol, metric in columns]
    first, *rest = [f"{cell['value']:{sign}.4f}" if cell else "" for cell in cells]
    if (chief := cells[0]) is None:
        return [name, first, "", *rest]
    star = "*" if "p" in chief and sign_of(chief) != "undecided" else ""
    interval = f"[{chief['low']:{sign}.4f}, {chief['high']:{sign}.4f}]"
    return [name, first + star, interval, *rest]
