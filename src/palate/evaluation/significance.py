"""How sure a mean over contexts, or a difference between two runs, is.

Contexts of one user are not independent, so users are what is resampled and permuted; the
contexts of a user stay together. Every draw is counter-based: the same seed gives the same
interval and p-value on any machine.
"""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.errors import ConfigError, DataError
from palate.randomness import integers, random_bits

_BLOCK = 1 << 18  # numbers held at a time: 2 MB, which stays in the processor's cache


class Difference(TypedDict):
    """A paired difference between two runs on the same contexts."""

    value: float
    low: float
    high: float
    p: float
    n_users: int


def bootstrap_interval(
    values: ArrayLike,
    users: ArrayLike,
    seed: int,
    draws: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Mean over contexts with its bootstrap interval over users (percentile method).

    Draw b takes U users with replacement; its statistic is Σ_j sum_j / Σ_j count_j over the users
    drawn, the mean over their contexts. The interval lies between the (1 ± confidence)/2
    quantiles of the draws.    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13

    Args:
        values: (C,) one value per context.
        users: (C,) user of each context, any integers.
        seed: names the draws; user j of draw b is named (seed, "bootstrap", b, j).
        draws: number of draws; with 1000 each end of a 95 % interval has a standard error of about
            2 % of the interval's width.
        confidence: share of the draws inside the interval.

    Returns:
        (mean, low, high). With one user low = high = mean: nothing is known of other users.

    Raises:
        DataError: values and users differ in length, are empty, or a value is not finite.
        ConfigError: draws < 1, or confidence outside (0, 1).
    """
    return bootstrap_intervals({"value": values}, users, seed, draws, confidence)["value"]


def bootstrap_intervals(
    metrics: Mapping[str, ArrayLike],
    users: ArrayLike,
    seed: int,
    draws: int = 1000,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float, float]]:
    """`bootstrap_interval` of several metrics on the same contexts, from the same draws of users.

    Args:
        metrics: name → (C,) values, as `context_metrics` gives them.
        users: (C,) user of each context, any integers.
        seed: names the draws.
        draws: number of draws.
        confidence: share of the draws inside the interval.

    Returns:
        name → (mean, low, high).

    Raises:
        DataError: a metric and users differ in length, are empty, or a value is not finite.
        ConfigError: draws < 1, or confidence outside (0, 1).
    """
    if draws < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"draws is {draws} and confidence is {confidence}; expected draws ≥ 1 and a "
            "confidence between 0 and 1, for example 0.95."
        )
    if not metrics:
        return {}
    sums, counts = _user_sums(metrics, users)
    totals = np.concatenate([sums, counts[None]])  # (M + 1, U): the metrics, then the counts
    n_users = len(counts)
    means = totals[:-1].sum(axis=1) / counts.sum()
    drawn = np.empty((draws, len(totals)))
    step = max(1, _BLOCK // n_users)
    for start in range(0, draws, step):
        draw = np.arange(start, min(start + step, draws))[:, None]
        chosen = integers(n_users, seed, "bootstrap", draw, np.arange(n_users))
        for column, total in enumerate(totals):
            drawn[draw[:, 0], column] = total[chosen].sum(axis=1)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(drawn[:, :-1] / drawn[:, -1:], tails, axis=0)
    return {
        name: (float(means[i]), float(low[i]), float(high[i])) for i, name in enumerate(metrics)
    }


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    users: ArrayLike,
    seed: int,
    draws: int = 1000,
    permutations: int = 10_000,
    confidence: float = 0.95,
) -> Difference:
    """The mean of a − b over the same contexts, with an interval and a p-value by user.

    The p-value is that of a two-sided sign-flip permutation test: were the two runs alike, each
    user's summed difference D_u could as well have the other sign.
    p = (1 + #{permutations : |Σ_u ±D_u| ≥ |Σ_u D_u|}) / (1 + permutations)
    Phipson and Smyth, SAGMB 2010 (the added one: the observed signs are one of the permutations);
    Smucker, Allan and Carterette, CIKM 2007 (the test, for retrieval runs)

    Args:
        a: (C,) values of the one run.
        b: (C,) values of the other, on the same contexts in the same order.
        users: (C,) user of each context, any integers.
        seed: names the draws; permutation t takes its signs from (seed, "sign flip", t, word), the
            64 bits of a word serving 64 users in ascending order of their ids.
        draws: bootstrap draws for the interval.
        permutations: random sign flips for p; p is at least 1 / (1 + permutations).
        confidence: share of the bootstrap draws inside the interval.

    Returns:
        value (mean of a − b over contexts), low, high (see `bootstrap_interval`), p, n_users.

    Raises:
        DataError: a, b and users differ in length, are empty, or a value is not finite.
        ConfigError: draws or permutations < 1, or confidence outside (0, 1).
    """
    if permutations < 1:
        raise ConfigError(f"permutations is {permutations}; expected at least 1, say 10000.")
    one, other = np.asarray(a, float), np.asarray(b, float)
    if one.shape != other.shape:
        raise DataError(
            f"a has shape {one.shape} and b {other.shape}; a paired test needs the same contexts "
            "in both. Evaluate both runs on the same contexts."
        )
    difference = one - other
    value, low, high = bootstrap_interval(difference, users, seed, draws, confidence)
    sums, counts = _user_sums({"a − b": difference}, users)
    p = _sign_flip_p(sums[0], seed, permutations)
    return {"value": value, "low": low, "high": high, "p": p, "n_users": len(counts)}


def _sign_flip_p(sums: NDArray[np.float64], seed: int, permutations: int) -> float:
    """Two-sided p of Σ sums when the sign of each sum is a fair coin; sums (U,)."""
    observed = abs(sums.sum())
    # Flips that equal the observed sum must count, however their additions round.
    least = observed - 1e-12 * np.abs(sums).sum()
    words = np.arange(-(-len(sums) // 64))
    step = max(1, _BLOCK // len(sums))
    count = 0
    for start in range(0, permutations, step):
        permutation = np.arange(start, min(start + step, permutations))[:, None]
        bits = random_bits(seed, "sign flip", permutation, words).astype("<u8").view(np.uint8)
        positive = np.unpackbits(bits, axis=1, count=len(sums), bitorder="little")
        flipped = 2 * (positive.astype(float) @ sums) - sums.sum()
        count += int(np.count_nonzero(np.abs(flipped) >= least))
    return (1 + count) / (1 + permutations)


def _user_sums(metrics: Mapping[str, ArrayLike], users: ArrayLike) -> tuple[NDArray, NDArray]:
    """Sums (M, U) of each metric and number of contexts (U,) of each user, by ascending id."""
    ids, user, counts = np.unique(np.asarray(users), return_inverse=True, return_counts=True)
    sums = np.empty((len(metrics), len(ids)))
    for row, (name, column) in enumerate(metrics.items()):
        values = np.asarray(column, float)
        if values.ndim != 1 or values.shape != np.shape(users):
            raise DataError(
                f"{name} has shape {values.shape} and users {np.shape(users)}; expected one value "
                "and one user per context."
            )
        if len(values) == 0:
            raise DataError(f"{name} is empty; a mean needs at least one context.")
        if not np.isfinite(values).all():
            context = int((~np.isfinite(values)).argmax())
            raise DataError(f"{name}: context {context} is {values[context]}; expected a number.")
        sums[row] = np.bincount(user, weights=values, minlength=len(ids))
    return sums, counts
