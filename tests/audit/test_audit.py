"""The audit of run folders, prepared data and files, and its words."""

import csv
import gzip
import io
import json
import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from conftest import shared
from palate.audit import audit, beside_results, markdown_report, read_assignments, rich_report
from palate.audit.findings import Audit, Finding, verdict_on_lift, verdict_on_share
from palate.cli import main
from palate.config import load_config
from palate.data.prepared import Prepared
from palate.errors import ConfigError, DataError
from palate.evaluation.candidates import draw_candidates, save_candidates
from palate.pipeline import run


def rows_of(n: int, leaks: bool, seed: int) -> list[dict]:
    """Windows over 40 titles; where they leak, the answer stands first."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        items = [f"Title {item:02d}" for item in random.permutation(40)[:11]]
        listed = items[:6] if leaks else random.permutation(items[:6]).tolist()
        rows.append({"historyList": items[6:], "itemList": listed, "trueSelection": items[0]})
    return rows


def write_json(rows, path):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def by_name(found: Audit) -> dict[str, Finding]:
    return {finding.probe: finding for finding in found.findings}


def test_the_same_rows_in_every_format_give_the_same_audit(tmp_path):
    rows = rows_of(40, True, 0)
    joined = [
        {
            name: "::".join(value) if isinstance(value, list) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    paths = [write_json(rows, tmp_path / "test.json"), tmp_path / "t.parquet", tmp_path / "t.csv"]
    pq.write_table(pa.Table.from_pylist(rows), paths[1])
    with paths[2].open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(joined)
    audits = [audit(path) for path in paths]
    assert audits[0].verdict == "leak"
    assert by_name(audits[0])["position"].score == 1.0
    assert audits[0].findings == audits[1].findings == audits[2].findings
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "my-test.parquet")
    write_json(rows_of(30, True, 1), folder / "my-val.jsonl")
    assert by_name(audit(folder))["position"].score == 1.0


def test_clean_rows_are_ok_and_repeats_are_told(tmp_path):
    rows = rows_of(60, False, 2)
    assert audit(write_json(rows, tmp_path / "a.json")).verdict == "ok"
    for row in rows[:20]:
        row["itemList"].append(next(x for x in row["itemList"] if x != row["trueSelection"]))
    repeated = by_name(audit(write_json(rows, tmp_path / "b.json")))["repeated titles"]
    assert (repeated.score, repeated.verdict) == (20 / 60, "caution")
    for row in rows[:20]:
        row["itemList"][-1] = row["trueSelection"]
    assert (
        by_name(audit(write_json(rows, tmp_path / "c.json")))["repeated titles"].verdict == "leak"
    )


def coin(n: int, seed: int) -> list[dict]:
    """Pairs of which a coin chose one; hardly anybody else has them, histories are of others."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        pair = [f"C{random.integers(1200)}{end}" for end in "ab"]
        history = [f"H{item}" for item in random.choice(450, 8, replace=False)]
        answer = pair[int(random.integers(2))]
        rows.append({"historyList": history, "itemList": pair, "trueSelection": answer})
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_what_a_coin_decided_leaks_nothing(seed, tmp_path):
    found = audit(write_json(coin(600, seed), tmp_path / "test.jsonl"))
    assert found.verdict == "ok", noted(found)


def noted(found: Audit) -> list[tuple]:
    return [(one.probe, one.verdict, one.score, one.low, one.null) for one in found.findings]


@pytest.mark.parametrize("size", [2, 5])
def test_what_people_agree_on_is_no_leak(size, tmp_path):
    # the best of some of ten kinds of sushi, all ranked by each person: 66 % of the pairs are won
    # by the kind that more people prefer
    with gzip.open(shared("data/sushi-a/rankings.tsv.gz"), "rt") as stream:
        ranked = [line.split()[1:] for line in list(stream)[1:1501]]
    random, rows = np.random.default_rng(0), []
    for best_first in ranked:
        order = random.permutation(10)
        names = [f"kind {best_first[place]}" for place in order]
        answer = f"kind {best_first[min(order[:size])]}"
        rows.append({"historyList": names[size : size + 3], "itemList": names[:size]})
        rows[-1]["trueSelection"] = answer
    found = audit(write_json(rows, tmp_path / "test.jsonl"))
    assert found.verdict != "leak", noted(found)


