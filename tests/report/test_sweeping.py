"""Curves of a sweep, by hand."""

import json

import pytest

from palate.report.sweeping import sweep_page
from report.test_page import Page


def setting(values, aligned, gain, sd=None):
    any_seed = (None, None) if sd is None else (gain - 0.03, gain + 0.03)
    return {
        "values": values,
        "seeds": [0] if sd is None else [0, 1],
        "protocol": "catalogue",
        "metric": "ndcg@10",
        "sft": aligned - gain,
        "sft_continued": aligned - gain,
        "aligned": aligned,
        "aligned_sd": sd,
        "difference": gain,
        "low": gain - 0.01,
        "high": gain + 0.01,
        "any_seed_low": any_seed[0],
        "any_seed_high": any_seed[1],
    }


def figures(page):
    return json.loads(Page(page).scripts["charts"])


def test_the_metric_is_drawn_against_the_number_of_negatives():
    rows = [
        setting(
            {"align.objective": name, "align.negatives": {"uniform": n}}, value, value - 0.05, sd
        )
        for name, values in {"dmpo": (0.04, 0.06), "s_dpo": (0.09, 0.06)}.items()
        for n, value, sd in zip((15, 1), values, (0.01, 0.02), strict=True)
    ]
    page = sweep_page(rows, "<b>")
    drawn = {trace["name"]: trace for trace in figures(page)["curves"]["data"]}
    assert set(drawn) == {"dmpo", "s_dpo", "sft"}
    assert drawn["dmpo"]["x"] == [1, 15]
    assert drawn["dmpo"]["y"] == [0.06, 0.04]
    assert drawn["dmpo"]["error_y"]["array"] == pytest.approx([0.02, 0.01])
    assert drawn["sft"]["y"] == pytest.approx([0.05, 0.05])
    text = Page(page).text
    assert "Which of 4 settings ranks best?" in text
    assert ("s_dpo, 15 uniform: NDCG@10 0.0900, over imitation +0.0400 [+0.0100, +0.0700].") in text
    assert "over users and seeds" in text
    assert "Sweep <b>" in text


def test_without_numbers_each_setting_is_a_point_with_its_gain():
    rows = [
        setting({"align.objective": name}, 0.1, gain) for name, gain in (("a", -0.02), ("b", 0.02))
    ]
    page = sweep_page(rows)
    assert set(figures(page)) == {"settings"}
    points = figures(page)["settings"]["data"]
    assert [point["y"] for point in points] == [["b"], ["a"]]
    assert [point["marker"]["color"] for point in points] == ["var(--better)", "var(--worse)"]
    assert "of one seed" in Page(page).text


def test_one_key_of_numbers_is_an_axis():
    rows = [setting({"align.beta": beta}, 0.1 * beta, 0.01) for beta in (1.0, 0.5)]
    curve = figures(sweep_page(rows))["curves"]["data"][0]
    assert (curve["name"], curve["x"], curve["y"]) == ("aligned", [0.5, 1.0], [0.05, 0.1])


def test_samplers_are_named_where_they_vary():
    rows = [
        setting({"align.negatives": negatives}, 0.1, 0.01)
        for negatives in ({"uniform": 1}, {"uniform": 9}, {"hard": 1, "uniform": 2}, {"hard": 5})
    ]
    drawn = [trace["name"] for trace in figures(sweep_page(rows))["curves"]["data"]]
    assert drawn == ["uniform", "hard + uniform", "hard", "sft"]
