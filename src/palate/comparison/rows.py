"""What a comparison says: plain rows, for tables, JSON and pages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Side:
    """One of the things compared: a stage of a run, or of runs that differ by the seed alone.

    Attributes:
        name: what rows call it; no two sides share it.
        stage: such as "aligned".
        folders: the run folders, by seed.
        seeds: their seeds, ascending.
        settings: configuration keys in which the compared runs differ → their values here.
    """

    name: str
    stage: str
    folders: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Mean:
    """A metric of one side.

    Attributes:
        side: name of the side.
        protocol, metric: such as "catalogue" and "ndcg@10".
        value, low, high: mean over contexts (and seeds) with its 95 % interval over users.
        seeds: number of seeds.
        seed_sd: standard deviation of the seeds' means; None for a single one.
        seed_low, seed_high: least and greatest of them.
        n_users, n_contexts: distinct users, and lists ranked in each seed.
    """

    side: str
    protocol: str
    metric: str
    value: float
    low: float
    high: float
    seeds: int
    seed_sd: float | None
    seed_low: float
    seed_high: float
    n_users: int
    n_contexts: int


@dataclass(frozen=True)
class Row:
    """A paired difference of two sides, over all contexts or over a slice of them.

    Attributes:
        a, b: names of the sides; b is the baseline.
        protocol, metric: such as "catalogue" and "ndcg@10".
        slice, part: such as "popularity" and "tail"; both empty over all contexts.
        value_a, value_b: the two means.
        difference, low, high: a − b with its 95 % interval over users, the trained policies as
            they are.
        p: two-sided, of a sign-flip permutation test over users.
        p_holm: p, corrected for all rows of the family this row stands in.
        n_users, n_contexts: distinct users, and lists compared in each seed.
        seeds: how many seeds are paired; 0 where the sides' seeds do not match, and each side is
            averaged over its own.
        seed_sd: standard deviation of the difference over the paired seeds; None for fewer than 2.
        seed_low, seed_high: least and greatest of the seeds' differences.
        any_seed_low, any_seed_high: the 95 % interval that allows for another training too; None
            for fewer than 2 paired seeds.
    """

    a: str
    b: str
    protocol: str
    metric: str
    slice: str
    part: str
    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n_users: int
    n_contexts: int
    seeds: int
    seed_sd: float | None
    seed_low: float
    seed_high: float
    any_seed_low: float | None
    any_seed_high: float | None


@dataclass(frozen=True)
class Drift:
    """What changes about the lists themselves, whoever is right: no interval, no test.

    Attributes:
        a, b: names of the sides; b is the baseline.
        metric: such as "coverage@10", over the catalogue.
        value_a, value_b, difference: means over the seeds, and a − b.
    """

    a: str
    b: str
    metric: str
    value_a: float
    value_b: float
    difference: float


@dataclass(frozen=True)
class Comparison:
    """Everything `palate compare` has found.

    Attributes:
        sides: what was compared, the baseline first.
        means: each side's metrics.
        rows: the differences over all contexts; one family of tests for Holm's correction.
        slices: the differences by slice; a family of their own, to look where, not whether.
        drift: what changed about the lists.
        notes: what the reader must know, a sentence each.
    """

    sides: tuple[Side, ...]
    means: tuple[Mean, ...]
    rows: tuple[Row, ...]
    slices: tuple[Row, ...]
    drift: tuple[Drift, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes: the attributes by their names."""
        return asdict(self)
