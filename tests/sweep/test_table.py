"""The table fits a terminal and holds what it was given."""

import csv
import io

from rich.console import Console

from palate.sweep.table import csv_table, markdown_tables, rich_tables

KEYS = ["align.objective", "align.negatives"]


def row(objective: str, seeds: list[int], **more):
    several = len(seeds) > 1
    return {
        "setting": objective,
        "values": {"align.objective": objective, "align.negatives": {"uniform": 5, "observed": 5}},
        "seeds": seeds,
        "protocol": "catalogue",
        "metric": "ndcg@10",
        "sft": 0.05,
        "sft_continued": 0.055,
        "aligned": 0.0612,
        "aligned_sd": 0.0021 if several else None,
        "difference": 0.0112,
        "difference_sd": 0.002 if several else None,
        "low": 0.004,
        "high": 0.018,
        "any_seed_low": 0.001 if several else None,
        "any_seed_high": 0.0214 if several else None,
        "n_users": 60,
        **more,
    }


def table(seeds: list[int]):
    names = ("dpo", "mult_dpo")
    runs = [row(name, [seed], run=f"runs/{name}-{seed}") for seed in seeds for name in names]
    settings = [row(name, seeds) for name in names]
    return {
        "over": KEYS,
        "seeds": seeds,
        "metrics": ["ndcg@10"],
        "settings": settings,
        "runs": runs,
    }


def test_it_fits_eighty_columns():
    text = io.StringIO()
    for one in rich_tables(table([0, 1])):
        Console(file=text, width=80).print(one)
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "[+0.0010, +0.0214]" in shown
    assert "NDCG@10, catalogue" in shown
    assert "mult_dpo" in shown


def test_markdown_has_settings_over_seeds_then_runs():
    lines = markdown_tables(table([0, 1])).splitlines()
    assert lines[0] == "## NDCG@10, catalogue"
    assert lines[4].startswith('| dpo | {"uniform": 5, "observed": 5} | 2 | 0.0500 | 0.0550 |')
    assert lines[4].endswith("| 0.0612 | 0.0021 | +0.0112 | [+0.0010, +0.0214] |")
    assert len([line for line in lines if line.startswith("| dpo") and "+0.0040" in line]) == 2
    assert "users and seeds, not corrected" in lines[-1]
    assert "over users, not corrected" in markdown_tables(table([0])).splitlines()[-1]


def test_csv_has_a_column_for_each_key_and_number():
    rows = list(csv.DictReader(io.StringIO(csv_table(table([0, 1])))))
    assert [one["run"] for one in rows[:3]] == ["", "", "runs/dpo-0"]
    assert rows[0]["align.negatives"] == '{"uniform": 5, "observed": 5}'
    assert rows[0]["seeds"] == "0 1"
    assert (rows[0]["any_seed_low"], rows[2]["any_seed_low"]) == ("0.001", "")
    assert float(rows[2]["difference"]) == 0.0112


def test_without_a_finished_run_there_is_no_table():
    empty = {**table([]), "settings": [], "runs": []}
    assert rich_tables(empty) == []
    assert csv_table(empty).count("\n") == 1
