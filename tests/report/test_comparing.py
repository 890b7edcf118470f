"""The page of a comparison: its rows drawn, the terminal's tables below."""

import json

import pytest

from palate.comparison import Comparison, Row, compare
from palate.report.colours import colour
from palate.report.comparing import comparison_page
from palate.report.page import write_page
from palate.report.slices import row_estimate, slice_chart
from report.test_page import Page


def test_a_comparison_of_stages_is_a_page(finished, tmp_path):
    found = compare([finished], stages=("sft", "sft_continued", "aligned"))
    write_page(comparison_page(found), tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    figures = json.loads(page.scripts["charts"])
    drawn = [
        trace["x"][0]
        for name, figure in figures.items()
        if name.startswith("differences")
        for trace in figure["data"]
    ]
    assert drawn == [row.difference for row in found.rows]
    assert sum(name.startswith("slices") for name in figures) >= 1
    assert all(note in page.text for note in found.notes)
    assert all(f"{mean.value:.4f}" in page.text for mean in found.means)


def row(low, high, p_holm, p=0.001):
    value = (low + high) / 2
    return Row(
        "aligned", "sft", "catalogue", "ndcg@10", "history", "0–5", 0.1 + value, 0.1, value, low,
        high, p, p_holm, 40, 40, 1, None, value, value, None, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (row(0.01, 0.03, 0.04), "better"),
        (row(-0.03, -0.01, 0.04), "worse"),
        (row(0.01, 0.03, 0.2), "baseline"),  # its own p of 0.001 is one of many
        (row(-0.03, -0.01, 0.05), "baseline"),
        (row(-0.01, 0.03, 0.04), "baseline"),
    ],
)
def test_a_slice_is_coloured_by_its_corrected_test(found, name):
    assert row_estimate("short", found).colour == colour(name)
    chart = slice_chart([found], "catalogue", "ndcg@10", 20)
    assert chart is not None
    assert chart.figure["data"][0]["marker"]["color"] == colour(name)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([row(0.01, 0.03, 0.04), row(-0.01, 0.03, 0.9)], "1 of 2 differences has p < 0.05 after"),
        ([row(0.01, 0.03, 0.04)] * 2, "2 of 2 differences have p < 0.05 after"),
        ([row(0.01, 0.03, 0.04)], "The one difference has p < 0.05 after"),
        ([row(-0.01, 0.03, 0.9)] * 2, "None of 2 differences could be shown."),
        ([row(-0.01, 0.03, 0.9)], "The difference could not be shown."),
    ],
)
def test_a_comparison_says_the_level_and_not_that_anything_is_certain(found, said):
    page = Page(comparison_page(Comparison((), (), tuple(found), (), (), ())))
    assert said in page.text
    assert "certain" not in page.text
