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
_LEAST_ERROR = 0.5  # of the sample's standard error; see `bootstrap_interval`


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
    """Mean over contexts with its bootstrap interval over users (symmetric bootstrap-t).

    The mean is a ratio of sums over users, R = Σ_u S_u / Σ_u N_u, with the linearised standard
    error s = √(Σ_u (S_u − R N_u)²) / Σ_u N_u. Draw b takes U users with replacement, which gives
    R_b, s_b and t_b = |R_b − R| / s_b; the interval is R ± s · (the quantile of t_b). Where some
    users come far more often than others it holds the truth more often than quantiles of R_b do.
    Hall, JRSS B 1988 (symmetric); Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    ch. 12; Cochran, Sampling Techniques, 1977, ch. 6 (the standard error).
    **Decision**: s_b counts as at least s / 2, so that draws without the few users who differ end
    no interval at infinity.

    Args:
        values: (C,) one value per context.
        users: (C,) user of each context, any integers.
        seed: names the draws; user j of draw b is named (seed, "bootstrap", b, j).
        draws: number of draws; with 1000 the width of a 95 % interval has a standard error of
            about 3 %.
        confidence: share of the draws inside the interval.

    Returns:
        (mean, low, high), cut off at the least and the greatest value. With one user low = high =
        mean: nothing is known of other users.

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
    if not metrics:
        return {}
    means, halves = _half_widths(metrics, users, seed, draws, confidence)
    return {
        name: (
            float(mean),
            float(max(mean - half, min(mean, np.min(values)))),
            float(min(mean + half, max(mean, np.max(values)))),
        )
        for (name, values), mean, half in zip(metrics.items(), means, halves, strict=True)
    }


def user_error(values: ArrayLike, users: ArrayLike) -> float:
    """Standard error of a mean over contexts, users being what is sampled; 0 for one user.

    √(U / (U − 1) · Σ_u (S_u − R N_u)²) / Σ_u N_u    Cochran, Sampling Techniques, 1977, ch. 6

    Args:
        values: (C,) one value per context.
        users: (C,) user of each context, any integers.

    Raises:
        DataError: values and users differ in length, are empty, or a value is not finite.
    """
    sums, counts = _user_sums({"value": values}, users)
    _, _, errors = _linearised(sums, counts)
    return float(errors[0] * np.sqrt(len(counts) / max(len(counts) - 1, 1)))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's correction: p-values to compare with a level that holds for the whole family.

    With p_(1) ≤ … ≤ p_(m): adjusted p_(i) = max_{j ≤ i} min(1, (m − j + 1) p_(j)).
    Holm, Scandinavian Journal of Statistics 1979

    Args:
        p_values: (m,) of all tests of the family, in any order; they may depend on one another.

    Returns:
        (m,) adjusted p-values, in the same order.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    raised = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted[order] = np.maximum.accumulate(raised)
    return adjusted


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
        value (mean of a − b over contexts), low, high (as `bootstrap_interval`, but not cut off),
        p, n_users.

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
    named = {"a − b": difference}
    (mean,), (half,) = _half_widths(named, users, seed, draws, confidence)
    sums, counts = _user_sums(named, users)
    return {
        "value": float(mean),
        "low": float(mean - half),
        "high": float(mean + half),
        "p": _sign_flip_p(sums[0], seed, permutations),
        "n_users": len(counts),
    }


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


def _half_widths(
    metrics: Mapping[str, ArrayLike], users: ArrayLike, seed: int, draws: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (M,) and half the width of their intervals (M,), as `bootstrap_interval` says."""
    if draws < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"draws is {draws} and confidence is {confidence}; expected draws ≥ 1 and a "
            "confidence between 0 and 1, for example 0.95."
        )
    sums, counts = _user_sums(metrics, users)
    means, residuals, errors = _linearised(sums, counts)
    columns = np.concatenate(
        [counts[None], counts[None] ** 2, residuals, residuals * counts, residuals**2]
    ).T  # (U, 2 + 3M)
    n_users = len(counts)
    drawn = np.empty((draws, columns.shape[1]))
    step = max(1, _BLOCK // n_users)
    for start in range(0, draws, step):
        draw = np.arange(start, min(start + step, draws))[:, None]
        chosen = integers(n_users, seed, "bootstrap", draw, np.arange(n_users))
        cells = (draw - start) * n_users + chosen
        times = np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape)
        drawn[draw[:, 0]] = times.astype(float) @ columns
    count, square = drawn[:, :1], drawn[:, 1:2]
    residual, crossed, squared = np.split(drawn[:, 2:], 3, axis=1)
    shift = residual / count  # R_b − R
    spread = np.sqrt(np.maximum(squared - 2 * shift * crossed + shift**2 * square, 0)) / count
    spread = np.maximum(spread, _LEAST_ERROR * errors)
    ratio = np.divide(np.abs(shift), spread, out=np.zeros_like(shift), where=spread > 0)
    return means, errors * np.quantile(ratio, confidence, axis=0)


def _linearised(sums: NDArray, counts: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Ratio R (M,), residuals S_u − R N_u (M, U) and standard error of R (M,), but for the factor
    √(U / (U − 1)), which cancels where errors are divided by one another."""
    total = counts.sum()
    means = sums.sum(axis=1) / total
    residuals = sums - means[:, None] * counts
    errors = np.sqrt((residuals**2).sum(axis=1)) / total
    # What the additions round off is no spread.
    return means, residuals, np.where(errors > 1e-12 * np.abs(sums).sum(axis=1) / total, errors, 0)


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
