"""An audit for a terminal and for a document."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from palate.audit.findings import Audit, Finding

STYLES = {"ok": "green", "caution": "yellow", "leak": "bold red"}
HEADER = ("verdict", "probe", "score", "95 % interval", "redrawn")
ABOUT = ("lists", "split", "log", "catalogue")


def rich_report(audit: Audit) -> RenderableType:
    """The table of all probes and a sentence or two on each that is not well; fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for index, title in enumerate(HEADER):
        table.add_column(title, justify="left" if index < 2 else "right", no_wrap=True)
    for about in ABOUT:
        for finding in audit.findings:
            if finding.about == about:
                verdict, *cells = _row(finding)
                table.add_row(Text(verdict, STYLES[verdict]), *cells)
                if finding.copies_as_one is not None:
                    table.add_row("", *_copies(finding.copies_as_one))
        table.add_section()
    remarks = [Text()]
    for finding in noteworthy(audit):
        words = Text(f"{finding.verdict}, {finding.probe}: ", STYLES[finding.verdict])
        remarks.append(words.append(f"{finding.found} {finding.advice}", "default"))
    remarks.append(Text(summary(audit)))
    return Group(Text(f"{audit.subject}: {audit.lists}"), table, *remarks)


def markdown_report(audit: Audit) -> str:
    """The same for a document: a section with a table."""
    lines: list[tuple[str, ...]] = [HEADER, ("---", "---", "---:", "---:", "---:")]
    for about in ABOUT:
        for finding in audit.findings:
            if finding.about == about:
                lines.append(_row(finding))
                if finding.copies_as_one is not None:
                    lines.append(("", *_copies(finding.copies_as_one)))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    remarks = "".join(
        f"- **{finding.verdict}, {finding.probe}**: {finding.found} {finding.advice}\n"
        for finding in noteworthy(audit)
    )
    return f"## Audit\n\n{audit.lists}.\n\n{table}\n{remarks}\n{summary(audit)}\n"


def summary(audit: Audit) -> str:
    """The verdict on each part, in one line."""
    parts = [
        f"{about} {audit.verdict_on(about)}"
        for about in ABOUT
        if any(finding.about == about for finding in audit.findings)
    ]
    return f"verdict: {audit.verdict} ({', '.join(parts)})"


def beside_results(audit: Audit) -> str:
    """What must stand beside every result on leaking lists; empty where nothing leaks."""
    found = [
        f"{finding.probe} {finding.score:.4f} (redrawn {finding.null:.4f})"
        if finding.null is not None
        else f"{finding.probe} {finding.score:.4f}"
        for finding in audit.leaks()
    ]
    return f"leaks, scores without a model: {', '.join(found)}" if found else ""


def noteworthy(audit: Audit) -> list[Finding]:
    """The findings that are not well, leaks first."""
    found = [finding for finding in audit.findings if finding.verdict == "caution"]
    return [*audit.leaks(), *found]


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        finding.verdict,
        finding.probe,
        f"{finding.score:.4f}",
        f"[{finding.low:.4f}, {finding.high:.4f}]",
        "" if finding.null is None else f"{finding.null:.4f}",
    )


def _copies(interval: tuple[float, float]) -> tuple[str, ...]:
    """The line below a finding where persons who are copies of one another count as one."""
    low, high = interval
    return ("  copies as one", "", f"[{low:.4f}, {high:.4f}]", "")
