"""Lists to serve: the same for a person whoever else is asked, never of no numbers."""

import csv
import json
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from conftest import command
from palate.config import parse_config
from palate.data.contexts import Context
from palate.errors import CheckpointError, ConfigError, DataError, DataWarning
from palate.files import write_json
from palate.pipeline import run
from palate.policies import LanguagePolicy, ModulePolicy, SequencePolicy
from palate.recommend import (
    check_out,
    policy_of,
    popularity_of,
    read_ids,
    recommend,
    shown_events,
    spoken_against,
    stage_of,
)
from palate.recommend.people import moment_of, people_of

NONE = np.empty(0, np.int64)
N_ITEMS = 60


class Logits(nn.Module):
    """A module whose scores hang on all of a history."""

    def __init__(self, n_items):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.items = nn.Parameter(torch.randn(n_items + 1, 24, generator=generator))

    def forward(self, history, lengths):
        return self.items[history].cumsum(1).tanh().sum(1) @ self.items.T


@pytest.fixture(scope="module")
def items():
    ids = [str(100 + number) for number in range(N_ITEMS)]
    words = ["blue", "red", "storm", "night", "river", "love", "war", "king", "lost", "city"]
    titles = [f"{words[i % 10]} {words[i * 7 % 9]} {i // 4}" for i in range(N_ITEMS)]
    return pa.table({"source_id": ids, "title": titles})


def new_policy(kind, items, folder):
    if kind == "module":
        return ModulePolicy(Logits(items.num_rows), items, max_history=8)
    if kind == "language":
        prompts = folder / "prompts.txt"
        prompts.write_text("Seen:\n{history}\n---\nOf late:\n{history}\nNext:\n---\n{history}\n")
        return LanguagePolicy.create("tiny", items, str(prompts), max_history=6, seed=1)
    shape: dict[str, Any] = {"hidden": 16, "inner": 16, "heads": 2}
    if kind == "experts":
        shape |= {"experts": 4, "experts_per_item": 2}
    return SequencePolicy.create(items, 8, seed=1, **shape)


def write_log(path, people):
    """people: name → items, oldest first; rows of all people mixed as a shop writes them."""
    rows = sorted(
        (place, name, item) for name, had in people.items() for place, item in enumerate(had)
    )
    lines = [f"{name},{item},{1_600_000_000 + place}" for place, name, item in rows]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    return path


def lists_of(table):
    found = {}
    for row in table.to_pylist():
        found.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
    return found


@pytest.mark.parametrize("kind", ["language", "sequence", "experts", "module"])
def test_a_list_is_the_same_whoever_else_is_in_the_file(kind, items, tmp_path):
    """Bit by bit: alone, among a few, among many, and in another order."""
    draw = np.random.default_rng(4)
    n_people = 8 if kind == "language" else 45
    people = {
        f"p{number}": [f"{100 + i}" for i in draw.permutation(N_ITEMS)[: draw.integers(1, 14)]]
        for number in range(n_people)
    }
    policy = new_policy(kind, items, tmp_path)
    whole = lists_of(recommend(policy, write_log(tmp_path / "all.csv", people), {}, top=7))
    assert whole.keys() == people.keys()
    names = list(people)
    for some in (names[3:4], names[-5:], names[1:], names[::-2]):
        part = {name: people[name] for name in some}
        log = write_log(tmp_path / "part.csv", part)
        assert lists_of(recommend(policy, log, {}, top=7)) == {name: whole[name] for name in part}


def test_one_person_is_asked_what_the_policy_is_asked(items, tmp_path):
    """The truth is the policy's own ranking of the person's context."""
    policy: Any = new_policy("language", items, tmp_path)
    log = write_log(tmp_path / "log.csv", {"ann": ["101", "105"], "bob": ["130"]})
    found = lists_of(recommend(policy, log, {}, top=5))
    context = Context(np.array([1, 5]), NONE, NONE, context_id=moment_of("ann"))
    ranking = policy.rank([context], 5)
    assert [item for item, _ in found["ann"]] == [f"{100 + i}" for i in ranking.item_ids[0]]
    assert [score for _, score in found["ann"]] == pytest.approx(ranking.scores[0].tolist())
    templates = {policy.prompter.template_of(moment_of(f"u{n}")) for n in range(40)}
    assert len(templates) == 3


def test_a_person_has_one_template_as_number_and_as_text():
    assert moment_of(7) == moment_of("7") != moment_of("8")
    assert 0 <= moment_of("x") < 2**63


