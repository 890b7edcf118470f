"""Sources: one function each, from the user's files to the two tables.

A source is a function that returns `SourceTables`; its arguments are its options under
`data.options` (and `data.path`). Third parties add theirs by the entry-point group
`palate.sources`.
"""

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from palate.data.sources.movielens import movielens
from palate.data.sources.simulate import simulate
from palate.data.tables import SourceTables
from palate.errors import ConfigError, did_you_mean

Source = Callable[..., SourceTables]
BUILT_IN: dict[str, Source] = {"simulate": simulate, "movielens": movielens}


def sources() -> dict[str, Source]:
    """All sources by name: the built-in ones and those of installed entry points."""
    found = {entry.name: entry.load() for entry in entry_points(group="palate.sources")}
    return {**found, **BUILT_IN}


def source_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a source, by name; raises ConfigError if there is no such source."""
    known = sources()
    if name not in known:
        raise ConfigError(f"data.source: there is no source '{name}'.{did_you_mean(name, known)}")
    return dict(inspect.signature(known[name]).parameters)


def check_options(name: str, given: dict[str, Any]) -> list[str]:
    """What is wrong with the options given to a source: one sentence each, empty if nothing."""
    options = source_options(name)
    problems = [
        f"data.options.{key}: source '{name}' has no such option.{did_you_mean(key, options)}"
        for key in given
        if key not in options
    ]
    for key, value in given.items():
        wanted = options[key].annotation if key in options else Any
        try:
            TypeAdapter(Any if wanted is inspect.Parameter.empty else wanted).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            problems.append(f"{_key(key)}: {message[0].lower()}{message[1:]}; found {value!r}.")
    problems += [
        f"{_key(key)}: source '{name}' needs it."
        for key, option in options.items()
        if option.default is inspect.Parameter.empty and given.get(key) is None
    ]
    return problems


def _key(option: str) -> str:
    return "data.path" if option == "path" else f"data.options.{option}"


def load(name: str, options: dict[str, Any]) -> SourceTables:
    """Run a source with checked options."""
    if problems := check_options(name, options):
        raise ConfigError(" ".join(problems))
    return sources()[name](**options)
