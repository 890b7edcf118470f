"""An evaluated run, read from its folder: what it ranked, and all that must agree with others."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate.config.yaml_text import read_yaml
from palate.data.prepared import Prepared
from palate.errors import CheckpointError, ConfigError, did_you_mean
from palate.evaluation.ranking import Ranks
from palate.files import by_name
from palate.run_folder import FREE_TO_CHANGE, is_run

COLUMNS = ("context_id", "user_id", "item_id", "level", "rank")
PROTOCOLS = ("catalogue", "candidates")


class EvaluatedRun:
    """A run folder with an evaluation in it.

    Args:
        folder: the run folder.

    Attributes:
        seed: the run's seed.
        settings: all other keys of its configuration on which a number depends, flat:
            {"align.beta": 0.5, …}.
        metrics: what `metrics.json` holds.
        data_hashes: file → SHA-256 of the prepared data.
        lists_hash: SHA-256 of the candidate lists, or None.

    Raises:
        CheckpointError: the folder is no run, is not evaluated, or a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = by_name(Path(folder))
        if not is_run(self.folder):
            raise CheckpointError(
                f"{folder} is not a run folder. Expected one that palate run or palate evaluate "
                "has written."
            )
        for name in ("metrics.json", "ranks.parquet"):
            if not (self.folder / name).is_file():
                raise CheckpointError(
                    f"{folder} is not evaluated: it has no {name}. First: palate evaluate {folder}."
                )
        config = read_yaml((self.folder / "config.yaml").read_text("utf-8"))
        self.seed = int(config.pop("seed"))
        flat = dict(_flat(config))
        self.settings = {key: flat[key] for key in flat if key not in FREE_TO_CHANGE}
        self.metrics: dict[str, Any] = self._json("metrics.json")
        hashes = dict(self._json("data.json")["sha256"])
        self.lists_hash: str | None = hashes.pop("candidates.parquet", None)
        self.data_hashes: dict[str, str] = hashes

    @cached_property
    def data(self) -> Prepared:
        """What it was prepared from; for the log and the catalogue, not for contexts."""
        return Prepared(self.folder / "data", window=1)

    @cached_property
    def tables(self) -> dict[str, dict[str, Ranks]]:
        """[stage][protocol] → ranks."""
        path = self.folder / "ranks.parquet"
        try:
            table = pq.read_table(path)
            columns = {name: table[name].to_numpy() for name in COLUMNS}
            stages, protocols = (
                np.asarray(table[name].to_pylist(), dtype=object) for name in ("stage", "protocol")
            )
        except (pa.ArrowException, OSError, KeyError) as error:
            raise self._damaged(path.name, "is not a readable table of ranks") from error
        used = self.metrics["test_contexts"]["used"]
        found: dict[str, dict[str, Ranks]] = {}
        for stage in dict.fromkeys(stages):
            for protocol in PROTOCOLS:
                rows = (stages == stage) & (protocols == protocol)
                if rows.any():
                    one = _rank_table(protocol, {n: c[rows] for n, c in columns.items()})
                    if (contexts := len(np.unique(one.context_id))) != used:
                        raise self._damaged(
                            path.name,
                            f"holds {contexts} contexts of {stage}, {protocol}, where "
                            f"metrics.json counts {used}",
                        )
                    found.setdefault(stage, {})[protocol] = one
        return found

    def protocols(self, stage: str) -> dict[str, Ranks]:
        """Ranks of a stage by protocol.

        Raises:
            ConfigError: the run has no such stage.
        """
        if stage not in self.tables:
            hint = did_you_mean(stage, self.tables)
            raise ConfigError(f"--stage {stage}: {self.folder} has no such stage.{hint}")
        return self.tables[stage]

    def table(self, stage: str, protocol: str) -> Ranks:
        """Ranks of a stage under a protocol.

        Raises:
            ConfigError: the run has none.
        """
        of_stage = self.protocols(stage)
        if protocol not in of_stage:
            hint = did_you_mean(protocol, of_stage)
            raise ConfigError(
                f"--protocol {protocol}: {self.folder} has no such ranks of {stage}.{hint}"
            )
        return of_stage[protocol]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(name, "is missing or not JSON") from error

    def _damaged(self, name: str, how: str) -> CheckpointError:
        return CheckpointError(
            f"{self.folder / name} {how}. Evaluate again: palate evaluate {self.folder}."
        )


def _rank_table(protocol: str, columns: dict[str, NDArray]) -> Ranks:
    order = np.lexsort((columns["item_id"], columns["context_id"]))
    ordered = {name: column[order] for name, column in columns.items()}
    by_context = np.unique(ordered["context_id"], return_inverse=True)[1]
    group = by_context if protocol == "catalogue" else np.arange(len(order))
    return Ranks(group=group, **ordered)


def _flat(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(config, dict) or not config:
        return [(prefix, config)]
    return [
        pair
        for key, value in config.items()
        for pair in _flat(value, f"{prefix}.{key}".lstrip("."))
    ]
