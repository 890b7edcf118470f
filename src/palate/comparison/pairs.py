"""Two sides on the same contexts, seed by seed, and how sure their difference is.

Seeds are not users: what a user shows under several seeds is one observation of that user. Stacking
the seeds' contexts under the same users does that: the sums over users are those of the averages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from palate.comparison.runs import EvaluatedRun
from palate.data.contexts import Ids
from palate.errors import DataError
from palate.evaluation.ranking import Ranks
from palate.evaluation.significance import user_error

Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Pair:
    """Ranks of two sides on the same contexts: of one seed, or of all seeds of both.

    Attributes:
        run: the run of b, or one of them, for its data.
        a, b: each side's tables, of the same answers.
    """

    run: EvaluatedRun
    a: tuple[Ranks, ...]
    b: tuple[Ranks, ...]

    def values(
        self, metrics: Sequence[str], rows: NDArray[np.bool_] | None = None
    ) -> tuple[Values, Values, Ids]:
        """Metrics of each list on both sides, averaged over their tables, and its user."""
        of_a, of_b = (
            [table.values(metrics, rows) for table in tables] for tables in (self.a, self.b)
        )
        one, other = (
            {metric: np.mean([values[metric] for values, _ in found], axis=0) for metric in metrics}
            for found in (of_a, of_b)
        )
        return one, other, of_b[0][1]


@dataclass(frozen=True)
class Pairing:
    """Two sides, ready to be compared.

    Attributes:
        pairs: one per seed that both have, or a single one of all.
        seeds: how many seeds are paired; 0 where each side is averaged over its own.
        same_contexts: whether all pairs hold the same contexts.
        note: what the reader must know, or "".
    """

    pairs: tuple[Pair, ...]
    seeds: int
    same_contexts: bool
    note: str


def paired(
    a: Sequence[tuple[EvaluatedRun, Ranks]],
    b: Sequence[tuple[EvaluatedRun, Ranks]],
    protocol: str,
) -> Pairing:
    """Two sides seed by seed where their seeds match.

    Where they do not, each side is averaged over its own seeds, if all have ranked the same
    answers; else the seeds that both have are paired, and the others left out.

    Args:
        a, b: each side's runs and ranks.
        protocol: "catalogue" or "candidates".

    Raises:
        DataError: the sides were not evaluated alike on the same contexts of the same data.
    """
    of_a, of_b = ({run.seed: (run, table) for run, table in side} for side in (a, b))
    common, note = sorted(of_a.keys() & of_b.keys()), ""
    if of_a.keys() != of_b.keys():
        seeds = f"seeds {_listed(of_a)} against {_listed(of_b)}"
        reason = next((why for one in (*b, *a) if (why := _unlike(b[0], one, protocol))), "")
        if not reason:
            of_all = Pair(b[0][0], tuple(t for _, t in a), tuple(t for _, t in b))
            return Pairing((of_all,), 0, True, f"{seeds}; each side averaged over its own.")
        if not common:
            raise DataError(reason)
        note = f"{seeds}; only {_listed(common)} compared, as seeds have contexts of their own."
    for seed in common:
        if reason := _unlike(of_b[seed], of_a[seed], protocol):
            raise DataError(reason)
    pairs = tuple(Pair(of_b[s][0], (of_a[s][1],), (of_b[s][1],)) for s in common)
    return Pairing(pairs, len(pairs), same_contexts([of_a[seed] for seed in common]), note)


def same_contexts(ranked: Sequence[tuple[EvaluatedRun, Ranks]]) -> bool:
    """Whether all runs have ranked the same answers of the same data."""
    first, table = ranked[0]
    return all(
        run.data_hashes == first.data_hashes and table.same_answers(other)
        for run, other in ranked[1:]
    )


def _unlike(
    one: tuple[EvaluatedRun, Ranks], other: tuple[EvaluatedRun, Ranks], protocol: str
) -> str:
    """Why two runs cannot be compared, or ""."""
    (run, table), (second, second_table) = one, other
    who = f"{run.folder} and {second.folder}"
    if run.data_hashes != second.data_hashes:
        files = sorted(run.data_hashes.items() ^ second.data_hashes.items())
        return (
            f"{who} have different data: the SHA-256 of {files[0][0]} in their data.json differs. "
            f"Make the second from the first: palate align {run.folder} --set KEY=VALUE --out NEW."
        )
    if not table.same_answers(second_table):
        return (
            f"{who} were evaluated on different contexts. Evaluate both with the same seed and the "
            "same --set evaluation.test_contexts, or null for all."
        )
    key = "evaluation.exclude_history"
    if protocol == "catalogue" and run.settings.get(key) != second.settings.get(key):
        return (
            f"{who} rank by different rules: {key} is {run.settings.get(key)} and "
            f"{second.settings.get(key)}. Evaluate one anew: palate evaluate {second.folder} "
            f"--set {key}=… --out NEW."
        )
    if protocol == "candidates" and run.lists_hash != second.lists_hash:
        return (
            f"{who} rank different candidate lists: the SHA-256 of candidates.parquet in their "
            "data.json differs. Compare over the catalogue with --protocol catalogue, or runs of "
            "the same seed."
        )
    return ""


def named_users(runs: Sequence[EvaluatedRun], users: Sequence[Ids]) -> Ids:
    """Users of several runs in one row: by their ids in the source where the data differ."""
    if all(run.data_hashes == runs[0].data_hashes for run in runs):
        return np.concatenate(users)
    names = [
        np.asarray([str(name) for name in run.data.users["source_id"].to_pylist()])[ids]
        for run, ids in zip(runs, users, strict=True)
    ]
    return np.unique(np.concatenate(names), return_inverse=True)[1]


def spread(of_seeds: Sequence[float]) -> tuple[float | None, float, float]:
    """Standard deviation (None for one seed), least and greatest of the seeds' means."""
    sd = float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else None
    return sd, min(of_seeds), max(of_seeds)


