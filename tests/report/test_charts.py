"""Charts and the tables beside them hold the same numbers, in colours of the palette."""

import json
import re

import pytest

from palate.report.charts import (
    MOST_ROWS,
    Estimate,
    Line,
    interval_chart,
    line_chart,
    number,
    thinned,
)
from palate.report.colours import PALETTE, colour


def test_an_interval_is_drawn_and_written():
    estimates = [
        Estimate("sft", 0.05, 0.04, 0.07, colour("sft")),
        Estimate("bare", 0.01, None, None, colour("baseline")),
    ]
    chart = interval_chart("one", "One", "Reads.", estimates, "NDCG@10")
    assert chart.numbers.rows == [["sft", "0.0500", "[0.0400, 0.0700]"], ["bare", "0.0100", ""]]
    drawn = chart.figure["data"][0]
    assert drawn["x"] == [0.05]
    assert drawn["error_x"]["array"] == [pytest.approx(0.02)]
    assert drawn["error_x"]["arrayminus"] == [pytest.approx(0.01)]
    assert chart.figure["data"][1]["error_x"]["array"] == [0.0]


def test_differences_are_seen_against_zero():
    estimates = [Estimate("a − b", -0.5, -0.6, -0.4, colour("worse"))]
    chart = interval_chart("one", "One", "Reads.", estimates, "difference", "+")
    assert chart.numbers.rows == [["a − b", "-0.5000", "[-0.6000, -0.4000]"]]
    assert [line["x0"] for line in chart.figure["layout"]["shapes"]] == [0]


def test_lines_of_different_steps_share_a_table():
    lines = [
        Line("a", [1, 2, 3], [0.1, 0.2, 0.3], colour("aligned"), [0.0, 0.1, 0.2], [0.2, 0.3, 0.4]),
        Line("b", [2, 4], [1.0, 2.0], colour("sft")),
    ]
    chart = line_chart("two", "Two", "Reads.", lines, "step", "loss")
    assert chart.numbers.header == ["step", "a", "b"]
    assert chart.numbers.rows == [
        ["1", "0.1000", ""],
        ["2", "0.2000", "1.0000"],
        ["3", "0.3000", ""],
        ["4", "", "2.0000"],
    ]
    assert chart.figure["data"][0]["error_y"]["array"] == pytest.approx([0.1, 0.1, 0.1])
    dashes = [trace["line"]["dash"] for trace in chart.figure["data"]]
    assert len(set(dashes)) == 2


def test_a_long_line_is_drawn_in_means_and_its_table_keeps_both_ends():
    x = list(range(1, 1001))
    chart = line_chart("long", "Long", "Reads.", [Line("a", x, x, colour("sft"))], "step", "loss")
    drawn = chart.figure["data"][0]
    assert len(drawn["x"]) == 240
    assert drawn["x"] == pytest.approx(drawn["y"])
    assert (len(chart.numbers.rows), chart.numbers.rows[0][0], chart.numbers.rows[-1][0]) == (
        MOST_ROWS,
        "1",
        "1,000",
    )


def test_blocks_are_means_and_leave_nothing_out():
    assert thinned([0, 1, 2, 3, 4], [0, 10, 20, 30, 70], 2) == ([0.5, 3.0], [5.0, 40.0])
    assert thinned([1, 2], [3, 4], 2) == ([1, 2], [3, 4])


def test_a_figure_names_colours_of_the_palette_alone():
    lines = [Line(name, [1, 2], [1, 2], colour("sft")) for name in "abc"]
    figure = json.dumps(line_chart("c", "C", "Reads.", lines, "step", "loss").figure)
    named = re.findall(r"var\(--(\w+)\)", figure)
    assert set(named) <= set(PALETTE)
    assert {"ink", "muted", "line", "surface", "sft"} <= set(named)
    assert "#" not in figure


def test_large_numbers_have_fewer_decimals_and_none_is_empty():
    found = [number(v) for v in (0.12345, 70.4, 12414.44, None, float("nan"))]
    assert found == ["0.1235", "70.40", "12,414.4", "", ""]
    assert number(0.5, "+") == "+0.5000"


def test_a_long_label_goes_over_several_lines_and_is_whole_in_the_table():
    label = "positives: 4+ (sft_continued − sft)"
    chart = interval_chart(
        "one", "One", "Reads.", [Estimate(label, 0.1, 0.0, 0.2, colour("sft"))], "NDCG@10"
    )
    assert chart.figure["data"][0]["y"] == ["positives: 4+<br>(sft_continued − sft)"]
    assert chart.numbers.rows[0][0] == label
