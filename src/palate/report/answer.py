"""The question that a run answers, and the answer in a sentence."""

from dataclasses import dataclass
from typing import Any, Literal

from palate.report.charts import number
from palate.report.names import MEANING, list_length, metric_name
from palate.report.standing import RIVALS, Standing, chief_metric, standing

Verdict = Literal["better", "worse", "undecided", "imitation"]
BASELINES = ("popularity", "markov", "random")
GRAVITY = {"worse": 0, "undecided": 1, "better": 2}


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

    A difference is beyond chance where p < 0.05 and its 95 % interval leaves out 0. The answer is

    * "worse" where imitation, imitation continued or any baseline ranks better beyond chance;
    * "better" where aligned ranks better than imitation beyond chance, and for none of the others
      interval or test alone say that it ranks better than aligned;
    * "undecided" otherwise.

    Args:
        metrics: what `metrics.json` holds.
        candidates: `evaluation.candidates`; the lists' own length is taken where metrics have it.
        leaks: what must stand beside results on leaking data, or "".
    """
    protocol, metric = chief_metric(metrics)
    name = metric_name(metric, protocol, list_length(metrics, candidates))
    first = [f"No figure here can be trusted: the data {leaks}."] if leaks else []
    kind, _, k = metric.partition("@")
    meaning = MEANING.get(kind, "").format(k=k)
    of_imitation = _standings(metrics, "sft", BASELINES)
    remarks = [
        (one, _beside(one, "Imitation itself", "imitation itself", name)) for one in of_imitation
    ]
    found = _standings(metrics, "aligned", RIVALS)
    if not found or found[0].rival != "sft":
        question = "How well does imitation of the log rank what people go on to like?"
        value = metrics["sft"][protocol][metric]
        figures = f"{number(value['value'])} [{number(value['low'])}, {number(value['high'])}]"
        claim, figures = "Nothing was aligned", f"imitation reaches {name} {figures}"
        return Answer(
            question, "imitation", claim, figures, [*first, *_by_gravity(remarks)], meaning
        )
    question = "Does alignment rank what people go on to like better than imitation of the log?"
    verdict, claim, chief = _verdict(found)
    others = [one for one in found if one is not chief]
    remarks = [*((one, _against(one, verdict, name)) for one in others), *remarks]
    figures = f"{name} {_figures(chief)}"
    return Answer(question, verdict, claim, figures, [*first, *_by_gravity(remarks)], meaning)


def _standings(
    metrics: dict[str, Any], stage: str, rivals: tuple[str, ...] | dict[str, str]
) -> list[Standing]:
    found = (standing(metrics, stage, rival) for rival in rivals)
    return [one for one in found if one is not None]


def _verdict(found: list[Standing]) -> tuple[Verdict, str, Standing]:
    """Verdict, claim and what they rest on; the first of `found` is against imitation."""
    imitation = found[0]
    if imitation.sign == "worse":
        return "worse", "No, aligned ranks worse than imitation", imitation
    ahead = next((one for one in found if one.sign == "worse"), None)
    if ahead is not None:
        return "worse", f"No, {ahead.name} ranks better than aligned", ahead
    if imitation.sign == "better":
        doubt = next((one for one in found if one.may_be_behind), None)
        if doubt is None:
            return "better", "Yes, aligned ranks better than imitation", imitation
        claim = f"Not clear: aligned ranks better than imitation, but {doubt.name} may rank higher"
        return "undecided", claim, doubt
    if imitation.spans_zero:
        claim = "No difference between aligned and imitation could be shown"
    else:
        claim = "No clear difference between aligned and imitation: interval and test disagree"
    return "undecided", claim, imitation


def _against(one: Standing, verdict: Verdict, name: str) -> str:
    """How aligned does against a rival that the answer does not name, or ""."""
    if one.rival in BASELINES:
        return _beside(one, "Aligned", "aligned", name)
    if one.sign == "better":
        start = "It also ranks better" if verdict == "better" else "Aligned does rank better"
        return f"{start} than {one.name}: {one.difference}."
    if one.sign == "worse":
        return f"{_capital(one.name)} ranks better than aligned: {one.difference}."
    shown = "no difference could be shown" if one.spans_zero else "interval and test disagree"
    is_doubt = one.rival == "sft_continued" and verdict == "better"
    doubt = ", so the gain may come from more training alone" if is_doubt else ""
    return f"Against {one.last_name} {shown}: {one.difference}{doubt}."


def _beside(one: Standing, start: str, within: str, name: str) -> str:
    """A word where a stage does not beat a baseline beyond chance; "" where it does."""
    if one.sign == "better":
        return ""
    figures = f"{name} {_figures(one)}"
    if one.sign == "worse":
        return f"{_capital(one.name)} ranks better than {within}: {figures}."
    if one.spans_zero:
        return f"{start} could not be shown to beat {one.last_name}: {figures}."
    return (
        f"Whether {within} beats {one.name} is not clear, as interval and test disagree: {figures}."
    )


def _figures(one: Standing) -> str:
    return f"{one.values}, {one.difference}" if one.values else one.difference


def _by_gravity(remarks: list[tuple[Standing, str]]) -> list[str]:
    ordered = sorted(remarks, key=lambda found: GRAVITY[found[0].sign])
    return [said for _, said in ordered if said]


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
