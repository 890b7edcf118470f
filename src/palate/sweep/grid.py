"""The grid of a sweep: values of some keys, and a configuration for each combination of them."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from palate.config import RunConfig, load_config
from palate.config.yaml_text import read_value
from palate.errors import ConfigError

OPENING, CLOSING, QUOTES = "[{(", "]})", "\"'"
LONGEST_VALUE, LONGEST_NAME = 40, 150
"""Characters of a value and of a setting in the name of a folder."""


@dataclass(frozen=True)
class Setting:
    """One combination of the values.

    Attributes:
        name: readable, and unique in the sweep; good for a folder.
        values: key → value.
        config: the configuration that they make, with the first seed.
    """

    name: str
    values: dict[str, Any]
    config: RunConfig


def read_over(assignments: Sequence[str]) -> dict[str, list[Any]]:
    """Keys and their values from texts such as "align.beta=0.5,1".

    Each value is read as `--set` reads it; commas within brackets or quotes separate nothing.

    Raises:
        ConfigError: a text is no such assignment, a value is empty or not YAML, or a key comes
            twice.
    """
    over: dict[str, list[Any]] = {}
    for assignment in assignments:
        key, separator, texts = assignment.partition("=")
        if not separator or not key or not texts:
            raise ConfigError(
                f"--over {assignment}: expected key=value,value, such as align.beta=0.5,1."
            )
        if key in over:
            raise ConfigError(f"--over {key} is given twice; name all its values in one.")
        over[key] = [_value(text, assignment) for text in _split(texts)]
    return over


def settings_of(
    config: Path, over: Mapping[str, Sequence[Any]], changes: Sequence[str] = ()
) -> list[Setting]:
    """All combinations of values; the last key's value changes fastest.

    Args:
        config: YAML file.
        over: key → its values.
        changes: such as "align.beta=0.5", the same for all.

    Raises:
        ConfigError: a combination is no valid configuration, or two of them make the same one.
    """
    for key, values in over.items():
        if key == "seed":
            raise ConfigError("--over seed: use --seeds N for N seeds, from that of CONFIG on.")
        if not values:
            raise ConfigError(f"--over {key}: there is no value.")
    found: list[Setting] = []
    short = short_names(list(over))
    names: dict[str, int] = {}
    known: dict[str, dict[str, Any]] = {}
    for combination in itertools.product(*over.values()):
        given = dict(zip(over, combination, strict=True))
        assignments = [f"{key}={json.dumps(value, default=str)}" for key, value in given.items()]
        try:
            made = load_config(config, [*changes, *assignments])
        except ConfigError as error:
            where = f"with {', '.join(assignments)}: " if assignments else ""
            raise ConfigError(f"{where}{error}") from error
        content = made.model_dump(mode="json")
        values = {key: _as_read(value, content, key) for key, value in given.items()}
        if (same := known.get(json.dumps(content))) is not None:
            raise ConfigError(f"--over: {same} and {values} are the same configuration; name one.")
        known[json.dumps(content)] = values
        name = _name({short[key]: value for key, value in values.items()})
        names[name] = names.get(name, 0) + 1
        found.append(Setting(f"{name}~{names[name]}" if names[name] > 1 else name, values, made))
    return found


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key → as few of its last parts as tell it from the others: align.beta → beta."""
    short = {}
    for key in keys:
        parts = key.split(".")
        others = [other.split(".") for other in keys if other != key]
        sizes = range(1, len(parts))
        alone = (n for n in sizes if all(other[-n:] != parts[-n:] for other in others))
        short[key] = ".".join(parts[-next(alone, len(parts)) :])
    return short


def without(content: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A nested configuration without some of its keys."""
    kept = json.loads(json.dumps(content))
    for key in keys:
        *sections, last = key.split(".")
        inner = kept
        for section in sections:
            inner = inner.get(section) or {}
        inner.pop(last, None)
    return kept


def _split(texts: str) -> list[str]:
    """At commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in texts:
        if character == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES and (depth or not parts[-1][:-1].strip()):
            quote = character
        else:
            depth += (character in OPENING) - (character in CLOSING)
    return parts


def _value(text: str, assignment: str) -> Any:
    if not text.strip():
        raise ConfigError(f"--over {assignment}: a value is empty; write null for none.")
    try:
        return read_value(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--over {assignment}: '{text}' is not a YAML value.") from error


def _as_read(value: Any, content: dict[str, Any], key: str) -> Any:
    """A plain value as the configuration has it (1e-3 is 0.001), others as given."""
    read: Any = content
    for part in key.split("."):
        read = read[part]
    return value if isinstance(read, dict | list) else read


def _name(values: Mapping[str, Any]) -> str:
    """Without characters that a shell, DuckDB (key=value) or a file system reads otherwise."""
    name = "+".join(f"{key}-{_slug(value)}" for key, value in values.items()) or "base"
    return _cut(name, LONGEST_NAME)


def _slug(value: Any) -> str:
    if isinstance(value, int | float):
        return json.dumps(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _cut(re.sub(r"[^\w.-]+", "-", text).strip("-") or "default", LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[: longest - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