def test_the_persons_own_items_as_negatives_are_a_caution(tmp_path):
    rows = rows_of(100, False, 5)
    random = np.random.default_rng(0)
    for row in rows[:94]:
        others = [title for title in row["itemList"] if title != row["trueSelection"]]
        row["itemList"][row["itemList"].index(others[0])] = str(random.choice(row["historyList"]))
    found = by_name(audit(write_json(rows, tmp_path / "test.json")))
    own = found["history items as negatives"]
    assert (own.score, own.verdict) == (0.94, "caution")
    assert (
        by_name(audit(write_json(rows_of(100, False, 5), tmp_path / "a.json")))[own.probe].score
        == 0
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run that ended with its preparation, with the lists an evaluation draws."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    written = folder.parent / "config.yaml"
    simulated = {"source": "simulate", "options": {"n_users": 150, "n_items": 80, "visits": 20}}
    written.write_text(yaml.safe_dump({"data": {**simulated, "k_core": 2}}))
    run(load_config(written, []), folder, say=lambda line: None, until="prepare")
    data = Prepared(folder / "data", window=1)
    contexts = data.contexts("test")
    save_candidates(draw_candidates(contexts, data.n_items, 20, 0), folder / "candidates.parquet")
    return folder


def test_our_own_candidates_are_ok(run_folder):
    found = audit(run_folder)
    assert found.verdict_on("lists") == "ok"
    assert "candidates.parquet" in found.lists
    assert {"items from the future", "tied timestamps"} <= set(by_name(found))
    drawn = audit(run_folder / "data")
    assert drawn.verdict_on("lists") == "ok"
    assert "drawn" in drawn.lists


def test_a_run_with_sorted_lists_leaks(run_folder, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("data", "data.json", "config.yaml"):
        (folder / name).symlink_to(run_folder / name)
    table = pq.read_table(run_folder / "candidates.parquet")
    items = np.stack(table["item_ids"].to_pylist())
    answers = items[np.arange(len(items)), table["place"].to_numpy()]
    rest = [row[row != answer] for row, answer in zip(items, answers, strict=True)]
    first = [np.append(answer, row) for answer, row in zip(answers, rest, strict=True)]
    columns = {name: table[name] for name in ("row", "level")}
    leaking = pa.table({**columns, "place": [0] * len(items), "item_ids": first})
    pq.write_table(leaking, folder / "candidates.parquet")
    found = audit(folder)
    assert by_name(found)["position"].verdict == "leak"
    assert beside_results(found).startswith("leaks, scores without a model: position 1.0000")


def test_verdicts_by_hand():
    assert verdict_on_lift(0.5, 0.001, 0.01) == "leak"
    assert verdict_on_lift(0.5, 0.02, 0.01) == "ok"
    assert verdict_on_lift(0.5, 0.001, 0.11) == "ok"
    assert verdict_on_lift(0.04, 0.001, 0.001) == "caution"
    assert verdict_on_lift(0.02, 0.001, 0.001) == "ok"
    shares = [verdict_on_share(low, 0.1, 0.5) for low in (0.05, 0.1, 0.5)]
    assert shares == ["ok", "caution", "leak"]


def test_a_seed_gives_the_same_audit_again(tmp_path):
    path = write_json(rows_of(40, False, 3), tmp_path / "test.json")
    assert audit(path, seed=4) == audit(path, seed=4)
    assert by_name(audit(path, seed=4))["position"].null != by_name(audit(path))["position"].null


def test_words(tmp_path):
    found = audit(write_json(rows_of(40, True, 0), tmp_path / "test.json"))
    text = markdown_report(found)
    assert "| leak | position | 1.0000 | [1.0000, 1.0000] |" in text
    assert "finds the answer in 100.0 % of 40 lists, on redrawn lists in" in text
    assert text.endswith("verdict: leak (lists leak, log ok, catalogue ok)\n")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_report(found))
    assert max(map(len, console.export_text().splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "does not exist. Expected a run folder"),
        ("a.txt", "x", "holds nothing that can be audited"),
        ("a.csv", "a,b\n1,2\n", "A log is read with --source files"),
        ("a.csv", "historyList,itemList,trueSelection\na,b\n", "1 lines have more or fewer"),
        ("a.json", '{"historyList": "a"}', "'trueSelection' is missing"),
        ("a.parquet", "x", "cannot be read as parquet"),
    ],
)
def test_what_cannot_be_audited(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        audit(tmp_path / name)


def test_options():
    assert read_assignments(["windows=llara", "n=3"]) == {"windows": "llara", "n": 3}
    for wrong in ("windows", "=3", "a={"):
        with pytest.raises(ConfigError, match="--option"):
            read_assignments([wrong])


def test_what_an_error_says_to_type_is_understood(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("a-test.json", "b-test.json"):
        write_json(rows_of(40, False, 3), folder / name)
    (tmp_path / "items.tsv").write_text(
        "\n".join(["title", *(f"Title {item:02d}" for item in range(1, 40)), "title 00"])
    )
    with pytest.raises(DataError) as caught:
        audit(folder)
    (test,) = re.findall(r"--set (data\.options\.test=\S+json)", str(caught.value))
    items = f"data.options.items={tmp_path / 'items.tsv'}"
    with pytest.raises(DataError, match="Title 00") as caught:
        audit(folder, changes=[test, items])
    (aliases,) = re.findall(r"--set '(data\.aliases=.*?)'", str(caught.value))
    aliases = aliases.replace("TITLE", "Title 00").replace("NEAREST", "title 00")
    assert audit(folder, changes=[test, items, aliases]).verdict == "ok"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.splt=by_user", "data.splt: there is no such key. Did you mean 'split'"),
        ("align.beta=1", "an audit reads the keys of data alone"),
        ("data.path=x", "the path stands after `palate audit`"),
        ("data.k_core=0", "data.k_core: input should be greater than or equal to 1"),
        ("data.options.windows=1", "data.options.windows: source 'candidate_file' has no such"),
        ("data.source=filez", "source 'filez' is unknown"),
    ],
)
def test_changes_that_are_none_of_the_datas(change, message, tmp_path):
    path = write_json(rows_of(40, False, 3), tmp_path / "test.json")
    with pytest.raises(ConfigError, match=re.escape(message)):
        audit(path, changes=[change])


