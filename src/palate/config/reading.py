"""Reading a configuration: YAML and changes laid over it, with every problem named at once."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from palate.config.names import unknown_names
from palate.config.sections import RunConfig
from palate.config.yaml_text import read_value, read_yaml
from palate.errors import ConfigError, did_you_mean

FAULTS = (yaml.YAMLError, ValueError, RecursionError)
"""What reading raises of a text that is no YAML, not UTF-8, or too long or deep to be read."""


def load_config(path: Path, changes: list[str] | None = None) -> RunConfig:
    """A configuration from YAML, with changes such as "align.beta=0.5" laid over it.

    Raises:
        ConfigError: the file is missing or not YAML, or anything in it is wrong; all problems are
            named at once.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Expected a YAML file.")
    if not path.is_file():
        near = get_close_matches(str(path), [str(p) for p in path.parent.glob("*.yaml")], n=1)
        raise ConfigError(f"{path} does not exist.{f' Did you mean {near[0]}?' if near else ''}")
    try:
        content = read_yaml(path.read_text("utf-8")) or {}
    except FAULTS as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path} is not readable as YAML: {line}.") from error
    except ConfigError as error:
        raise ConfigError(f"{path} {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no keys; expected sections such as data: and align:.")
    for change in changes or []:
        _lay_over(content, change)
    typed = {key.strip(): value for key, _, value in (one.partition("=") for one in changes or [])}
    return parse_config(content, typed)


def parse_config(
    content: dict[str, Any], typed: Mapping[str, str] = MappingProxyType({})
) -> RunConfig:
    """A checked configuration from nested dictionaries; every problem is in one ConfigError.

    Args:
        content: sections and their keys.
        typed: key → the text of its value, of keys given by `--set`.
    """
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        problems = [_problem(entry, typed) for entry in error.errors()]
        raise ConfigError("\n".join([*problems, *unknown_names(content)])) from error


def read_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Changes such as "data.split=by_user" alone, as nested dictionaries, not checked yet.

    Raises:
        ConfigError: a change has no "=", or its value is not YAML.
    """
    content: dict[str, Any] = {}
    for change in changes:
        _lay_over(content, change)
    return content


def checked(config: RunConfig) -> RunConfig:
    """A configuration checked again: parts may have been set or copied since it was made.

    Raises:
        ConfigError: anything in it is wrong; all problems are named at once.
    """
    return parse_config(config.model_dump(warnings=False))


def source_arguments(config: RunConfig) -> dict[str, Any]:
    """What the source is called with; a source that takes a seed gets the run's unless given."""
    from palate.data.sources import source_options

    known = source_options(config.data.source)
    own = {"path": config.data.path, "aliases": config.data.aliases}
    given = {key: value for key, value in own.items() if value}
    seed = {"seed": config.seed} if "seed" in known else {}
    return {**seed, **given, **config.data.options}


def _problem(entry: Any, typed: Mapping[str, str]) -> str:
    """One sentence for one of pydantic's complaints."""
    where = ".".join(str(part) for part in entry["loc"])
    found = entry.get("input")
    if entry["type"] == "extra_forbidden":
        section: Any = RunConfig
        for part in entry["loc"][:-1]:
            wanted = section.model_fields[str(part)].annotation
            kinds = [wanted, *get_args(wanted)]  # a section, or a section or nothing
            section = next(kind for kind in kinds if hasattr(kind, "model_fields"))
        hint = did_you_mean(entry["loc"][-1], section.model_fields)
        return f"{where}: there is no such key.{hint}"
    if entry["type"] == "value_error":
        return f"{where}: {entry['msg'].removeprefix('Value error, ')}."
    if entry["type"] == "model_type":
        return f"{where}: expected keys and values, {{}} for the defaults; found {found!r}."
    if entry["type"] == "list_type":
        return f"{where}: expected a list, such as [{found}]; found {found!r}."
    message = entry["msg"][0].lower() + entry["msg"][1:]
    quoted = ""
    if entry["type"] == "string_type" and isinstance(found, int | float):
        quoted = " Put it in quotation marks to have the text"
        if where in typed:  # a shell takes the outer ones
            quoted += f": --set '{where}=\"{typed[where].strip()}\"'"
        elif not isinstance(found, bool):  # which may have been yes, on or true
            quoted += f": '{found}'"
        quoted += "."
    return f"{where}: {message}; found {found!r}.{quoted}"


def _lay_over(content: dict[str, Any], change: str) -> None:
    key, separator, value = change.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {change}: expected key=value, such as align.beta=0.5.")
    *sections, last = key.split(".")
    for section in sections:
        if content.get(section) is None:
            content[section] = {}
        content = content[section]
        if not isinstance(content, dict):
            raise ConfigError(f"--set {change}: '{section}' is a value and has no parts.")
    try:
        content[last] = read_value(value)
    except FAULTS as error:
        raise ConfigError(
            f"--set {change}: '{value}' is not a YAML value. Put quotation marks around a text: "
            f"--set '{key}=\"…\"'."
        ) from error
    except ConfigError as error:
        raise ConfigError(f"--set {change}: {error}") from error