def test_allowed_blocked_and_seen_items(items, tmp_path):
    policy = new_policy("sequence", items, tmp_path)
    log = write_log(tmp_path / "log.csv", {"ann": ["101", "105"], "bob": ["130"]})
    with pytest.warns(DataWarning, match="2 of 2 people get fewer than 60 items"):
        whole = recommend(policy, log, {}, top=N_ITEMS)
    assert whole["user_id"].to_pylist().count("ann") == N_ITEMS - 2
    seen = recommend(policy, log, {}, top=N_ITEMS, keep_seen=True)
    assert seen["user_id"].to_pylist().count("ann") == N_ITEMS
    some = [101, "103", "110"]
    with pytest.warns(DataWarning, match="2 of 2 people get fewer than 5 items"):
        allowed = lists_of(recommend(policy, log, {}, top=5, allow=some))
    order = [pair for pair in lists_of(whole)["bob"] if pair[0] in ("101", "103", "110")]
    assert allowed["bob"] == order
    assert {item for item, _ in allowed["ann"]} == {"103", "110"}
    best = lists_of(whole)["bob"][0][0]
    blocked = lists_of(recommend(policy, log, {}, top=5, block=[best]))
    assert blocked["bob"] == lists_of(whole)["bob"][1:6]
    with (
        pytest.warns(DataWarning, match="--allow: 1 of 1 ids are of no item"),
        pytest.raises(DataError, match="leave none of 60 items to recommend"),
    ):
        recommend(policy, log, {}, allow=["x"])


def test_people_of_unknown_items_get_what_is_popular_and_are_counted(items, tmp_path):
    policy = new_policy("sequence", items, tmp_path)
    popularity = np.arange(N_ITEMS)
    people = {"ann": ["101"], "eve": ["999"], "bob": ["102"], "dan": ["998", "997"]}
    log = write_log(tmp_path / "log.csv", people)
    with pytest.warns(DataWarning) as said:
        table = recommend(policy, log, {}, top=3, popularity=popularity, block=["159"])
    sentences = [str(one.message) for one in said]
    assert any("2 of 4 people have no item that the policy knows" in one for one in sentences)
    assert any("3 of 5 rows name an item" in one for one in sentences)
    assert dict.fromkeys(table["user_id"].to_pylist()) == dict.fromkeys(people)
    by = dict(zip(table["user_id"].to_pylist(), table["by"].to_pylist(), strict=True))
    assert by == {"ann": "policy", "eve": "popularity", "bob": "policy", "dan": "popularity"}
    eve = lists_of(table)["eve"]
    assert [item for item, _ in eve] == ["158", "157", "156"]
    total = popularity.sum() + N_ITEMS
    assert [s for _, s in eve] == pytest.approx([np.log(n / total) for n in (59, 58, 57)])
    known = {name: had for name, had in people.items() if by[name] == "policy"}
    alone = recommend(policy, write_log(tmp_path / "known.csv", known), {}, top=3, block=["159"])
    assert lists_of(alone) == {name: lists_of(table)[name] for name in known}
    with pytest.warns(DataWarning) as said:
        assert set(recommend(policy, log, {}, top=3)["user_id"].to_pylist()) == {"ann", "bob"}
    assert "2 of 4 people" in str(said[-1].message)
    assert "get no list; give the run folder" in str(said[-1].message)


def test_a_person_who_was_only_shown_things_is_a_newcomer(items, tmp_path):
    policy = new_policy("sequence", items, tmp_path)
    (tmp_path / "log.csv").write_text("user_id,item_id,event\nann,101,click\neve,103,skip\n")
    with pytest.warns(DataWarning, match="1 of 2 people have no item"):
        table = recommend(policy, tmp_path / "log.csv", {}, 2, popularity=np.arange(N_ITEMS))
    assert table["by"].to_pylist() == ["policy"] * 2 + ["popularity"] * 2


