"""How a stage of a run stands against another, by the metric that the run is judged by."""

from dataclasses import dataclass
from typing import Any, Literal

from palate.evaluation.metrics import chief_cutoff
from palate.report.charts import number

Sign = Literal["better", "worse", "undecided"]
LEVEL = 0.05
RIVALS = {
    "sft": "imitation",
    "sft_continued": "imitation for as many further steps",
    "popularity": "popularity, which asks nobody's history,",
    "markov": "markov, which asks for the last item alone,",
    "random": "chance",
}
"""What an aligned policy must not fall behind → what sentences call it. The first two are what
alignment adds to; the others need no training."""


@dataclass(frozen=True)
class Standing:
    """A stage against another, the rival.

    Attributes:
        rival: the other stage.
        sign: "better" or "worse" where that is beyond chance, of the stage and not of the rival.
        may_be_behind: whether the interval or the test alone speaks for the rival.
        spans_zero: whether the interval of the difference holds 0, an end at 0 included.
        values: both stages' values, "" where the run's metrics have but their difference.
        difference: with its interval, users and p; or why the values alone decide.
    """

    rival: str
    sign: Sign
    may_be_behind: bool
    spans_zero: bool
    values: str
    difference: str

    @property
    def name(self) -> str:
        """What the rival is called within a sentence."""
        return RIVALS[self.rival]

    @property
    def last_name(self) -> str:
        """What it is called where a clause ends with it."""
        return self.name.removesuffix(",")


def standing(metrics: dict[str, Any], stage: str, rival: str) -> Standing | None:
    """How a stage stands against a rival; None where the run does not say.

    A difference is beyond chance where p < 0.05 and its 95 % interval leaves out 0. Runs evaluated
    before their differences from the baselines were kept have the stages' own intervals only: they
    decide where they do not meet, and say nothing where they do.

    Args:
        metrics: what `metrics.json` holds.
        stage: whose standing.
        rival: one of `RIVALS`.
    """
    protocol, metric = chief_metric(metrics)
    own, other = (metrics.get(name, {}).get(protocol, {}).get(metric) for name in (stage, rival))
    values = "" if own is None or other is None else f"{_value(own)} against {_value(other)}"
    found = metrics.get("differences", {}).get(f"{stage}-{rival}", {}).get(protocol, {}).get(metric)
    if found is not None:
        low, high = found["low"], found["high"]
        behind = high < 0 or (found["p"] < LEVEL and found["value"] < 0)
        said = difference_text(found)
        return Standing(rival, sign_of(found), behind, low <= 0 <= high, values, said)
    if (
        own is None
        or other is None
        or (own["low"] <= other["high"] and other["low"] <= own["high"])
    ):
        return None
    is_better = own["low"] > other["high"]
    sign: Sign = "better" if is_better else "worse"
    return Standing(rival, sign, not is_better, False, values, "intervals that do not meet")


def chief_metric(metrics: dict[str, Any]) -> tuple[str, str]:
    """Protocol and metric that a run is judged by: NDCG@10, or at the largest cutoff, over the
    catalogue where it was ranked."""
    held = metrics["sft"]
    protocol = "catalogue" if "catalogue" in held else "candidates"
    cutoffs = {int(name.split("@")[1]) for name in held[protocol] if name.startswith("ndcg@")}
    return protocol, f"ndcg@{chief_cutoff(cutoffs)}"


def sign_of(difference: dict[str, Any]) -> Sign:
    """Which way a difference goes, if that is beyond chance: p < 0.05, and 0 outside of the 95 %
    interval."""
    if difference["p"] < LEVEL and difference["low"] > 0:
        return "better"
    if difference["p"] < LEVEL and difference["high"] < 0:
        return "worse"
    return "undecided"


def p_value(p: float) -> str:
    """A p-value in a table: 0.03, < 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def p_text(p: float) -> str:
    """A p-value in a sentence: p = 0.03, p < 0.001, on one line."""
    said = p_value(p)
    return (f"p {said}" if said.startswith("<") else f"p = {said}").replace(" ", "\u00a0")


def difference_text(found: dict[str, Any]) -> str:
    """A difference with its interval, users and p."""
    low, high = number(found["low"], "+"), number(found["high"], "+")
    value, users = number(found["value"], "+"), found["n_users"]
    # no line ends within an interval
    return f"{value} [{low},\u00a0{high}], {users:,} users, {p_text(found['p'])}"


def _value(found: dict[str, Any]) -> str:
    return number(found["value"])
