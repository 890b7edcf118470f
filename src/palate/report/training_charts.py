"""Charts of training: what `train.jsonl` tells, under the names of `alignment_logs`."""

import math
import re
from collections.abc import Sequence
from typing import Any

from palate.report.charts import Chart, Line, line_chart
from palate.report.colours import SERIES, colour, stage_colour
from palate.report.names import metric_name

Log = Sequence[dict[str, Any]]
ROUND = re.compile(r"align(_\d+)?")
"""Stages of alignment, one or several rounds."""
WATCHED = (
    (
        "logps",
        "Log-probabilities",
        "Of liked items and of negatives, under the policy. Both may fall; the liked ones must "
        "fall less.",
        (("liked", "logps/chosen"), ("negatives", "logps/rejected")),
        "log π, nats",
    ),
    (
        "margins",
        "Reward margin",
        "How much more alignment has raised liked items over negatives than the reference had, "
        "times β.",
        (("margin", "rewards/margins"),),
        "β-scaled, nats",
    ),
    (
        "accuracies",
        "Pairs in the right order",
        "Shares of the pairs of a liked item and a negative: those whose rewards are in the right "
        "order, and those whose negative is scored at least as high.",
        (("right by reward", "rewards/accuracies"), ("violations", "boundary/violations")),
        "share of pairs",
    ),
    (
        "kl",
        "Distance from the reference",
        "KL(reference ‖ policy) among the candidates of a context.",
        (("KL", "kl"),),
        "nats",
    ),
    (
        "boundary",
        "Where the gradient goes",
        "Shares of the gradient on negatives that fall on those at the boundary and on easy ones. "
        "A boundary share that falls is the first sign of collapse.",
        (("boundary", "boundary/share"), ("easy", "easy/share")),
        "share of the gradient",
    ),
    (
        "boundary-margins",
        "Margins to negatives",
        "Mean of log π(liked) − log π(negative), to negatives at the boundary and to easy ones.",
        (("boundary", "boundary/margin"), ("easy", "easy/margin")),
        "nats",
    ),
    (
        "falling",
        "Liked items that fall",
        "Share of liked items whose log-probability is below the reference's.",
        (("falling", "chosen/falling"),),
        "share",
    ),
    (
        "beta",
        "β",
        "Quantiles over pairs under DynamicPO; the β of the batch under β-DPO.",
        (
            ("90 %", "beta/p90"),
            ("median", "beta/p50"),
            ("10 %", "beta/p10"),
            ("batch", "beta/batch"),
        ),
        "β",
    ),
    (
        "bound",
        "Bound of the set-wise loss",
        "Mult-DPO's loss less the exact Plackett–Luce loss, and the bound on it.",
        (("gap", "bound/gap"), ("bound", "bound/bound")),
        "nats",
    ),
)
"""Chart, title, how to read it, (line, name in the log), axis."""


def training_charts(log: Log, metric: str) -> list[Chart]:
    """A chart for everything that was logged; empty without a log.

    Args:
        log: lines of `train.jsonl`.
        metric: alignment's validation metric, such as "ndcg@10".
    """
    rounds = alignment_rounds(log)
    terms = sorted({name for line in rounds for name in line if name.startswith("loss/")})
    loss = _chart(
        rounds,
        "align-loss",
        "Loss of alignment",
        "Means over contexts; of a weighted sum also each term before its weight.",
        [("loss", "loss"), *((name.removeprefix("loss/"), name) for name in terms)],
        "nats",
    )
    charts = [_imitation(log), _validation(log, rounds, metric), loss]
    charts += [_chart(rounds, *of) for of in WATCHED]
    return [chart for chart in charts if chart is not None]


def alignment_rounds(log: Log) -> list[dict[str, Any]]:
    """The lines of alignment, steps counted on from round to round."""
    found, behind, stage = [], 0, ""
    for line in log:
        if not ROUND.fullmatch(line["stage"]):
            continue
        if line["stage"] != stage:
            behind, stage = (found[-1]["step"] if found else 0), line["stage"]
        found.append({**line, "step": behind + line["step"]})
    return found


def warnings_of(log: Log) -> list[str]:
    """What training warned of."""
    return [f"{line['stage']}: {line['warning']}" for line in log if "warning" in line]


def _imitation(log: Log) -> Chart | None:
    """Losses of imitation, training and validation."""
    lines = [line for line in log if line["stage"] == "sft"]
    named = [("training", "loss"), ("validation", "eval_loss")]
    reads = "Mean −log π of what came next in training, and of held-out liked items."
    return _chart(lines, "sft-loss", "Loss of imitation", reads, named, "nats")


def _validation(log: Log, rounds: Log, metric: str) -> Chart | None:
    """The validation metric of alignment and of the imitation that goes on beside it."""
    start = [
        {"step": 0, **{key.replace("start_", "eval_", 1): line[key] for key in line}}
        for line in rounds[:1]
        if f"start_{metric}" in line
    ]
    continued = [line for line in log if line["stage"] == "sft_continued"]
    lines = []
    for stage, of in (("aligned", rounds), ("sft_continued", continued)):
        x, y = _series([*start, *of], f"eval_{metric}")
        if len(x) > len(start):
            errors = dict(zip(*_series([*start, *of], f"eval_{metric}_error"), strict=True))
            low = [value - errors.get(step, 0.0) for step, value in zip(x, y, strict=True)]
            high = [value + errors.get(step, 0.0) for step, value in zip(x, y, strict=True)]
            lines.append(Line(stage, x, y, stage_colour(stage), low, high))
    if not lines:
        return None
    name = "loss" if metric == "loss" else metric_name(metric)
    reads = (
        "On validation contexts, ± one standard error. What is evaluated is the best checkpoint "
        "of the last round; the start is none."
    )
    return line_chart("validation", f"Validation {name}", reads, lines, "step", name)


def _chart(
    log: Log, name: str, title: str, reads: str, named: Sequence[tuple[str, str]], axis: str
) -> Chart | None:
    """A line for each name that the log has; None where it has none."""
    points = {label: _series(log, key) for label, key in named}
    lines = [
        Line(label, *points[label], colour(SERIES[place % len(SERIES)]))
        for place, label in enumerate(points)
        if points[label][0]
    ]
    return line_chart(name, title, reads, lines, "step", axis) if lines else None


def _series(log: Log, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name; what is not a number is left out."""
    found = {line["step"]: line[key] for line in log if math.isfinite(line.get(key, math.nan))}
    return list(found), list(found.values())