@pytest.mark.filterwarnings("ignore:.*nats apart:palate.errors.DataWarning")
@pytest.mark.parametrize("kind", ["language", "sequence", "module"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_make_no_list(kind, value, items, tmp_path):
    policy = new_policy(kind, items, tmp_path)
    log = write_log(tmp_path / "log.csv", {"ann": ["101"]})
    with torch.no_grad():
        for weights in policy.model.parameters():
            weights.view(-1)[-1] = value
    with pytest.raises(CheckpointError, match="scores for user ann are not finite"):
        recommend(policy, log, {})


def test_items_come_from_files_and_from_the_command_line(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeff12\n\n 15 \r\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text('title,item_id\n"x, y",7\nz,8\n')
    pq.write_table(pa.table({"item_id": [3, 4]}), tmp_path / "c.parquet")
    paths = [str(tmp_path / name) for name in ("a.txt", "b.csv", "c.parquet")]
    assert read_ids([*paths, "q, r"], "--allow") == ["12", "15", "7", "8", "3", "4", "q", "r"]
    for given, sentence in [
        (str(tmp_path / "none.txt"), "none.txt"),
        (str(tmp_path), "is a folder"),
        (" , ", "expected item ids such as 12,15"),
        ("", "--block '': expected item ids such as 12,15"),
    ]:
        with pytest.raises(DataError, match=sentence):
            read_ids([given], "--block")
    (tmp_path / "empty.txt").write_text("\n")
    assert read_ids([str(tmp_path / "empty.txt")], "--block") == []


def test_lists_never_replace_a_folder_or_their_own_log(tmp_path):
    (tmp_path / "a.csv").mkdir()
    (tmp_path / "log.csv").write_text("")
    for name, sentence in [
        ("a.csv", "is a folder"),
        ("log.csv", "is the log itself"),
        ("x.txt", "expected a name that ends in .csv or .parquet"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            check_out(tmp_path / name, tmp_path / "log.csv")
    check_out(tmp_path / "b.CSV", tmp_path / "log.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("served") / "run"
    small = {
        "trackers": [],
        "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
        "policy": {"kind": "sequence", "sequence": {"hidden": 16, "inner": 16}},
        "sft": {"max_steps": 2, "batch_size": 8},
        "align": {"max_steps": 2, "batch_size": 8, "negatives": {"uniform": 3}},
        "evaluation": {"validation_contexts": 20, "bootstrap": 100, "protocols": ["catalogue"]},
    }
    run(parse_config(small), place, say=lambda line: None)
    return place


GAIN = (0.1, 0.3, 0.001)


def judged(folder, **pairs):
    """The run's figures, with differences of the chief metric set to (low, high, p), all others of
    them to a gain."""
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    told = {pair.replace("__", "-"): found for pair, found in pairs.items()}
    for pair, (low, high, p) in (dict.fromkeys(metrics["differences"], GAIN) | told).items():
        one = metrics["differences"][pair]["catalogue"]["ndcg@10"]
        one |= {"value": (low + high) / 2, "low": low, "high": high, "p": p}
    path.write_text(json.dumps(metrics))


def test_what_the_evaluation_says_against_a_stage_is_said(folder):
    better, worse, open_ = GAIN, (-0.3, -0.1, 0.001), (-0.1, 0.2, 0.4)
    judged(folder, aligned__sft=better, aligned__sft_continued=better, sft__popularity=better)
    assert spoken_against(folder, "aligned") is None
    said = spoken_against(folder, "sft")
    assert said is not None
    assert "speaks against sft: aligned ranks better (+0.2000 [+0.1000, +0.3000]" in said
    judged(folder, aligned__sft=worse, aligned__sft_continued=open_, sft__popularity=open_)
    said = spoken_against(folder, "aligned")
    assert said is not None
    assert "by NDCG@10, its evaluation speaks against aligned: ranks worse than sft" in said
    assert "not shown to rank better than sft_continued" in said
    assert "not shown to rank better than popularity" in str(spoken_against(folder, "sft"))
    judged(folder, aligned__sft=(0.1, 0.3, 0.06))
    said = spoken_against(folder, "aligned")
    assert said is not None
    assert "interval and test disagree against sft (+0.2000 [+0.1000, +0.3000], p" in said
    assert spoken_against(folder / "sft", None) is None


def test_a_log_of_nothing_but_shown_items_makes_popular_lists(items, tmp_path):
    policy = new_policy("module", items, tmp_path)
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,event\nann,103,skip\nann,104,skip\n")
    with pytest.warns(DataWarning, match="1 of 1 people have no item that the policy knows"):
        lists = recommend(policy, log, {}, 3, popularity=np.arange(N_ITEMS))
    assert lists["by"].to_pylist() == ["popularity"] * 3
    assert lists["item_id"].to_pylist() == ["159", "158", "157"]


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"no-run is no folder\. Expected a run folder"):
        policy_of(tmp_path / "no-run")


def test_a_run_that_is_only_prepared_says_what_comes_first(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.parquet").touch()
    with pytest.raises(ConfigError, match=r"no trained policy yet. First: palate sft "):
        stage_of(tmp_path)


def test_a_stage_is_chosen_and_its_run_knows_what_is_popular(folder):
    assert stage_of(folder) == "aligned"
    assert stage_of(folder, "sft_continued") == "sft_continued"
    assert stage_of(folder / "sft") is None
    with pytest.raises(ConfigError, match=r"--stage sft: .*aligned holds no stages of a run"):
        stage_of(folder / "aligned", "sft")
    policy = policy_of(folder, "sft")
    saved = torch.cat([p.flatten() for p in policy_of(folder / "sft").model.parameters()])
    assert torch.equal(torch.cat([p.flatten() for p in policy.model.parameters()]), saved)
    log = pq.read_table(folder / "data" / "interactions.parquet").to_pylist()
    counts = np.bincount([row["item_id"] for row in log if row["split"] == "train"], minlength=40)
    for place in (folder, folder / "aligned"):
        assert popularity_of(place, policy).tolist() == counts[: policy.items.num_rows].tolist()


def test_the_command_serves_a_stage_and_says_what_speaks_against_it(folder, tmp_path):
    judged(folder, aligned__sft=(-0.3, -0.1, 0.001))
    known = pq.read_table(folder / "data" / "items.parquet")["source_id"].to_pylist()
    log = write_log(tmp_path / "log.csv", {"ann": [known[0]], "eve": ["nothing"]})
    (tmp_path / "sold.txt").write_text(f"{known[5]}\n{known[6]}\n")
    out = tmp_path / "lists.csv"
    done = command(
        "recommend", folder, "--log", log, "--out", out, "--block", tmp_path / "sold.txt"
    )
    assert done.returncode == 0, done.stderr
    assert "speaks against aligned: ranks worse than sft" in done.stderr
    assert "2 lists by aligned in" in done.stdout
    rows = list(csv.DictReader(out.open()))
    assert {row["user_id"]: row["by"] for row in rows} == {"ann": "policy", "eve": "popularity"}
    assert not {row["item_id"] for row in rows} & {str(known[5]), str(known[6])}
    before = out.read_bytes()
    wrong = command("recommend", folder, "--log", log, "--out", out, "--stage", "sft",
                    "--allow", "nothing-known")  # fmt: skip
    assert wrong.returncode == 2
    assert "leave none of" in wrong.stderr
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "log.csv", "sold.txt"]


@pytest.mark.parametrize(
    "times",
    [
        [1_700_000_000_000 + 120 * place for place in range(5)],
        [f"2023-11-14T22:13:20.{place}00Z" for place in range(5)],
        [1_700_000_000 + place / 8 for place in range(5)],
    ],
)
def test_order_within_a_second_is_kept(times, tmp_path):
    log, items = tmp_path / "log.csv", [103, 101, 100, 104, 102]
    rows = [f"1,{item},{time}\n" for item, time in zip(items, times, strict=True)]
    log.write_text("user_id,item_id,timestamp\n" + "".join(reversed(rows)))
    (person,) = people_of(log, {}, [str(item) for item in range(100, 105)])
    assert (person.items + 100).tolist() == items
    assert set(person.times.tolist()) == {1_700_000_000}


def test_what_was_only_shown_is_in_nobodys_history(tmp_path):
    """Which events those are, the run's data.events has said."""
    write_json(
        {"preparation": {"events": {"view": "shown", "skip": 1, "buy": 2}}}, tmp_path / "data.json"
    )
    assert shown_events(tmp_path) == ["view"]
    assert shown_events(tmp_path / "sft") == ["view"]
    assert shown_events(tmp_path / "a" / "b") == ["skip"]
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,event\n1,7,view\n1,8,buy\n1,9,skip\n")
    (person,) = people_of(log, {}, ["7", "8", "9"], shown=shown_events(tmp_path))
    assert person.items.tolist() == [1, 2]


def test_ids_are_those_of_the_source_however_they_are_written(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id\n1.0,7.0\n1.0,12.0\n")
    assert people_of(log, {}, ["12.0", "7", "x"])[0].items.tolist() == [1, 0]
    log.write_text(f"user_id,item_id\n1,{normalize('NFD', 'Beyoncé')}\n")
    assert people_of(log, {}, [normalize("NFC", "Beyoncé")])[0].items.tolist() == [0]


def test_rows_of_a_log_that_cannot_be_read_are_named_or_dropped(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\n1,7,2023-01-02\n1,8,1970-01-01\n")
    with pytest.raises(DataError, match=r"log\.csv line 3: .* or pass --on-bad-rows drop \(1 row"):
        people_of(log, {}, ["7", "8"])
    with pytest.warns(DataWarning, match="dropped 1 of 2 rows"):
        (person,) = people_of(log, {}, ["7", "8"], "drop")
    assert person.items.tolist() == [0]


def test_a_file_of_ids_loses_none_in_silence(tmp_path):
    (tmp_path / "ids.csv").write_text("item_id,name\n1.0,a\n2.0,b\n")
    assert read_ids([str(tmp_path / "ids.csv")], "--allow") == ["1", "2"]
    (tmp_path / "ids.csv").write_text("item_id,name\n1,a\n2\n")
    with pytest.raises(DataError, match=r"ids\.csv line 3: 1 values; expected 2"):
        read_ids([str(tmp_path / "ids.csv")], "--allow")
