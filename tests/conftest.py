"""What tests share: real data where it is present, and one small prepared log."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation
from palate.data.tables import SourceTables
from palate.policies import LanguagePolicy

SHARED = Path(__file__).parents[2] / "shared"


def shared(name: str) -> Path:
    """A folder of real data beside the repository; skips the test where there is none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout (../shared)")
    return path


def command(
    *arguments: object, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`palate` as a user types it, in a process of its own.

    Args:
        arguments: behind `palate`.
        folder: where to; None for here.
        environment: variables beside this process's own.
    """
    return subprocess.run(
        [sys.executable, "-m", "palate.cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


class Stop(Exception):
    """A run that is cut short."""


def ever_better(first: int = 0, stop: float = math.inf) -> Callable[[], dict[str, float]]:
    """Validations whose loss falls each time, so that the last checkpoint is the best.

    Args:
        first: number of the first of them: how many a run that goes on has behind it.
        stop: number of the one that raises `Stop`.
    """
    numbers = itertools.count(first)

    def validation() -> dict[str, float]:
        number = next(numbers)
        if number == stop:
            raise Stop
        return {"loss": -number}

    return validation


def log(rows: list[tuple], columns: str = "user_id item_id timestamp rating") -> SourceTables:
    """Source tables from rows; every item mentioned gets a title."""
    names = columns.split()
    interactions = pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})
    ids = sorted(set(interactions["item_id"].to_pylist()))
    return SourceTables(
        interactions, pa.table({"item_id": ids, "title": [f"Item {i}" for i in ids]})
    )


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A simulated log of 60 users and 40 items, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    world = Simulation(n_users=60, n_items=40, seed=3, visits=16)
    tables = SourceTables(world.interactions(), world.items())
    prepare(tables, folder, Preparation(k_core=2), seed=3)
    return Prepared(folder, window=1)


@pytest.fixture
def small_policy(small_data: Prepared) -> LanguagePolicy:
    """An untrained tiny language model over the small log's items."""
    return LanguagePolicy.create("tiny", small_data.items, "history", max_history=6, seed=1)
