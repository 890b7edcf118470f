"""Runs of the road against each other: what is paired, pooled, corrected and refused."""

import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from palate.cli import main
from palate.comparison import compare, markdown_report, rich_report, stage_slices
from palate.comparison.runs import EvaluatedRun
from palate.comparison.table import sections
from palate.config import parse_config
from palate.errors import CheckpointError, ConfigError, DataError
from palate.evaluation.significance import holm, paired_difference
from palate.pipeline import go_on, run

SMALL = {
    "trackers": [],
    "data": {"options": {"n_users": 80, "n_items": 40, "visits": 16, "seed": 5}, "k_core": 2},
    "policy": {"kind": "sequence", "sequence": {"hidden": 8, "inner": 8, "dropout": 0.1}},
    "sft": {"max_steps": 6, "batch_size": 8, "learning_rate": 3e-3},
    "align": {
        "max_steps": 8,
        "batch_size": 8,
        "negatives": {"uniform": 3},
        "learning_rate": 0.05,
        "evaluations": 0.5,
    },
    "evaluation": {"validation_contexts": 20, "bootstrap": 100},
}
FAST = {"draws": 100, "permutations": 199}


def quiet(_line):
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two settings × two seeds on one world."""
    folder = tmp_path_factory.mktemp("compare")
    for seed in (1, 2):
        one = folder / f"dpo-{seed}"
        run(parse_config({**SMALL, "seed": seed}), one, say=quiet)
        other = folder / f"lipo-{seed}"
        go_on(one, "align", ["align.objective=lipo", "align.beta=3.0"], other, quiet)
        go_on(other, "evaluate", say=quiet)
    return folder


@pytest.fixture
def copy(runs, tmp_path):
    """Makes a copy of a run that may be spoilt."""

    def copied(name):
        shutil.copytree(runs / name, tmp_path / name)
        return tmp_path / name

    return copied


def rewrite_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_two_runs_agree_with_the_paired_test_itself(runs):
    folders = [runs / "dpo-1", runs / "lipo-1"]
    found = compare(folders, ["ndcg@10", "HR@1"], **FAST)
    assert [side.name for side in found.sides] == ["dpo-1", "lipo-1"]
    assert found.sides[1].settings == {"align.objective": "lipo", "align.beta": 3.0}
    assert [(row.a, row.b, row.metric) for row in found.rows] == [
        ("lipo-1", "dpo-1", "ndcg@10"),
        ("lipo-1", "dpo-1", "hr@1"),
    ]
    a, b = (EvaluatedRun(f).table("aligned", "catalogue").values(["hr@1"]) for f in folders[::-1])
    expected = paired_difference(a[0]["hr@1"], b[0]["hr@1"], a[1], 0, **FAST)
    row = found.rows[1]
    assert (row.difference, row.low, row.high, row.p) == tuple(
        expected[key] for key in ("value", "low", "high", "p")
    )
    assert found.rows[0].difference != 0
    assert [row.p_holm for row in found.rows] == holm([row.p for row in found.rows]).tolist()
    written = json.loads((folders[0] / "metrics.json").read_text())["aligned"]["catalogue"]
    assert found.means[0].value == pytest.approx(written["ndcg@10"]["value"])
    assert row.value_b == pytest.approx(written["hr@1"]["value"])
    drift = {one.metric: one for one in found.drift}
    assert drift["coverage@10"].value_b == written["coverage@10"]["value"]
    assert {"gini@10", "popularity@10", "diversity@10"} <= drift.keys()


def test_a_run_against_its_copy_with_another_name_for_nothing(runs, copy):
    folder = copy("dpo-1")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("epochs: 10", "epochs: 11"))
    (row,) = compare([runs / "dpo-1", folder], by_slice=False, **FAST).rows
    assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)


def test_seeds_are_averaged_within_users_and_not_counted_as_users(runs):
    folders = [runs / name for name in ("dpo-1", "lipo-2", "dpo-2", "lipo-1")]
    found = compare(folders, **FAST)
    assert [(side.name, side.seeds) for side in found.sides] == [("dpo", (1, 2)), ("lipo", (1, 2))]
    (row,) = found.rows
    of_seeds = []
    for seed in (1, 2):
        (single,) = compare(
            [runs / f"dpo-{seed}", runs / f"lipo-{seed}"], by_slice=False, **FAST
        ).rows
        assert row.n_users == single.n_users
        assert row.n_contexts == single.n_contexts
        of_seeds.append(single.difference)
    assert row.difference == pytest.approx(np.mean(of_seeds))
    assert row.seeds == 2
    assert row.seed_sd == pytest.approx(np.std(of_seeds, ddof=1))
    assert (row.seed_low, row.seed_high) == pytest.approx((min(of_seeds), max(of_seeds)))
    assert row.any_seed_low < row.low < row.high < row.any_seed_high
    # The same from each user's average over the seeds, by hand.
    values = []
    for name in ("lipo", "dpo"):
        tables = [EvaluatedRun(runs / f"{name}-{s}").table("aligned", "catalogue") for s in (1, 2)]
        values.append(np.mean([t.values(["ndcg@10"])[0]["ndcg@10"] for t in tables], axis=0))
    users = tables[0].values(["ndcg@10"])[1]
    expected = paired_difference(*values, users, 0, **FAST)
    assert (row.low, row.high, row.p) == pytest.approx(
        (expected["low"], expected["high"], expected["p"])
    )


def test_sides_whose_seeds_do_not_match_are_averaged_over_their_own(runs):
    found = compare([runs / "dpo-1", runs / "dpo-2", runs / "lipo-1"], by_slice=False, **FAST)
    (row,) = found.rows
    means = {mean.side: mean.value for mean in found.means}
    assert row.difference == pytest.approx(means["lipo-1"] - means["dpo"])
    assert row.seeds == 0
    assert row.any_seed_low is None
    assert "seeds 1 against 1, 2" in found.notes[0]


@pytest.mark.slow
def test_seeds_with_worlds_of_their_own_are_paired_seed_by_seed(tmp_path):
    for seed in (1, 2):
        options = {"n_users": 60, "n_items": 40, "visits": 16}  # the world is named by the run
        config = {**SMALL, "seed": seed, "data": {**SMALL["data"], "options": options}}
        run(parse_config(config), tmp_path / f"a{seed}", say=quiet)
        go_on(tmp_path / f"a{seed}", "align", ["align.beta=3.0"], tmp_path / f"b{seed}", quiet)
        go_on(tmp_path / f"b{seed}", "evaluate", say=quiet)
    folders = [tmp_path / name for name in ("a1", "a2", "b1", "b2")]
    (row,) = compare(folders, by_slice=False, **FAST).rows
    singles = [
        compare([tmp_path / f"a{s}", tmp_path / f"b{s}"], by_slice=False, **FAST).rows[0]
        for s in (1, 2)
    ]
    n = [single.n_contexts for single in singles]
    assert row.n_contexts == sum(n)
    assert row.difference == pytest.approx(np.average([s.difference for s in singles], weights=n))
    # Users of two worlds with one id in the source count as one person, to be safe.
    assert max(s.n_users for s in singles) <= row.n_users <= 60
    with pytest.raises(DataError, match="the SHA-256 of interactions"):
        compare([tmp_path / "a1", tmp_path / "b2"])
    found = compare([*folders[:3]], by_slice=False, **FAST)
    assert "only 1 compared" in found.notes[0]


def test_slices_of_a_stage(runs):
    rows = stage_slices(runs / "dpo-1")
    assert {row.slice for row in rows} >= {"popularity", "history"}
    assert {(row.a, row.b) for row in rows} == {("aligned", "sft")}
    users = {row.part: row.n_users for row in rows if row.slice == "popularity"}
    whole = compare([runs / "dpo-1"], stages=("sft", "aligned"), by_slice=False).rows[0]
    parts = [row for row in rows if row.slice == "popularity"]
    assert sum(row.n_contexts for row in parts) == whole.n_contexts  # one answer each
    mean = np.average([row.difference for row in parts], weights=[row.n_contexts for row in parts])
    assert mean == pytest.approx(whole.difference)
    assert min(users.values()) >= 10
    assert [row.p_holm for row in rows] == holm([row.p for row in rows]).tolist()


def test_tables_fit_and_json_is_whole(runs):
    folders = [runs / name for name in ("dpo-1", "dpo-2", "lipo-1", "lipo-2")]
    found = compare(folders, protocols=["catalogue", "candidates"], stages=["sft", "aligned"])
    with (console := Console(width=80, color_system=None)).capture() as capture:
        console.print(rich_report(found))
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= 80
    for words in ("lipo aligned", "other seeds too", "popularity head", "coverage@10", "4 tests"):
        assert words in text
    assert "…" not in text
    document = markdown_report(found)
    assert document.count("### ") == len(sections(found))
    assert f"| {found.rows[0].value_a:.4f} |" in document
    content = json.loads(json.dumps(found.to_json()))
    assert content["rows"][0]["p_holm"] == found.rows[0].p_holm
    assert content["sides"][0]["settings"]["align.objective"] == "s_dpo"


def test_the_command_writes_what_it_says(runs, monkeypatch, tmp_path, capsys):
    out, page = tmp_path / "compare.json", tmp_path / "compare.html"
    arguments = ["palate", "compare", runs / "dpo-1", runs / "lipo-1", "--json", out, "--out", page]
    arguments += ["--metric", "hr@5", "--metric", "ndcg@5", "--baseline", runs / "lipo-1"]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    main()
    rows = json.loads(out.read_text())["rows"]
    assert [(row["a"], row["b"], row["metric"]) for row in rows] == [
        ("dpo-1", "lipo-1", "hr@5"),
        ("dpo-1", "lipo-1", "ndcg@5"),
    ]
    assert "Holm" in capsys.readouterr().out
    assert "dpo-1 − lipo-1" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["palate", "compare", str(runs / "dpo-1")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "nothing to compare it with" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused_in_a_sentence(runs, copy, tmp_path):
    one, other = runs / "dpo-1", runs / "lipo-1"
    cases = [
        (ConfigError, "is one run, with nothing", [one], {}),
        (ConfigError, "seeds of one run, with nothing", [one, runs / "dpo-2"], {}),
        (ConfigError, "is given twice", [one, other, other], {}),
        (ConfigError, "Did you mean 'ndcg@10'", [one, other], {"metrics": ["ndgc@10"]}),
        (ConfigError, "no such metric", [one, other], {"metrics": ["coverage@10"]}),
        (ConfigError, "Did you mean 'aligned'", [one, other], {"stages": ["alined"]}),
        (ConfigError, "Did you mean 'catalogue'", [one, other], {"protocols": ["catalog"]}),
        (CheckpointError, "is not a run folder", [one, tmp_path], {}),
    ]
    for kind, words, folders, options in cases:
        with pytest.raises(kind, match=words):
            compare(folders, **options)
    spoilt = copy("lipo-1")
    ranks = spoilt / "ranks.parquet"
    content = ranks.read_bytes()
    ranks.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"ranks.parquet is not a readable table of ranks"):
        compare([one, spoilt])
    table = pq.read_table(pa.BufferReader(content))
    pq.write_table(table.slice(0, table.num_rows - 3), ranks)
    with pytest.raises(CheckpointError, match=r"holds \d+ contexts of \w+, \w+, where metrics"):
        compare([one, spoilt])
    moved = table.set_column(2, "context_id", pa.compute.add(table["context_id"], 1))
    pq.write_table(moved, ranks)
    with pytest.raises(DataError, match="evaluated on different contexts"):
        compare([one, spoilt])
    pq.write_table(table, ranks)
    rewrite_json(spoilt / "data.json", lambda d: d["sha256"].update({"candidates.parquet": "0"}))
    assert compare([one, spoilt], by_slice=False, **FAST).rows
    with pytest.raises(DataError, match="rank different candidate lists"):
        compare([one, spoilt], protocols=["candidates"])
    config = (spoilt / "config.yaml").read_text()
    (spoilt / "config.yaml").write_text(
        config.replace("exclude_history: true", "exclude_history: false")
    )
    with pytest.raises(DataError, match="rank by different rules"):
        compare([one, spoilt])
    (spoilt / "config.yaml").write_text((one / "config.yaml").read_text())
    with pytest.raises(ConfigError, match="the same configuration and seed"):
        compare([one, spoilt])
    (spoilt / "metrics.json").unlink()
    with pytest.raises(CheckpointError, match=r"is not evaluated: it has no metrics\.json"):
        compare([one, spoilt])
