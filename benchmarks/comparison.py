"""How often the intervals and tests of `palate compare` are right, where the truth is known.

    python benchmarks/comparison.py [--quick] [--json PATH]

Pairs of rank tables (`rank_tables.py`): everyone with four contexts, or 1 to 200 with a heavy tail
and the more found the more contexts. The percentile bootstrap beside it has the same draws.
"""

from typing import Any

import numpy as np
from measuring import conditions, flags, publish
from numpy.typing import NDArray
from rank_tables import World

from palate.evaluation.significance import paired_difference
from palate.randomness import integers

FIRST_SEED = 100_000
"""Not one of those of the tests."""
DRAWS = 500
LIFT = 0.5
KINDS = {"4 contexts each": True, "1 to 200 contexts": False}
N_USERS = (30, 60, 150, 500)


def main() -> None:
    """Draw, count, and write the table."""
    given = flags(__doc__).parse_args()
    tables = 100 if given.quick else 2000
    rows = [
        counted(kind, n_users, tables, FIRST_SEED + number)
        for number, (kind, n_users) in enumerate((k, n) for k in KINDS for n in N_USERS)
    ]
    text = f"""# Intervals and tests of a comparison where the truth is known

NDCG@10 of two policies on {tables:,} pairs of rank tables in each cell, {DRAWS} bootstrap draws.
Without a difference: tests with p < 0.05, and intervals that leave out 0. With a planted one (b
finds the answer in 10 to 40 % of a user's contexts, a in 4 to 10 % more of them): 95 % intervals
that hold the true difference, lie below it, lie above it; beside it the percentile bootstrap on the
same draws. A share of 5 % scatters by {(0.05 * 0.95 / tables) ** 0.5:.1%}.

| contexts of a user | users | p < 0.05 | without 0 | coverage | below, above | percentile |
|---|---:|---:|---:|---:|---:|---:|
{"".join(line(row) for row in rows)}
{conditions("numpy")}"""
    publish(text, rows, given, "comparison")


def counted(kind: str, n_users: int, tables: int, seed: int) -> dict[str, Any]:
    """Shares of false alarms and of intervals that hold the truth."""
    null, planted = (World(KINDS[kind], lift) for lift in (0.0, LIFT))
    low, high, p, _, _ = tested(null, n_users, tables, seed)
    from_low, to_high, power, plain_low, plain_high = tested(planted, n_users, tables, seed + 1000)
    truth = planted.truth()
    return {
        "kind": kind,
        "users": n_users,
        "false_alarms": float(np.mean(p < 0.05)),
        "without_zero": float(np.mean((low > 0) | (high < 0))),
        "coverage": float(np.mean((from_low <= truth) & (truth <= to_high))),
        "too_low": float(np.mean(to_high < truth)),
        "too_high": float(np.mean(from_low > truth)),
        "percentile": float(np.mean((plain_low <= truth) & (truth <= plain_high))),
        "power": float(np.mean(power < 0.05)),
    }


def tested(world: World, n_users: int, tables: int, seed: int) -> NDArray[np.float64]:
    """(5, tables): low, high and p, then low and high by the percentile method."""
    random = np.random.default_rng(seed)
    found = np.empty((tables, 5))
    for table in range(tables):
        a, b = world.draw(random, n_users)
        one, users = a.values(["ndcg@10"])
        other, _ = b.values(["ndcg@10"])
        difference = one["ndcg@10"] - other["ndcg@10"]
        whole = paired_difference(
            difference, np.zeros(len(users)), users, table, draws=DRAWS, permutations=999
        )
        chosen = integers(
            n_users, table, "bootstrap", np.arange(DRAWS)[:, None], np.arange(n_users)
        )
        sums, counts = np.bincount(users, difference), np.bincount(users)
        ratios = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
        found[table] = whole["low"], whole["high"], whole["p"], *np.quantile(ratios, [0.025, 0.975])
    return found.T


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    return (
        f"| {row['kind']} | {row['users']} | {row['false_alarms']:.1%} | {row['without_zero']:.1%} "
        f"| {row['coverage']:.1%} | {row['too_low']:.1%}, {row['too_high']:.1%} "
        f"| {row['percentile']:.1%} |\n"
    )


if __name__ == "__main__":
    main()