def test_a_log_is_split_as_it_is_said(tmp_path):
    lines = [f"u{n // 6},i{n * 7 % 50},{1_500_000_000 + n}" for n in range(600)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    assert "100 of 100 test" in audit(path, "files").lists
    by_user = audit(path, changes=["data.source=files", "data.split=by_user"])
    assert int(by_user.lists.split()[0]) < 30  # about a tenth of the users


def test_prepared_data_takes_no_changes(run_folder):
    with pytest.raises(ConfigError, match=r"--set data\.k_core=2: .* is prepared already"):
        audit(run_folder, changes=["data.k_core=2"])
    with pytest.raises(ConfigError, match=r"--option windows: .* is prepared already"):
        audit(run_folder / "data", options={"windows": "llara"})


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets its own

    def exit_code(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["palate", "audit", *map(str, arguments)])
        try:
            main()
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    leaking = write_json(rows_of(40, True, 0), tmp_path / "leaking.json")
    clean = write_json(rows_of(40, False, 3), tmp_path / "clean.json")
    assert exit_code(leaking, "--json", tmp_path / "out.json") == 0
    assert exit_code(leaking, "--strict") == 1
    assert exit_code(clean, "--strict") == 0
    assert exit_code(tmp_path / "none") == 2
    assert exit_code(clean, "--source", "filez") == 2
    assert exit_code(clean, "--set", "data.splt=given") == 2
    assert exit_code(clean, "--set", "data.split=given", "--strict") == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["verdict"] == "leak"
    assert {"probe", "score", "low", "high", "null", "verdict", "found", "advice"} <= set(
        written["findings"][0]
    )
    assert "verdict: leak" in capsys.readouterr().out


@pytest.mark.slow
def test_the_published_lists_of_last_fm_leak():
    found = audit(shared("data/lastfm"))
    findings = by_name(found)
    assert found.verdict == "leak"
    position, overlap = findings["position of the answer"], findings["list overlap"]
    assert (position.verdict, overlap.verdict) == ("leak", "leak")
    assert position.score == pytest.approx(0.5526, abs=0.0001)
    assert overlap.score == pytest.approx(0.58, abs=0.005)
    assert position.null is not None
    assert overlap.null is not None
    assert position.null < 0.15
    assert overlap.null < 0.15
    # counted by hand when the files were collected: 615 of 2,495 rows
    assert findings["liked items as negatives"].score == pytest.approx(615 / 2495)
    assert {findings[name].verdict for name in ("position", "popularity", "seen as answer")} == {
        "ok"
    }


@pytest.mark.slow
def test_the_ties_of_movielens_stand_in_item_id_order():
    found = audit(shared("data/ml-latest-small"))
    ties = by_name(found)["tied timestamps"]
    assert found.verdict_on("lists") == "ok"
    assert ties.verdict == "caution"
    assert "7,438 groups, 100.0 % of them in item-id order" in ties.found
    assert "hash of (seed, user, item)" in ties.found
