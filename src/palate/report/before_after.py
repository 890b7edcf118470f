"""What changed between imitation and alignment: charts of intervals and of ranks, tables."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.evaluation.stages import BASELINE_PAIRS, ORDER, PAIRS
from palate.report.charts import (
    Chart,
    Estimate,
    Line,
    Numbers,
    interval_chart,
    line_chart,
    number,
)
from palate.report.colours import colour, stage_colour
from palate.report.names import list_length, metric_name, shown_once
from palate.report.standing import chief_metric, p_value, sign_of

BEYOND = {
    "coverage": "share of the catalogue that is recommended to anyone",
    "gini": "0 where all items are recommended alike, 1 where it is one item only",
    "popularity": "training interactions of a recommended item, on average",
    "diversity": "distinct categories in a list divided by its length, on average; above 1 only "
    "where items have several",
}
"""What the lists are measured by, whoever is right."""
SHOWN = ("ndcg", "ndcg_graded", "hr")
"""Metrics whose differences are drawn; all are in the table."""


def interval_charts(metrics: dict[str, Any], candidates: int) -> list[Chart]:
    """The chief metric of every stage, its differences, and aligned − sft by metric."""
    protocol, metric = chief_metric(metrics)
    length = list_length(metrics, candidates)
    name = metric_name(metric, protocol, length)
    stages = [
        Estimate(stage, **_cell(metrics[stage][protocol][metric]), colour=stage_colour(stage))
        for stage in ORDER
        if protocol in metrics.get(stage, {})
    ]
    charts = [
        interval_chart(
            "stages",
            f"{name} of every stage",
            "The mean over test contexts with its 95 % interval. Overlapping intervals do not "
            "say that two stages are alike; the differences do.",
            stages,
            name,
        )
    ]
    pairs = [
        _difference(f"{a} − {b}", metrics["differences"][f"{a}-{b}"][protocol][metric])
        for a, b in (*PAIRS, *BASELINE_PAIRS)
        if metric in metrics["differences"].get(f"{a}-{b}", {}).get(protocol, {})
    ]
    if pairs:
        charts.append(
            interval_chart(
                "differences",
                f"Differences in {name}",
                "Paired on the same contexts. Coloured where the 95 % interval leaves out 0 and "
                "p < 0.05.",
                pairs,
                f"difference in {name}",
                "+",
            )
        )
    by_metric = [
        _difference(metric_name(one, protocol, length), found[one])
        for found in [metrics.get("difference", {}).get(protocol, {})]
        for one in shown_once(found, metrics, protocol)
        if one.split("@")[0] in SHOWN
    ]
    if by_metric:
        charts.append(
            interval_chart(
                "by-metric",
                "aligned − sft by metric",
                "One metric decides, the first above; the others show whether it stands alone.",
                by_metric,
                "difference",
                "+",
            )
        )
    return charts


def all_metrics(metrics: dict[str, Any], candidates: int) -> Numbers:
    """Every metric, once: sft, aligned, their difference, its interval and p."""
    length = list_length(metrics, candidates)
    header = ["metric", "sft", "aligned", "difference", "95 % interval", "p"]
    rows = []
    for protocol, found in metrics.get("difference", {}).items():
        for metric in shown_once(found, metrics, protocol):
            one = found[metric]
            values = [metrics[s][protocol].get(metric, {}).get("value") for s in ("sft", "aligned")]
            rows.append(
                [
                    metric_name(metric, protocol, length),
                    *map(number, values),
                    number(one["value"], "+"),
                    f"[{number(one['low'], '+')}, {number(one['high'], '+')}]",
                    p_value(one["p"]),
                ]
            )
    return Numbers(header, rows)


def beyond_rows(metrics: dict[str, Any]) -> Numbers:
    """What the lists are like: a row per stage; none where the catalogue was not ranked."""
    held = metrics["sft"].get("catalogue", {})
    names = [name for name in held if name.split("@")[0] in BEYOND]
    stages = [stage for stage in ORDER if "catalogue" in metrics.get(stage, {})]
    rows = [
        [stage, *(number(metrics[stage]["catalogue"][name]["value"]) for name in names)]
        for stage in stages
    ]
    return Numbers(["stage", *names], rows if names else [])


def rank_chart(ranks: pa.Table, protocol: str) -> tuple[Chart, str] | None:
    """How many held-out items stand within the first k places, before and after; in words, how
    many moved up and down. None where either stage is missing."""
    of_protocol = pc.field("protocol") == protocol
    held = {
        stage: ranks.filter(of_protocol & (pc.field("stage") == stage))["rank"].to_numpy()
        for stage in ("aligned", "sft_continued", "sft")
    }
    held = {stage: values for stage, values in held.items() if len(values)}
    if "sft" not in held or "aligned" not in held:
        return None
    longest = max(values.max() for values in held.values())
    cutoffs = np.unique(np.geomspace(1, longest, 40).round())
    lines = [
        Line(
            stage,
            cutoffs.tolist(),
            [float((values <= k).mean()) for k in cutoffs],
            stage_colour(stage),
        )
        for stage, values in held.items()
    ]
    chart = line_chart(
        "ranks",
        "Held-out items within the first k places",
        "The higher a line, the more of what people went on to like stands that high in the list.",
        lines,
        "k",
        "share",
        log_x=True,
    )
    up = int((held["aligned"] < held["sft"]).sum())
    down = int((held["aligned"] > held["sft"]).sum())
    total = len(held["sft"])
    words = (
        f"Of {total:,} held-out items {up:,} moved up, {down:,} moved down and "
        f"{total - up - down:,} stayed where they were."
    )
    return chart, words


def _cell(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("value", "low", "high")}


def _difference(label: str, found: dict[str, Any]) -> Estimate:
    sign = sign_of(found)
    return Estimate(
        label, **_cell(found), colour=colour("baseline" if sign == "undecided" else sign)
    )
