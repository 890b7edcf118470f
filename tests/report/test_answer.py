"""The sentence at the top says what the figures allow, and no more."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.report.answer import answer
from palate.report.names import list_length, metric_name
from palate.report.standing import chief_metric, p_value


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


# what a difference may look like: (value, low, high, p)
OUTCOMES = {
    "better": (0.02, 0.01, 0.03, 0.001),
    "worse": (-0.02, -0.03, -0.01, 0.001),
    "spans 0": (0.002, -0.01, 0.014, 0.7),
    "ends at 0 below": (0.01, 0.0, 0.02, 0.04),
    "ends at 0 above": (-0.01, -0.02, 0.0, 0.04),
    "alike": (0.0, 0.0, 0.0, 1.0),
    "better by the interval alone": (0.01, 0.001, 0.02, 0.06),
    "worse by the interval alone": (-0.01, -0.02, -0.001, 0.06),
    "worse by the test alone": (-0.01, -0.03, 0.01, 0.04),
    "at the level": (-0.02, -0.03, -0.01, 0.05),
    "not compared": None,
}
RIVALS = ("sft", "sft_continued", "popularity", "markov", "random")
USERS = {rival: 1001 + place for place, rival in enumerate(RIVALS)}
OF_IMITATION = 2001


def ranked_against(outcomes, of_imitation=None):
    """Metrics of a run in which aligned stands against each rival as told; every pair has a number
    of users of its own, by which a sentence shows what it is about."""
    pairs = {f"aligned-{rival}": (found, USERS[rival]) for rival, found in outcomes.items()}
    pairs["sft-popularity"] = (of_imitation, OF_IMITATION)
    return {
        "sft": {"catalogue": {"ndcg@10": cell(0.05)}},
        "aligned": {"catalogue": {"ndcg@10": cell(0.07)}},
        "differences": {
            name: {"catalogue": {"ndcg@10": {**difference(*found), "n_users": users}}}
            for name, (found, users) in pairs.items()
            if found is not None
        },
    }


def plain_verdict(outcomes):
    """The definition: no is a sure loss against anything, yes a sure gain over imitation without a
    sign of a loss against anything."""
    known = [found for found in outcomes.values() if found is not None]
    if any(p < 0.05 and high < 0 for _, _, high, p in known):
        return "worse"
    _, low, _, p = outcomes["sft"]
    gains = p < 0.05 and low > 0
    lags = any(high < 0 or (p < 0.05 and value < 0) for value, _, high, p in known)
    return "better" if gains and not lags else "undecided"


def check(outcomes, of_imitation=None):
    said = answer(ranked_against(outcomes, of_imitation), 20)
    assert said.verdict == plain_verdict(outcomes), outcomes
    assert said.claim.startswith("Yes") == (said.verdict == "better")
    assert said.claim.startswith("No,") == (said.verdict == "worse")
    every = {USERS[rival]: found for rival, found in outcomes.items()}
    every[OF_IMITATION] = of_imitation
    texts = [f"{said.claim}: {said.figures}", *said.remarks]
    shown = {int(re.findall(r"([\d,]+) users", text)[0].replace(",", "")): text for text in texts}
    assert len(shown) == len(texts)
    for users, text in shown.items():
        _, low, high, _ = every[users]
        if "could " in text and "be shown" in text:
            assert low <= 0 <= high, (outcomes, text)
        else:
            assert not low <= 0 <= high or "may rank higher" in text, (outcomes, text)
    # who is ahead is always named; who was beaten need not be
    ahead = {users for users, f in every.items() if f and f[3] < 0.05 and f[2] < 0}
    assert ahead <= set(shown)


def test_every_outcome_against_imitation_and_two_more_gets_the_plain_verdict():
    named = {name: found for name, found in OUTCOMES.items() if found is not None}
    for sft in named.values():
        for more in itertools.product(OUTCOMES.values(), repeat=2):
            for rivals in itertools.combinations(RIVALS[1:], 2):
                outcomes = dict.fromkeys(RIVALS, OUTCOMES["better"])
                check(outcomes | {"sft": sft} | dict(zip(rivals, more, strict=True)))


@st.composite
def found_differences(draw):
    low, high = sorted(draw(st.tuples(*[st.sampled_from([-0.2, -0.01, 0.0, 0.01, 0.2])] * 2)))
    value = draw(st.sampled_from([low, (low + high) / 2, high]))
    return value, low, high, draw(st.sampled_from([1e-4, 0.049, 0.05, 0.06, 1.0]))


@settings(max_examples=500, deadline=None)
@given(
    st.fixed_dictionaries(
        {"sft": found_differences()},
        optional={rival: found_differences() for rival in RIVALS[1:]},
    ),
    found_differences(),
)
def test_any_outcome_against_all_five_gets_the_plain_verdict(outcomes, of_imitation):
    check(outcomes, of_imitation)


def test_a_gain_is_no_yes_where_imitation_continued_and_the_baselines_are_ahead():
    """A run whose page once said yes."""
    outcomes = {
        "sft": (0.0054, 0.0009, 0.0099, 0.015),
        "sft_continued": (-0.0119, -0.0172, -0.0067, 0.0001),
    }
    metrics = ranked_against(outcomes, (-0.0231, -0.0328, -0.0133, 0.0001))
    metrics |= {
        stage: {"catalogue": {"ndcg@10": {"value": v, "low": v - 0.002, "high": v + 0.002}}}
        for stage, v in {"popularity": 0.1035, "markov": 0.1105, "aligned": 0.0859}.items()
    }
    said = answer(metrics, 20)
    assert said.verdict == "worse"
    claim = "No, imitation for as many further steps ranks better than aligned"
    assert said.claim == claim
    first, second, third, *_ = map(plain, said.remarks)
    # an older run has no paired difference from these: their intervals decide, as they do not meet
    figures = "NDCG@10 0.0859 against 0.1035, intervals that do not meet"
    assert (
        first == f"Popularity, which asks nobody's history, ranks better than aligned: {figures}."
    )
    assert second.startswith(
        "Markov, which asks for the last item alone, ranks better than aligned"
    )
    assert third.startswith("Popularity, which asks nobody's history, ranks better than imitation")
    assert not any("could not be shown" in remark for remark in said.remarks)


def test_intervals_of_stages_that_meet_say_nothing():
    metrics = ranked_against({"sft": OUTCOMES["better"]})
    metrics["popularity"] = {"catalogue": {"ndcg@10": {"value": 0.075, "low": 0.06, "high": 0.09}}}
    said = answer(metrics, 20)
    assert (said.verdict, said.remarks) == ("better", [])


@pytest.mark.parametrize(("shortest", "shown"), [(5, "HR@1|5"), (2, "HR@1|2–5")])
def test_the_length_of_candidate_lists_is_their_own(shortest, shown):
    metrics = {"candidate_lists": {"shortest": shortest, "longest": 5}}
    assert metric_name("hr@1", "candidates", list_length(metrics, 20)) == shown
    assert list_length({}, 20) == "20"  # evaluated before lists were measured
    ranked = {"sft": {"candidates": {"ndcg@10": cell(0.1)}}, "differences": {}}
    assert f"NDCG@10|{shown.partition('|')[2]}" in answer(ranked | metrics, 20).figures
