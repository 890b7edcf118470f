"""The question that a run answers, and the answer in a sentence."""

from dataclasses import dataclass
from typing import Any, Literal

from palate.report.charts import number

Verdict = Literal["better", "worse", "undecided", "imitation"]
LEVEL = 0.05
NAMES = {"ndcg": "NDCG", "hr": "HR", "mrr": "MRR", "map": "MAP", "recall": "Recall"}
MEANING = {
    "ndcg": "NDCG@{k} is 1 for a list that begins with what the person went on to like, less the "
    "further down that stands, and 0 where it is not among the first {k}.",
    "hr": "HR@{k} is the share of lists whose first {k} items hold something that the person went "
    "on to like.",
}


@dataclass(frozen=True)
class Answer:
    """What a run shows.

    Attributes:
        question: what was asked.
        verdict: "better", "worse", "undecided", or "imitation" where nothing was aligned.
        claim: the answer, without a full stop.
        figures: what it rests on; claim and figures make one sentence.
        remarks: what must be known beside it, the gravest first.
        meaning: what the metric is.
    """

    question: str
    verdict: Verdict
    claim: str
    figures: str
    remarks: list[str]
    meaning: str


def answer(metrics: dict[str, Any], candidates: int, leaks: str = "") -> Answer:
    """The answer of one run, by its chief metric.

    Aligned is called better or worse than imitation where p < 0.05 and the 95 % interval of the
    difference leaves out 0; everything else is undecided.

    Args:
        metrics: what `metrics.json` holds.
        candidates: length of the candidate lists.
        leaks: what must stand beside results on leaking data, or "".
    """
    protocol, metric = chief_metric(metrics)
    name = metric_name(metric, protocol, candidates)
    remarks = [f"No figure here can be trusted: the data {leaks}."] if leaks else []
    kind, _, k = metric.partition("@")
    meaning = MEANING.get(kind, "").format(k=k)
    difference = metrics.get("difference", {}).get(protocol, {}).get(metric)
    if difference is None:
        question = "How well does imitation of the log rank what people go on to like?"
        figures = f"imitation reaches {name} {_value(metrics, 'sft', protocol, metric)}"
        remarks += _against(metrics, "sft-popularity", protocol, metric, name)
        return Answer(question, "imitation", "Nothing was aligned", figures, remarks, meaning)
    question = "Does alignment rank what people go on to like better than imitation of the log?"
    verdict = verdict_on(difference)
    before, after = (number(metrics[s][protocol][metric]["value"]) for s in ("sft", "aligned"))
    figures = f"{name} {after} against {before}, {_difference(difference)}"
    said = {
        "better": "Yes, aligned ranks better than imitation",
        "worse": "No, aligned ranks worse than imitation",
        "undecided": "No difference between aligned and imitation could be shown",
    }
    remarks += _against_continued(metrics, protocol, metric, verdict)
    remarks += _against(metrics, "sft-popularity", protocol, metric, name)
    return Answer(question, verdict, said[verdict], figures, remarks, meaning)


def chief_metric(metrics: dict[str, Any]) -> tuple[str, str]:
    """Protocol and metric that a run is judged by: NDCG@10, or at the largest cutoff, over the
    catalogue where it was ranked."""
    held = metrics["sft"]
    protocol = "catalogue" if "catalogue" in held else "candidates"
    cutoffs = {int(name.split("@")[1]) for name in held[protocol] if name.startswith("ndcg@")}
    return protocol, f"ndcg@{10 if 10 in cutoffs else max(cutoffs)}"


def metric_name(metric: str, protocol: str = "catalogue", candidates: int = 20) -> str:
    """A metric as papers write it: NDCG@10, and HR@1|20 among twenty candidates."""
    kind, at, k = metric.partition("@")
    shown = f"{NAMES.get(kind, kind.replace('_', ' '))}{at}{k}"
    return f"{shown}|{candidates}" if protocol == "candidates" else shown


def verdict_on(difference: dict[str, Any]) -> Verdict:
    """Which way a difference goes, if any way is certain."""
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


def _against_continued(
    metrics: dict[str, Any], protocol: str, metric: str, verdict: Verdict
) -> list[str]:
    """How aligned does against as many steps of further imitation."""
    pair = metrics["differences"].get("aligned-sft_continued", {})
    if (found := pair.get(protocol, {}).get(metric)) is None:
        return []
    figures = _difference(found)
    against = verdict_on(found)
    if against == "better":
        start = "It also ranks better than" if verdict == "better" else "It does rank better than"
        return [f"{start} imitation for as many further steps: {figures}."]
    if against == "worse":
        return [f"Imitation for as many further steps ranks better than aligned: {figures}."]
    doubt = ", so the gain may come from more training alone" if verdict == "better" else ""
    return [
        "Against imitation for as many further steps no difference could be shown: "
        f"{figures}{doubt}."
    ]


def _against(
    metrics: dict[str, Any], pair: str, protocol: str, metric: str, name: str
) -> list[str]:
    """A word where imitation does not beat the baseline it should."""
    found = metrics["differences"].get(pair, {}).get(protocol, {}).get(metric)
    if found is None or verdict_on(found) == "better":
        return []
    return [
        "Imitation itself could not be shown to beat popularity, which asks nobody's history: "
        f"{name} {_difference(found)}."
    ]


def _difference(found: dict[str, Any]) -> str:
    low, high = number(found["low"], "+"), number(found["high"], "+")
    value, users = number(found["value"], "+"), found["n_users"]
    # no line ends within an interval
    return f"{value} [{low},\u00a0{high}], {users:,} users, {p_text(found['p'])}"


def _value(metrics: dict[str, Any], stage: str, protocol: str, metric: str) -> str:
    found = metrics[stage][protocol][metric]
    return f"{number(found['value'])} [{number(found['low'])}, {number(found['high'])}]"
