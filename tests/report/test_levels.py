"""Runs whose likes have several levels: graded NDCG stands beside NDCG wherever metrics stand."""

import json
import math

import pyarrow.parquet as pq
import pytest

from palate.comparison import compare
from palate.report.before_after import all_metrics
from palate.report.names import shown_once
from palate.report.page import write_report
from palate.report.table import markdown_table
from report.shops import shop

K = 10


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A run in which three stars are level 1, four level 2, five level 3, and contexts have
    several likes."""
    data = {"levels": [3.0, 4.0, 5.0], "disliked": 2.0, "positives": "window"}
    data["split"] = "by_user"
    align = {"metric": f"ndcg_graded@{K}"}
    return shop(tmp_path_factory.mktemp("graded"), data=data, align=align)


def by_hand(folder, stage):
    """Mean graded NDCG@K of a stage over its contexts, from ranks.parquet."""
    contexts = {}
    for row in pq.read_table(folder / "ranks.parquet").to_pylist():
        if (row["stage"], row["protocol"]) == (stage, "catalogue"):
            contexts.setdefault(row["context_id"], []).append((row["rank"], 2 ** row["level"] - 1))
    values = []
    for found in contexts.values():
        best = sorted((gain for _, gain in found), reverse=True)[:K]
        ideal = sum(gain / math.log2(place + 2) for place, gain in enumerate(best))
        values.append(sum(g / math.log2(r + 1) for r, g in found if r <= K) / ideal)
    return sum(values) / len(values)


def test_every_stage_has_it_and_ndcg_stays_binary(graded):
    metrics = json.loads((graded / "metrics.json").read_text("utf-8"))
    for stage in ("popularity", "markov", "sft", "sft_continued", "aligned"):
        found = metrics[stage]["catalogue"]
        assert found[f"ndcg_graded@{K}"]["value"] == pytest.approx(by_hand(graded, stage), abs=1e-9)
        assert abs(found[f"ndcg_graded@{K}"]["value"] - found[f"ndcg@{K}"]["value"]) > 1e-4
    difference = metrics["difference"]["catalogue"][f"ndcg_graded@{K}"]
    assert difference["value"] == pytest.approx(
        by_hand(graded, "aligned") - by_hand(graded, "sft"), abs=1e-9
    )


def test_a_checkpoint_can_be_chosen_by_it(graded):
    lines = map(json.loads, (graded / "train.jsonl").read_text("utf-8").splitlines())
    found = [line for line in lines if line["stage"] == "align" and f"eval_ndcg_graded@{K}" in line]
    assert found
    assert all(line[f"eval_ndcg_graded@{K}_error"] > 0 for line in found)


def test_table_page_and_comparison_show_it(graded, tmp_path):
    metrics = json.loads((graded / "metrics.json").read_text("utf-8"))
    header, _, *rows = markdown_table(metrics, 20).splitlines()
    assert header.split(" | ")[1:4] == [f"NDCG@{K}", "95 % interval", f"graded NDCG@{K}"]
    value = f"{by_hand(graded, 'aligned'):.4f}"
    assert next(row for row in rows if row.startswith("| aligned |")).split(" | ")[3] == value
    names = [row[0] for row in all_metrics(metrics, 20).rows]
    assert f"graded NDCG@{K}" in names
    page = write_report(graded, tmp_path / "page.html").read_text("utf-8")
    assert f"graded NDCG@{K}" in page
    assert "Recall@K is HR@K" in page  # of the candidate lists
    found = compare([graded], ["ndcg@10", "ndcg_graded@10"], stages=("sft", "aligned"))
    assert {row.metric for row in found.rows} == {"ndcg@10", "ndcg_graded@10"}
    (row,) = [row for row in found.rows if row.metric == "ndcg_graded@10"]
    assert row.value_a == pytest.approx(by_hand(graded, "aligned"), abs=1e-9)


def test_a_run_of_one_level_has_none_of_it_and_no_metric_twice(finished):
    metrics = json.loads((finished / "metrics.json").read_text("utf-8"))
    assert not any("graded" in name for name in metrics["aligned"]["catalogue"])
    assert metrics["test_contexts"]["answers"] == metrics["test_contexts"]["used"]
    for protocol in ("catalogue", "candidates"):
        names = shown_once(metrics["difference"][protocol], metrics, protocol)
        assert names == [
            name
            for k in (1, 5, 10, 20)
            for name in ([f"hr@{k}"] if k == 1 else [f"hr@{k}", f"ndcg@{k}", f"mrr@{k}"])
        ]
        # what is left out equals what it stands for, in every figure
        for name, found in metrics["difference"][protocol].items():
            kind, k = name.split("@")
            same = {"recall": "hr", "map": "mrr"}.get(kind, kind) if k != "1" else "hr"
            assert found == metrics["difference"][protocol][f"{same}@{k}"]
    shown = [row[0] for row in all_metrics(metrics, 20).rows]
    assert shown == list(dict.fromkeys(shown))
    assert not {"Recall@10", "MAP@10", "NDCG@1", "MRR@1|20"} & set(shown)


def test_several_answers_keep_their_metrics_apart(graded):
    metrics = json.loads((graded / "metrics.json").read_text("utf-8"))
    assert metrics["test_contexts"]["answers"] > metrics["test_contexts"]["used"]
    names = list(metrics["difference"]["catalogue"])
    assert shown_once(names, metrics, "catalogue") == names
    assert "recall@10" in names
    # a candidate list has one answer, whatever its context has
    assert "recall@10" not in shown_once(names, metrics, "candidates")
