"""What an audit looks at: a run folder, prepared data, or files that a source can read."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from palate.audit.candidate_rows import Repeats, is_rows_file, repeats_of, tables_of_rows
from palate.audit.changes import read_data_changes
from palate.audit.lists import Lists, lists_of
from palate.config import load_config
from palate.config.yaml_text import read_value
from palate.data.contexts import ContextSet
from palate.data.preparation import as_it_is
from palate.data.prepare import prepare
from palate.data.prepared import Prepared, sample_contexts
from palate.data.sources import load
from palate.data.tables import SourceTables
from palate.errors import ConfigError, DataError
from palate.evaluation.candidates import (
    draw_candidates,
    given_candidates,
    load_candidates,
)

MOST_LISTS = 5000
"""Lists of a split that are looked at; a seeded sample of more."""
LIST_SIZE = 20
"""Length of the lists that are drawn where there are none."""
KINDS = (
    "a run folder, a folder of prepared data, candidate files (.json, .jsonl, .csv, .tsv or "
    ".parquet, or a folder of them), or with --source the files of any source"
)


@dataclass(frozen=True)
class Material:
    """Everything the probes read.

    Attributes:
        name: what was given.
        data: the prepared data.
        ties: what preparing found about ties; empty where that is not known.
        split: the split that is judged.
        contexts: its contexts.
        lists: its candidate lists.
        earlier: the lists of the splits before, or None.
        whose: where the lists come from, for people.
        repeats: titles that candidate files list twice; None for other material.
    """

    name: str
    data: Prepared
    ties: dict[str, Any]
    split: str
    contexts: ContextSet
    lists: Lists
    earlier: Lists | None
    whose: str
    repeats: Repeats | None = None


@contextmanager
def material(
    path: Path,
    source: str | None = None,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    changes: Sequence[str] = (),
) -> Iterator[Material]:
    """What stands at a path, prepared in a temporary folder where it is not yet.

    Files are prepared as they are: no user or item is left out for being rare.

    Args:
        path: a run folder, prepared data, candidate files, or what a source reads.
        source: name of the source that reads the path; None: told from the path.
        options: the source's options.
        seed: names the lists that are drawn.
        changes: keys of the data section, such as "data.order=rows", where files are prepared.

    Raises:
        DataError: there is nothing at the path that can be audited.
        ConfigError: there is no such source, it has no such option, or a change is wrong.
    """
    path = path.expanduser()
    told = read_data_changes(changes, source)
    source, options = told.source, {**told.options, **(options or {})}
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected {KINDS}.")
    is_run = (path / "data" / "interactions.parquet").is_file()
    is_prepared = is_run or (path / "interactions.parquet").is_file()
    if is_prepared and source is None and (changes or options):
        given = f"--set {changes[0]}" if changes else f"--option {next(iter(options))}"
        raise ConfigError(
            f"{given}: {path} is prepared already. Leave it out, or audit the files that {path} "
            "was prepared from."
        )
    if source is None and is_run:
        yield _of_run(path, seed)
    elif source is None and is_prepared:
        manifest = _json(path.parent / "data.json") if path.name == "data" else {}
        yield _of_data(str(path), _prepared(path, manifest), manifest.get("ties", {}), None, seed)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            tables, repeats = _tables(path, source, options)
            folder = Path(temporary)
            how = told.laid_over(as_it_is(tables, told.preparation.get("order")))
            ties = prepare(tables, folder, how, seed)["ties"]
            data = Prepared(folder, told.window, told.preparation.get("min_history", 1))
            yield _of_data(str(path), data, ties, repeats, seed)


def _tables(
    path: Path, source: str | None, options: dict[str, Any]
) -> tuple[SourceTables, Repeats | None]:
    if source is not None:
        return load(source, {"path": str(path), **options}), None
    names = {entry.name.removesuffix(".gz") for entry in path.iterdir()} if path.is_dir() else set()
    if {"items.tsv", "train_sequences.jsonl", "sdpo_val.json", "sdpo_test.json"} <= names:
        windows = options or {"windows": "sdpo"}
        files = [file for file in path.iterdir() if file.name.startswith("sdpo_")]
        return load("lastfm", {"path": str(path), **windows}), repeats_of(files)
    if names & {"ratings.csv", "ratings.dat", "u.data"}:
        return load("movielens", {"path": str(path), **options}), None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if not any(is_rows_file(file) for file in files):
        raise DataError(f"{path} holds nothing that can be audited. Expected {KINDS}.")
    return tables_of_rows(path, options)


def _of_run(folder: Path, seed: int) -> Material:
    """A run's data, with the lists it is evaluated on."""
    manifest = _json(folder / "data.json")
    data = _prepared(folder / "data", manifest)
    written = folder / "candidates.parquet"
    if not written.is_file():
        return _of_data(str(folder), data, manifest.get("ties", {}), None, seed)
    config = load_config(folder / "config.yaml")
    contexts = sample_contexts(
        data.contexts("test"), config.evaluation.test_contexts, config.seed, "test sample"
    )
    return Material(
        name=str(folder),
        data=data,
        ties=manifest.get("ties", {}),
        split="test",
        contexts=contexts,
        lists=lists_of(contexts, load_candidates(written)),
        earlier=_earlier(data, seed),
        whose="lists of candidates.parquet",
    )


