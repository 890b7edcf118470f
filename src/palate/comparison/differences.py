"""Rows of a comparison: means, paired differences, the same by slice."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from palate.comparison.pairs import (
    Pair,
    Pairing,
    any_seed_interval,
    named_users,
    same_contexts,
    spread,
)
from palate.comparison.rows import Mean, Row
from palate.comparison.runs import EvaluatedRun
from palate.data.contexts import Ids
from palate.evaluation.ranking import Ranks
from palate.evaluation.significance import Difference, bootstrap_interval, holm
from palate.evaluation.slices import Slice, slices_of

LEAST_USERS = 10
"""A part of a slice with fewer is left out: neither its interval nor its p-value would hold."""

Test = Callable[[NDArray, NDArray, Ids], Difference]
"""Values of a, values of b and users → difference, interval and p."""


def means_of(
    side: str,
    ranked: Sequence[tuple[EvaluatedRun, Ranks]],
    protocol: str,
    metrics: Sequence[str],
    seed: int,
    draws: int,
) -> list[Mean]:
    """Metrics of one side over its seeds, users resampled."""
    values = [table.values(metrics) for _, table in ranked]
    users = named_users([run for run, _ in ranked], [of for _, of in values])
    n_contexts = len(values[0][1]) if same_contexts(ranked) else len(users)
    found = []
    for metric in metrics:
        of_seeds = [one[metric] for one, _ in values]
        mean, low, high = bootstrap_interval(np.concatenate(of_seeds), users, seed, draws)
        sd, least, greatest = spread([float(one.mean()) for one in of_seeds])
        found.append(
            Mean(
                side=side,
                protocol=protocol,
                metric=metric,
                value=mean,
                low=low,
                high=high,
                seeds=len(ranked),
                seed_sd=sd,
                seed_low=least,
                seed_high=greatest,
                n_users=len(np.unique(users)),
                n_contexts=n_contexts,
            )
        )
    return found


def differences(
    names: tuple[str, str],
    pairing: Pairing,
    protocol: str,
    metrics: Sequence[str],
    test: Test,
    part: tuple[str, str] = ("", ""),
    rows_of: Sequence[tuple[Pair, NDArray[np.bool_] | None]] | None = None,
) -> list[Row]:
    """Rows of a − b, one per metric, not yet corrected for how many there are.

    Args:
        names: of sides a and b.
        pairing: their ranks.
        protocol, metrics: of the rows.
        test: gives difference, interval and p.
        part: slice and part.
        rows_of: the pairs, and which of their answers belong to the part; None for all.
    """
    chosen = [(pair, None) for pair in pairing.pairs] if rows_of is None else rows_of
    values = [pair.values(metrics, rows) for pair, rows in chosen]
    users = named_users([pair.run for pair, _ in chosen], [of for _, _, of in values])
    found = []
    for metric in metrics:
        a = np.concatenate([one[metric] for one, _, _ in values])
        b = np.concatenate([other[metric] for _, other, _ in values])
        of_seeds = [float((one[metric] - other[metric]).mean()) for one, other, _ in values]
        sd, least, greatest = spread(of_seeds)
        tested = test(a, b, users)
        half = (tested["high"] - tested["low"]) / 2
        any_seed_low, any_seed_high = any_seed_interval(a - b, users, of_seeds, half)
        found.append(
            Row(
                *names,
                protocol,
                metric,
                *part,
                value_a=float(a.mean()),
                value_b=float(b.mean()),
                difference=tested["value"],
                low=tested["low"],
                high=tested["high"],
                p=tested["p"],
                p_holm=tested["p"],
                n_users=tested["n_users"],
                n_contexts=len(values[0][2]) if pairing.same_contexts else len(users),
                seeds=pairing.seeds,
                seed_sd=sd,
                seed_low=least,
                seed_high=greatest,
                any_seed_low=any_seed_low,
                any_seed_high=any_seed_high,
            )
        )
    return found


def differences_by_slice(
    names: tuple[str, str],
    pairing: Pairing,
    protocol: str,
    metrics: Sequence[str],
    test: Test,
) -> tuple[list[Row], list[str]]:
    """`differences` within each part of each slice, and the parts left out, a sentence each."""
    parts: dict[tuple[str, str], list[tuple[Pair, NDArray[np.bool_] | None]]] = {}
    slices: list[Slice] = []
    for pair in pairing.pairs:
        if not slices or not pairing.same_contexts:
            slices = slices_of(pair.b[0].context_id, pair.b[0].item_id, pair.run.data)
        for one in slices:
            parts.setdefault((one.name, one.part), []).append((pair, one.rows))
    found, left_out = [], []
    for part, rows_of in parts.items():
        runs = [pair.run for pair, _ in rows_of]
        users = named_users(runs, [pair.b[0].user_id[rows] for pair, rows in rows_of])
        if (n_users := len(np.unique(users))) < LEAST_USERS:
            count = "1 user" if n_users == 1 else f"{n_users} users"
            left_out.append(f"{part[0]} {part[1]} is left out: it has {count}.")
            continue
        found += differences(names, pairing, protocol, metrics, test, part, rows_of)
    return found, left_out


def corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    """One family of tests with Holm's correction over all of them."""
    adjusted = holm([row.p for row in rows])
    return tuple(replace(row, p_holm=float(p)) for row, p in zip(rows, adjusted, strict=True))
