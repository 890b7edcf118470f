"""What a report reads of a run folder."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.audit import Audit, read_audit
from palate.config import RunConfig, load_config
from palate.errors import CheckpointError
from palate.files import by_name
from palate.run_folder import MARK, is_run


@dataclass(frozen=True)
class RunFiles:
    """The files of an evaluated run; those that it need not have are None or empty.

    Attributes:
        folder: the run folder.
        config: its configuration.
        config_text: the same as it stands in `config.yaml`, without the first line.
        versions: that first line's: what the run was made with.
        metrics: `metrics.json`.
        manifest: `data.json`.
        ranks: `ranks.parquet`.
        log: lines of `train.jsonl`.
        examples: `examples.parquet`.
        audit: `audit.json`.
    """

    folder: Path
    config: RunConfig
    config_text: str
    versions: str
    metrics: dict[str, Any]
    manifest: dict[str, Any]
    ranks: pa.Table | None
    log: list[dict[str, Any]]
    examples: pa.Table | None
    audit: Audit | None

    @property
    def has_data(self) -> bool:
        """Whether the prepared data is still there."""
        return (self.folder / "data" / "interactions.parquet").is_file()

    @property
    def is_aligned(self) -> bool:
        """Whether there is more than imitation."""
        return "aligned" in self.metrics

    @property
    def name(self) -> str:
        """What the run is called: its folder."""
        return self.folder.resolve().name


def read_run(folder: Path) -> RunFiles:
    """Everything a report needs of a run folder.

    Raises:
        CheckpointError: it is no run folder, is not evaluated, or a file of it cannot be read.
    """
    folder = by_name(folder)
    if not is_run(folder):
        raise CheckpointError(
            f"{folder} is not a run folder. Expected one that palate run or palate evaluate has "
            "written."
        )
    if not (folder / "metrics.json").is_file():
        raise CheckpointError(f"{folder} is not evaluated yet. First: palate evaluate {folder}.")
    first, _, text = (folder / "config.yaml").read_text("utf-8").partition("\n")
    return RunFiles(
        folder=folder,
        config=load_config(folder / "config.yaml"),
        config_text=text,
        versions=first.removeprefix(MARK),
        metrics=_json(folder / "metrics.json"),
        manifest=_json(folder / "data.json") if (folder / "data.json").is_file() else {},
        ranks=_table(folder / "ranks.parquet"),
        log=_lines(folder / "train.jsonl"),
        examples=_table(folder / "examples.parquet"),
        audit=_audit(folder),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise _unreadable(path) from error


def _audit(folder: Path) -> Audit | None:
    try:
        return read_audit(folder)
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder / "audit.json") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that a killed run was writing is left out."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def _table(path: Path) -> pa.Table | None:
    if not path.is_file():
        return None
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: it is cut off or was changed by hand. Make it anew with: "
        f"palate evaluate {path.parent}."
    )