def any_seed_interval(
    values: ArrayLike,
    users: ArrayLike,
    of_seeds: Sequence[float],
    half: float = 0.0,
    confidence: float = 0.95,
) -> tuple[float | None, float | None]:
    """An interval that allows for other users *and* another training.

    Mean ± t · √(s_u² + s_s² / S): s_u is the standard error over users, s_s the standard deviation
    of the S seeds' means; degrees of freedom as by Satterthwaite, Biometrics 1946, from U − 1 and
    S − 1. What users make of a particular training is in both terms, so it errs to the wide side.
    **Decision**: s_u is at least what the interval over users alone, a bootstrap's, comes to, so
    that this interval holds that one.

    Args:
        values: (C,) one value per context, the seeds stacked.
        users: (C,) user of each.
        of_seeds: (S,) mean of each seed.
        half: half the width of the interval over users alone, of the same confidence.
        confidence: as in `bootstrap_interval`.

    Returns:
        (low, high), or (None, None) for one seed.
    """
    n_seeds = len(of_seeds)
    if n_seeds < 2:
        return None, None
    user_freedom = max(len(np.unique(np.asarray(users))) - 1, 1)

    def quantile(freedom: float) -> float:
        return float(stats.t.ppf((1 + confidence) / 2, freedom))

    by_user = max(user_error(values, users), half / quantile(user_freedom)) ** 2
    by_seed = float(np.var(of_seeds, ddof=1)) / n_seeds
    mean, total = float(np.mean(np.asarray(values))), by_user + by_seed
    if total == 0:
        return mean, mean
    freedom = total**2 / (by_user**2 / user_freedom + by_seed**2 / (n_seeds - 1))
    wider = max(quantile(freedom) * total**0.5, half)
    return mean - wider, mean + wider


def _listed(seeds: Any) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))
