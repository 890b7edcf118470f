"""The page of a comparison: its rows drawn, the terminal's tables below."""

import json

from palate.comparison import compare
from palate.report.comparing import comparison_page
from palate.report.page import write_page
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