def _of_data(
    name: str, data: Prepared, ties: dict[str, Any], repeats: Repeats | None, seed: int
) -> Material:
    for split in ("test", "validation", "train"):
        found = _contexts(data, split)
        if found is None:
            continue
        lists, given = _lists(found, data.n_items, seed)
        drawn = f"lists of {LIST_SIZE} drawn as evaluate does"
        return Material(
            name=name,
            data=data,
            ties=ties,
            split=split,
            contexts=found,
            lists=lists,
            earlier=_earlier(data, seed) if split == "test" else None,
            whose="lists of the source" if given else drawn,
            repeats=repeats,
        )
    raise DataError(f"{name}: no context has a history and an answer, so nothing can be asked.")


def _contexts(data: Prepared, split: str) -> ContextSet | None:
    """The contexts of a split, those with a list where the source gives lists; None for none."""
    try:
        contexts = data.contexts(split)
    except DataError:
        return None
    lists = data.lists
    if lists is None:
        return contexts
    listed = np.array([len(lists[user]) > 0 for user in contexts.users])
    return contexts.subset(np.flatnonzero(listed)) if listed.any() else contexts


def _lists(contexts: ContextSet, n_items: int, seed: int) -> tuple[Lists, bool]:
    """The source's lists where every context has one, else drawn ones; whether they are given."""
    given = contexts.interactions.lists
    if given is not None and all(len(given[user]) for user in contexts.users):
        return lists_of(contexts, given_candidates(contexts)), True
    some = sample_contexts(contexts, MOST_LISTS, seed, "audit sample")
    return lists_of(some, draw_candidates(some, n_items, LIST_SIZE, seed)), False


def _earlier(data: Prepared, seed: int) -> Lists | None:
    contexts = _contexts(data, "validation")
    return None if contexts is None else _lists(contexts, data.n_items, seed + 1)[0]


def _prepared(folder: Path, manifest: dict[str, Any]) -> Prepared:
    how = manifest.get("preparation", {})
    return Prepared(folder, how.get("window", 1), how.get("min_history", 1))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def read_assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of a source from texts such as "windows=llara", their values read as YAML.

    Raises:
        ConfigError: a text has no "=", or its value is not YAML.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ConfigError(f"--option {pair}: expected NAME=VALUE, such as windows=llara.")
        if name in options:
            raise ConfigError(f"--option {pair}: {name} is given twice; choose one value.")
        try:
            options[name] = read_value(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--option {pair}: {value!r} is not a YAML value. Quote it."
            ) from error
    return options
