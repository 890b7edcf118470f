"""The table shows what metrics.json holds, and fits a terminal."""

import io

import pytest
from rich.console import Console

from palate.evaluation.stages import ORDER, PAIRS
from palate.report.table import markdown_table, rich_table


def metrics(
    cutoffs=(1, 10), protocols=("catalogue", "candidates"), kinds=("ndcg", "hr", "mrr"), answers=7
):
    names = [f"{metric}@{k}" for metric in kinds for k in cutoffs]
    cell = {"value": 0.1234, "low": 0.1, "high": 0.2}
    difference = {"value": -0.05, "low": -0.1, "high": -0.01, "p": 0.01, "n_users": 9}
    stage = {protocol: dict.fromkeys(names, cell) for protocol in protocols}
    pair = {protocol: dict.fromkeys(names, difference) for protocol in protocols}
    return {
        **dict.fromkeys(ORDER, stage),
        "difference": pair,
        "differences": {f"{a}-{b}": pair for a, b in PAIRS},
        "test_contexts": {"used": 5, "of": 10, "answers": answers},
    }


@pytest.mark.parametrize(
    ("p", "low", "high", "starred"),
    [(0.04, -0.1, -0.01, True), (0.04, -0.1, 0.006, False), (0.06, -0.1, -0.01, False)],
)
def test_a_star_needs_both_the_test_and_the_interval(p, low, high, starred):
    """As the report does, so that table and page never disagree."""
    found = metrics()
    for of_pair in found["differences"].values():
        for of_protocol in of_pair.values():
            for name in of_protocol:
                of_protocol[name] = {"value": -0.05, "low": low, "high": high, "p": p, "n_users": 9}
    assert ("-0.0500\\*" in markdown_table(found, 20)) == starred


def test_it_fits_eighty_columns_and_says_how_many_contexts():
    text = io.StringIO()
    Console(file=text, width=80).print(rich_table(metrics(), 20))
    assert "…" not in text.getvalue()
    assert "aligned−sft_continued" in text.getvalue()
    assert "5 of 10 test contexts" in text.getvalue()
    assert "-0.0500*" in text.getvalue()


def test_markdown_has_a_row_for_each_stage_and_pair():
    lines = markdown_table(metrics(), 20).splitlines()
    assert lines[0] == r"| stage | NDCG@10 | 95 % interval | HR@10 | HR@1\|20 |"
    assert lines[2] == "| random | 0.1234 | [0.1000, 0.2000] | 0.1234 | 0.1234 |"
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(ORDER) + len(PAIRS)


@pytest.mark.parametrize(
    ("cutoffs", "protocols", "heading"),
    [
        ((5,), ("catalogue",), "NDCG@5"),
        ((1, 5), ("candidates",), "HR@1"),
        ((20,), ("candidates",), "NDCG@20"),
    ],
)
def test_whatever_was_asked_for_there_is_a_table(cutoffs, protocols, heading):
    assert heading in markdown_table(metrics(cutoffs, protocols), 20)


def test_graded_ndcg_has_a_column_of_its_own_within_eighty_columns():
    found, text = metrics(kinds=("ndcg", "ndcg_graded", "hr", "mrr")), io.StringIO()
    Console(file=text, width=80).print(rich_table(found, 20))
    assert "…" not in text.getvalue()
    assert "graded" in text.getvalue()
    assert markdown_table(found, 20).splitlines()[0] == (
        r"| stage | NDCG@10 | 95 % interval | graded NDCG@10 | HR@10 | HR@1\|20 |"
    )


def test_what_is_the_same_with_one_answer_is_one_column():
    header = markdown_table(metrics((1,), ("catalogue",), answers=5), 20).splitlines()[0]
    assert header == "| stage | NDCG@1 | 95 % interval |"
    several = markdown_table(metrics((1,), ("catalogue",)), 20).splitlines()[0]
    assert several == "| stage | NDCG@1 | 95 % interval | HR@1 |"
