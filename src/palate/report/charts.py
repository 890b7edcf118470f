"""Charts as plotly figures, each with the same numbers as a table.

A figure names colours of the palette (`var(--ink)`); the page's script fills them in, for its light
and its dark theme. Charts are neither dragged nor zoomed, so that a finger scrolls the page.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from palate.report.colours import colour

MOST_POINTS = 240
"""Points of a line; of a longer one the means of this many blocks are drawn."""
MOST_ROWS = 24
"""Rows of the table beside a line chart; they are spread over its points."""
LONGEST_LABEL = 24
"""Characters of a line beside an interval; on a phone half the width is left for the picture."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


class Numbers(NamedTuple):
    """A table as text; the first column names the rows."""

    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A picture and the numbers in it.

    Attributes:
        name: its id in the page.
        title: what is shown.
        reads: how to read it, in a sentence.
        figure: plotly's JSON.
        numbers: what is drawn.
    """

    name: str
    title: str
    reads: str
    figure: dict[str, Any]
    numbers: Numbers


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        label: whose it is.
        value, low, high: the number and the ends of the interval, or None without one.
        colour: of the palette.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    colour: str


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: its name in the legend.
        x, y: points, x rising.
        colour: of the palette.
        low, high: ends of bars around the points, or None without.
        is_thin: whether it stands behind the others.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    is_thin: bool = False


def interval_chart(
    name: str, title: str, reads: str, estimates: Sequence[Estimate], axis: str, sign: str = ""
) -> Chart:
    """Estimates below one another, each a mark on the line of its interval.

    Args:
        name, title, reads: as of `Chart`.
        estimates: from top to bottom.
        axis: what is measured.
        sign: "+" for differences, which are then seen against a line at 0.
    """
    labels = ["<br>".join(wrap(one.label, LONGEST_LABEL)) for one in estimates]
    figure = go.Figure()
    for one, label in zip(estimates, labels, strict=True):
        low = one.value if one.low is None else one.low
        high = one.value if one.high is None else one.high
        figure.add_scatter(
            x=[one.value],
            y=[label],
            mode="markers",
            marker={"color": one.colour, "size": 9},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - one.value],
                "arrayminus": [one.value - low],
                "color": one.colour,
                "thickness": 2,
                "width": 5,
            },
            hovertemplate=f"{one.label}<br>{interval_text(one, sign)}<extra></extra>",
        )
    lines = max(label.count("<br>") for label in labels) + 1
    _lay_out(figure, height=70 + (16 + 16 * lines) * len(estimates))
    figure.update_layout(showlegend=False, hovermode="closest")
    figure.update_xaxes(title_text=axis, tickformat=f"{sign}~g", nticks=5, tickangle=0)
    figure.update_yaxes(autorange="reversed", gridcolor="rgba(0,0,0,0)", tickfont_size=13)
    if sign:
        figure.add_vline(x=0, line={"color": colour("muted"), "width": 1, "dash": "dot"})
    rows = [[one.label, *_cells(one, sign)] for one in estimates]
    return Chart(name, title, reads, _json(figure), Numbers(["", axis, "95 % interval"], rows))


def line_chart(
    name: str,
    title: str,
    reads: str,
    lines: Sequence[Line],
    x_axis: str,
    y_axis: str,
    log_x: bool = False,
) -> Chart:
    """Lines over a common axis; they differ in colour and dash.

    Args:
        name, title, reads: as of `Chart`.
        lines: at least one.
        x_axis, y_axis: what is measured.
        log_x: whether x is shown in powers of ten.
    """
    figure = go.Figure()
    for place, line in enumerate(lines):
        x, y = thinned(line.x, line.y)
        few = len(x) <= MOST_ROWS
        bars = None
        if line.low is not None and line.high is not None and len(x) == len(line.y):
            bars = {
                "type": "data",
                "symmetric": False,
                "array": [high - value for value, high in zip(y, line.high, strict=True)],
                "arrayminus": [value - low for value, low in zip(y, line.low, strict=True)],
                "color": line.colour,
                "thickness": 1,
                "width": 3,
            }
        figure.add_scatter(
            x=x,
            y=y,
            name=line.label,
            mode="lines+markers" if few else "lines",
            line={
                "color": line.colour,
                "width": 1 if line.is_thin else 2,
                "dash": DASHES[place % len(DASHES)],
            },
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 6},
            error_y=bars,
            hovertemplate="%{y:.4~g}",
        )
    _lay_out(figure, height=300)
    figure.update_layout(showlegend=len(lines) > 1, hovermode="x unified")
    figure.update_xaxes(title_text=x_axis, nticks=7)
    if log_x:
        figure.update_xaxes(type="log", dtick=1)
    figure.update_yaxes(title_text=y_axis, tickformat="~g", nticks=6)
    header = [x_axis, *(line.label for line in lines)]
    return Chart(name, title, reads, _json(figure), Numbers(header, _rows(lines)))


def thinned(
    x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS
) -> tuple[list[float], list[float]]:
    """Points of a line, or means over `most` blocks of them where there are more."""
    if len(x) <= most:
        return list(x), list(y)
    bounds = np.linspace(0, len(x), most + 1).astype(int)[:-1]
    sizes = np.diff([*bounds, len(x)])
    means = [np.add.reduceat(np.asarray(of, float), bounds) / sizes for of in (x, y)]
    return means[0].tolist(), means[1].tolist()


def number(value: float | None, sign: str = "") -> str:
    """A number of a table: four decimals, fewer where it is large."""
    if value is None or not np.isfinite(value):
        return ""
    decimals = 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:{sign},.{decimals}f}"


def interval_text(one: Estimate, sign: str = "") -> str:
    """An estimate with its interval in words."""
    value, interval = _cells(one, sign)
    return f"{value} {interval}".rstrip()


def _cells(one: Estimate, sign: str) -> list[str]:
    if one.low is None or one.high is None:
        return [number(one.value, sign), ""]
    return [number(one.value, sign), f"[{number(one.low, sign)}, {number(one.high, sign)}]"]


def _rows(lines: Sequence[Line]) -> list[list[str]]:
    """The lines' points by x, spread where there are many."""
    values = [dict(zip(line.x, line.y, strict=True)) for line in lines]
    every = sorted({x for of_line in values for x in of_line})
    chosen = np.unique(np.linspace(0, len(every) - 1, MOST_ROWS).round().astype(int))
    return [
        [f"{every[i]:,g}", *(number(of_line.get(every[i])) for of_line in values)] for i in chosen
    ]


def _lay_out(figure: go.Figure, height: int) -> None:
    axis = {
        "gridcolor": colour("line"),
        "linecolor": colour("line"),
        "zeroline": False,
        "fixedrange": True,
        "automargin": True,
        "tickfont": {"color": colour("muted"), "size": 12},
        "title": {"font": {"color": colour("muted"), "size": 12}, "standoff": 8},
    }
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": colour("ink")},
        dragmode=False,
        hoverlabel={
            "bgcolor": colour("surface"),
            "bordercolor": colour("line"),
            "font": {"color": colour("ink"), "family": FONT},
        },
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        xaxis=axis,
        yaxis=axis,
    )


def _json(figure: go.Figure) -> dict[str, Any]:
    return json.loads(str(figure.to_json()))
