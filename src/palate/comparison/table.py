"""A comparison for a terminal and for a document."""

from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from palate.comparison.rows import Comparison, Row


@dataclass(frozen=True)
class Section:
    """One table as text; the first column holds words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def rich_report(comparison: Comparison) -> RenderableType:
    """All tables and what must be known about them; fits 80 columns."""
    parts: list[RenderableType] = []
    for section in sections(comparison):
        table = Table(
            box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, padding=(0, 1)
        )
        for index, title in enumerate(section.header):
            first = index == 0
            table.add_column(
                title,
                justify="left" if first else "right",
                no_wrap=not first,
                overflow="fold" if first else "ellipsis",
            )
        for row in section.rows:
            table.add_row(*(Text(cell) for cell in row))
        parts += [Text(section.title, "bold"), table, Text()]
    return Group(*parts, *(Text(line) for line in (*remarks(comparison), *comparison.notes)))


def markdown_report(comparison: Comparison) -> str:
    """The same for a document."""
    text = ""
    for section in sections(comparison):
        rules = ("---", *["---:"] * (len(section.header) - 1))
        lines = [section.header, rules, *section.rows]
        cells = [[cell.replace("|", r"\|").replace("*", r"\*") for cell in line] for line in lines]
        text += f"### {section.title}\n\n"
        text += "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"
    return text + "".join(f"- {line}\n" for line in (*remarks(comparison), *comparison.notes))


def sections(comparison: Comparison) -> list[Section]:
    """The tables: means and differences per metric, seeds, slices, drift of the lists."""
    kinds = dict.fromkeys((mean.protocol, mean.metric) for mean in comparison.means)
    found = [_main(comparison, *kind) for kind in kinds]
    found += [_seeds(comparison, *kind) for kind in kinds]
    found += [
        _slices([row for row in comparison.slices if _key(row) == key])
        for key in dict.fromkeys(_key(row) for row in comparison.slices)
    ]
    pairs = dict.fromkeys((drift.a, drift.b) for drift in comparison.drift)
    found += [_drift(comparison, *pair) for pair in pairs]
    return [section for section in found if section.rows]


def remarks(comparison: Comparison) -> list[str]:
    """What the names stand for, what the numbers mean, and how many tests share their chance."""
    lines = [
        f"{side.name}: {', '.join(side.folders)} (seeds {', '.join(map(str, side.seeds))})"
        for side in comparison.sides
        if len(side.seeds) > 1
    ]
    lines.append(
        "95 % intervals and sign-flip p over users; Holm: p corrected for the "
        f"{_tests(len(comparison.rows))} over all contexts"
        + (
            f", in slices for their own {_tests(len(comparison.slices))}."
            if comparison.slices
            else "."
        )
    )
    return lines


def _main(comparison: Comparison, protocol: str, metric: str) -> Section:
    rows = {
        row.a: row for row in comparison.rows if (row.protocol, row.metric) == (protocol, metric)
    }
    means = [
        mean for mean in comparison.means if (mean.protocol, mean.metric) == (protocol, metric)
    ]
    lines = []
    for mean in means:
        row = rows.get(mean.side)
        tested = (
            (f"{row.difference:+.4f}", _interval(row.low, row.high), f"{row.p:.4f}", _holm(row))
            if row is not None
            else ("baseline", "", "", "")
        )
        lines.append((mean.side, f"{mean.value:.4f}", *tested))
    users = f"{means[0].n_users:,} users, {means[0].n_contexts:,} lists"
    header = ("", _heading(metric), "change", "95 % interval", "p", "Holm")
    return Section(f"{protocol}: {users}", header, lines)


def _heading(metric: str) -> str:
    """NDCG@10, GRADED NDCG@10."""
    kind, at, k = metric.partition("@")
    return " ".join(reversed(kind.split("_"))).upper() + at + k


def _seeds(comparison: Comparison, protocol: str, metric: str) -> Section:
    lines = [
        (
            row.a,
            str(row.seeds),
            f"{row.seed_sd:.4f}",
            _interval(row.seed_low, row.seed_high),
            _interval(row.any_seed_low, row.any_seed_high),
        )
        for row in comparison.rows
        if (row.protocol, row.metric) == (protocol, metric)
        and row.seed_sd is not None
        and row.any_seed_low is not None
        and row.any_seed_high is not None
    ]
    header = ("", "seeds", "sd", "least to greatest", "95 %, other seeds too")
    return Section(f"{protocol}, {_heading(metric)}: the change by seed", header, lines)


def _slices(rows: list[Row]) -> Section:
    first = rows[0]
    title = f"{first.protocol}, {_heading(first.metric)}: {first.a} − {first.b}"
    lines = [
        (
            f"{row.slice} {row.part}",
            f"{row.n_users:,}",
            f"{row.value_b:.4f}",
            f"{row.value_a:.4f}",
            f"{row.difference:+.4f}",
            _interval(row.low, row.high),
            _holm(row),
        )
        for row in rows
    ]
    header = ("slice", "users", "baseline", "value", "change", "95 % interval", "Holm")
    return Section(title, header, lines)


def _drift(comparison: Comparison, a: str, b: str) -> Section:
    lines = []
    for one in comparison.drift:
        if (one.a, one.b) == (a, b):
            digits = 4 if abs(one.value_b) < 10 else 1
            values = (f"{value:,.{digits}f}" for value in (one.value_b, one.value_a))
            lines.append((one.metric, *values, f"{one.difference:+,.{digits}f}"))
    return Section(f"catalogue, lists: {a} − {b}", ("", "baseline", "value", "change"), lines)


def _key(row: Row) -> tuple[str, str, str, str]:
    return row.protocol, row.metric, row.a, row.b


def _interval(low: float, high: float) -> str:
    return f"[{low:+.4f}, {high:+.4f}]"


def _holm(row: Row) -> str:
    return f"{row.p_holm:.4f}{'*' if row.p_holm < 0.05 else ' '}"


def _tests(n: int) -> str:
    return f"{n} test" if n == 1 else f"{n} tests"
