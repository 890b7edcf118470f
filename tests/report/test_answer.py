"""The sentence at the top says what the figures allow, and no more."""

import pytest

from palate.report.answer import answer, chief_metric, metric_name, p_value


def cell(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def difference(value, low, high, p):
    return {"value": value, "low": low, "high": high, "p": p, "n_users": 1234}


def metrics(against_sft, against_continued=None, against_popularity=(0.01, 0.005, 0.02, 0.01)):
    pairs = {
        "aligned-sft": against_sft,
        "aligned-sft_continued": against_continued,
        "sft-popularity": against_popularity,
    }
    found = {
        name: {"catalogue": {"ndcg@10": difference(*pair)}} for name, pair in pairs.items() if pair
    }
    stages = {"sft": 0.05, "aligned": 0.07} if against_sft else {"sft": 0.05}
    ranked = {
        stage: {"catalogue": {"hr@10": cell(0.2), "ndcg@5": cell(v / 2), "ndcg@10": cell(v)}}
        for stage, v in stages.items()
    }
    chief = {"difference": found["aligned-sft"]} if against_sft else {}
    return {**ranked, **chief, "differences": found}


def test_a_certain_gain_is_said_with_its_figures_and_users():
    said = answer(metrics((0.02, 0.01, 0.03, 0.0004), (0.015, 0.005, 0.025, 0.004)), 20)
    assert said.verdict == "better"
    assert said.claim == "Yes, aligned ranks better than imitation"
    assert plain(said.figures) == (
        "NDCG@10 0.0700 against 0.0500, +0.0200 [+0.0100, +0.0300], 1,234 users, p < 0.001"
    )
    assert [plain(remark) for remark in said.remarks] == [
        "It also ranks better than imitation for as many further steps: "
        "+0.0150 [+0.0050, +0.0250], 1,234 users, p = 0.004."
    ]


def plain(text):
    """Text without what keeps a line from ending."""
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ((-0.02, -0.03, -0.01, 0.001), "worse"),
        ((0.02, -0.001, 0.04, 0.06), "undecided"),
        ((0.02, -0.001, 0.04, 0.04), "undecided"),  # p and interval disagree
        ((0.02, 0.001, 0.04, 0.06), "undecided"),
        ((0.0, 0.0, 0.0, 1.0), "undecided"),
    ],
)
def test_what_is_worse_or_not_certain_is_not_called_better(figures, verdict):
    said = answer(metrics(figures), 20)
    assert said.verdict == verdict
    assert said.claim.startswith("No")
    assert "better" not in said.claim


def test_a_gain_that_more_imitation_gives_too_is_doubted():
    said = answer(metrics((0.02, 0.01, 0.03, 0.001), (0.001, -0.01, 0.01, 0.8)), 20)
    assert said.verdict == "better"
    assert "the gain may come from more training alone" in said.remarks[0]


def test_imitation_that_does_not_beat_popularity_is_told():
    said = answer(metrics((0.02, 0.01, 0.03, 0.001), None, (0.001, -0.01, 0.01, 0.8)), 20)
    assert "could not be shown to beat popularity" in said.remarks[-1]


def test_a_leak_comes_before_everything_else():
    leaks = "leaks, scores without a model: position 0.5530 (redrawn 0.0640)"
    said = answer(metrics((0.02, 0.01, 0.03, 0.001)), 20, leaks)
    assert said.remarks[0] == f"No figure here can be trusted: the data {leaks}."


def test_without_alignment_the_answer_is_about_imitation():
    said = answer(metrics(None), 20)
    assert said.verdict == "imitation"
    assert said.claim == "Nothing was aligned"
    assert said.figures == "imitation reaches NDCG@10 0.0500 [0.0400, 0.0600]"


def test_the_chief_metric_is_over_the_catalogue_and_at_ten_where_there_is_one():
    ranked = dict.fromkeys(("ndcg@5", "ndcg@10", "ndcg@20", "hr@1"), cell(0.1))
    assert chief_metric({"sft": {"catalogue": ranked}}) == ("catalogue", "ndcg@10")
    only = {name: ranked[name] for name in ("ndcg@5", "hr@1")}
    assert chief_metric({"sft": {"candidates": only}}) == ("candidates", "ndcg@5")
    assert metric_name("hr@1", "candidates", 20) == "HR@1|20"
    assert metric_name("coverage@10") == "coverage@10"
    assert [p_value(p) for p in (0.0004, 0.041, 1.0)] == ["< 0.001", "0.041", "1"]
