# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Sources: one function each, from the user's files to the two tables.

A source is a function that returns `SourceTables`; its arguments are its options under
`data.options` (and `data.path`). Third parties add theirs by the entry-point group
`palate.sources`.
"""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from palate.data.sources.amazon import amazon
from palate.data.sources.candidate_file import candidate_file
from palate.data.sources.conversation import conversation
from palate.data.sources.files import files
from palate.data.sources.lastfm import lastfm
from palate.data.sources.movielens import movielens
from palate.data.sources.preferences import preferences
from palate.data.sources.simulate import simulate
from palate.data.tables import SourceTables
from palate.errors import ConfigError, DataWarning, did_you_mean
from palate.options import read_options
from palate.plugins import plugins

Source = Callable[..., SourceTables]
BUILT_IN: dict[str, Source] = {
    "simulate": simulate,
    "files": files,
    "movielens": movielens,
    "amazon": amazon,
    "lastfm": lastfm,
    "candidate_file": candidate_file,
    "conversation": conversation,
    "preferences": preferences,
}
MAX_TITLE = 300
"""Characters of a title that are kept. A policy reads a title token by token, so that one of
thousands of characters would push everything else out of a prompt; names are shorter than this."""


def sources() -> dict[str, Source]:
    """All sources by name: the built-in ones and those of installed entry points."""
    return {**plugins("palate.sources"), **BUILT_IN}


def source_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a source, by name; raises ConfigError if there is no such source."""
    known = sources()
    if name not in known:
        raise ConfigError(f"data.source: there is no source '{name}'.{did_you_mean(name, known)}")
    return dict(inspect.signature(known[name]).parameters)


def check_options(name: str, given: dict[str, Any]) -> list[str]:
    """What is wrong with the options given to a source: one sentence each, empty if nothing."""
    source_options(name)  # refuses an unknown source
    return read_options(sources()[name], given, f"source '{name}'", key_of)[1]


def key_of(option: str) -> str:
    """The key of a source's option in the configuration."""
    return f"data.{option}" if option in ("path", "aliases") else f"data.options.{option}"


def load(name: str, options: dict[str, Any]) -> SourceTables:
    """Run a source with checked options; titles beyond `MAX_TITLE` characters are cut."""
    source_options(name)
    read, problems = read_options(sources()[name], options, f"source '{name}'", key_of)
    if problems:
        raise ConfigError(" ".join(problems))
    return with_short_titles(sources()[name](**read))


def with_short_titles(tables: SourceTables) -> SourceTables:
    """The tables with no title longer than `MAX_TITLE`; a DataWarning counts those cut."""
    items = tables.items
    if "title" not in items.column_names:
        return tables
    titles = pc.cast(items["title"], pa.string())
    n_long = pc.sum(pc.greater(pc.utf8_length(titles), MAX_TITLE)).as_py() or 0
    if n_long == 0:
        return tables
    warnings.warn(
        DataWarning(f"items: cut {n_long} of {items.num_rows} titles to {MAX_TITLE} characters."),
        stacklevel=3,
    )
    short = pc.utf8_rtrim_whitespace(pc.utf8_slice_codeunits(titles, 0, MAX_TITLE))
    place = items.column_names.index("title")
    return replace(
        tables,
        items=items.set_column(place, "title", short),
        origin={**tables.origin, "titles_cut": n_long},
    )
