"""What `palate audit` is told of the data: options of the source and keys of the data section."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from palate.config import RunConfig
from palate.config.reading import parse_config, read_changes
from palate.data.prepare import Preparation
from palate.data.sources import sources
from palate.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class DataChanges:
    """Keys of the data section that differ from how an audit reads files.

    Attributes:
        source: the source that reads the path; None: told from the path.
        options: the source's options.
        preparation: fields of a `Preparation` → their values.
        window: interactions among which a context's positives lie.
    """

    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] = field(default_factory=dict)
    window: int = 1

    def laid_over(self, how: Preparation) -> Preparation:
        """How to prepare, with what was said laid over it."""
        return replace(how, **self.preparation)


def read_data_changes(changes: Sequence[str], source: str | None = None) -> DataChanges:
    """Changes such as "data.order=rows" and "data.options.windows=llara", checked.

    Args:
        changes: what follows `--set`, as in a run.
        source: the source that is named already.

    Raises:
        ConfigError: a change is of no key of the data section, or its value is wrong.
    """
    given = read_changes(changes)
    if others := [key for key in given if key != "data"]:
        raise ConfigError(
            f"--set {others[0]}: an audit reads the keys of data alone, such as "
            "data.split=by_user. Leave it out."
        )
    data = given.get("data") or {}
    if not isinstance(data, dict):
        raise ConfigError(f"--set data={data}: expected a key of data, such as data.order=rows.")
    if "path" in data:
        raise ConfigError("--set data.path: the path stands after `palate audit`. Leave it out.")
    named = source or data.get("source")
    if named is not None and named not in sources():
        raise ConfigError(f"source '{named}' is unknown.{did_you_mean(named, sources())}")
    own = {key: value for key, value in data.items() if key not in ("options", "source", "aliases")}
    options = {**(data.get("options") or {})}
    if data.get("aliases"):
        options["aliases"] = data["aliases"]
    config = parse_config({"data": own})
    return DataChanges(named, options, _preparation(config, own), _window(config, own))


def _preparation(config: RunConfig, given: dict[str, Any]) -> dict[str, Any]:
    known = {one.name for one in fields(Preparation)} - {"window"}
    chosen = {key: getattr(config.data, key) for key in given if key in known}
    chosen = {key: tuple(one) if isinstance(one, list) else one for key, one in chosen.items()}
    window = _window(config, given)
    return chosen if window == 1 else {**chosen, "window": window}


def _window(config: RunConfig, given: dict[str, Any]) -> int:
    return config.data.window if given.get("positives") == "window" else 1
