"""Preference rows: what was chosen after a prompt, and what was rejected."""

import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa

from palate.data.reading import FileContent, listed, place_of, read_file, read_json_rows
from palate.data.reading.bad_rows import OnBadRows, read_each
from palate.data.reading.json_rows import Row
from palate.data.reading.members import PARQUET
from palate.data.sources.candidate_file import TITLE_NAMES, split_of
from palate.data.sources.item_table import marks_said, read_items, read_parquet
from palate.data.sources.preference_forms import Preference, read_preference
from palate.data.sources.titles import Titles, ids_by_title, items_of_titles
from palate.data.tables import SourceTables
from palate.errors import DataError, DataWarning
from palate.randomness import permutation

EXPECTED = "preference rows (.json, .jsonl, .json.gz, .jsonl.gz or .parquet)"
ENDING = re.compile(r"\.(jsonl?(\.gz)?|parquet)$", re.IGNORECASE)
PART = re.compile(r"-\d{5}-of-\d{5}\.")
"""In the names of the numbered parts of one data set."""
SPLITS = ("train", "validation", "test")
DESCRIPTION = "dataset_info.json"
"""What LLaMA-Factory keeps beside its data sets."""


def preferences(
    path: str | Path,
    items: str | None = None,
    same_prompt: Literal["apart", "together"] = "apart",
    on_bad_rows: OnBadRows = "error",
) -> SourceTables:
    """Preference rows of TRL and LLaMA-Factory: prompt, chosen and rejected titles.

    Each row becomes a user with one context: its prompt is the context's text, verbatim; its
    chosen titles are the right answers; chosen and rejected together are its list, in an order
    drawn by the row's number, which tells nothing about which of them was chosen.

    Args:
        path: a file, split by user; or a folder with one, or with files named train, val and test.
        items: .csv, .tsv or .parquet with the catalogue's titles, in a column title or artist;
            without one the catalogue is every title that occurs.
        same_prompt: "together" makes one context of all rows of a split that have the same
            prompt, such as the pairs into which a list of rejected titles was taken apart.
        on_bad_rows: "error" stops at the first row that is wrong, such as
            one that rejects what it chose; "drop" leaves such rows out and counts them.

    Raises:
        DataError: a file is missing or not whole; a row lacks prompt, chosen or rejected, holds
            something else than texts, or rejects what it chose; or the catalogue lacks a title.
    """
    path = Path(path).expanduser()
    files = _files(path, items)
    contents = [(split, read_file(file, EXPECTED)) for split, file in files]
    hashes = {file.name: file.sha256 for _, file in contents}
    catalogue, titles, marks = None, Titles(grows=True), {}
    if items is not None:
        folder = path.parent if path.is_file() else path
        items_file = read_file(place_of(items, folder), "a file of titles (.csv, .tsv or .parquet)")
        hashes[items_file.name] = items_file.sha256
        catalogue = read_items(items_file, {}, numbered=True, title_names=TITLE_NAMES)
        marks = marks_said(items_file)
        known = ids_by_title(catalogue, items_file.name)
        titles = Titles(known, hint=lambda *_: f"Add it to {items_file.name}.")
    rows, dropped = [], 0
    for split, file in contents:
        found, bad = read_preferences(file, titles, on_bad_rows)
        rows += [(split, row) for row in found]
        dropped += bad
    n_rows, repeats = len(rows), sum(row.repeats for _, row in rows)
    if same_prompt == "together":
        rows = _together(rows, str(path))
    elif contents[0][0] is None:
        _warn_of_shared_prompts([row.prompt for _, row in rows], str(path))
    interactions, lists, texts = _tables(rows, titles)
    return SourceTables(
        interactions=interactions,
        items=items_of_titles(titles.ids) if catalogue is None else catalogue,
        origin={
            "source": "preferences",
            "path": str(path),
            "options": {
                "items": items,
                "same_prompt": same_prompt,
                "on_bad_rows": on_bad_rows,
            },
            "sha256": hashes,
            **marks,
            "rows_dropped": dropped,
            "counts": {"rows": n_rows, "contexts": len(rows), "titles_repeated": repeats},
        },
        lists=lists,
        texts=texts,
        ordered=True,
    )


def read_preferences(
    file: FileContent, titles: Titles | None = None, on_bad_rows: OnBadRows = "error"
) -> tuple[list[Preference], int]:
    """The preferences of one file, and how many rows were dropped.

    Args:
        file: JSON, JSON lines or Parquet.
        titles: of a catalogue that must hold all titles; None, or titles that grow, take any.
        on_bad_rows: as in `preferences`.

    Raises:
        DataError: names file, row and key of the first row that is wrong.
    """
    if file.content.startswith(PARQUET):
        found = enumerate(read_parquet(file).to_pylist(), 1)
        rows = [(f"{file.name} row {number}", row) for number, row in found]
        if not rows:
            raise DataError(f"{file.name} holds no rows. Expected {EXPECTED}.")
    else:
        rows = read_json_rows(file)

    def read(row: Row, place: str) -> Preference:
        found = read_preference(row, place)
        if titles is not None and not titles.grows:
            for key, said in (("chosen", found.chosen), ("rejected", found.rejected)):
                for title in said:
                    titles.id_of(title, f"{place}, {key}")
        return found

    return read_each(rows, read, on_bad_rows, file.name)


def _together(
    rows: list[tuple[str | None, Preference]], name: str
) -> list[tuple[str | None, Preference]]:
    """One preference for all rows of a split that have one prompt, where the first of them was.

    What one row chose and another rejected counts as chosen; a DataWarning tells how much.
    """
    found: dict[tuple[str | None, str], list[Preference]] = {}
    for split, row in rows:
        found.setdefault((split, row.prompt), []).append(row)
    merged, torn = [], 0
    for (split, _), several in found.items():
        chosen = dict.fromkeys(title for row in several for title in row.chosen)
        rejected = dict.fromkeys(title for row in several for title in row.rejected)
        left = [title for title in rejected if title not in chosen]
        torn += len(rejected) - len(left)
        if left:
            merged.append((split, replace(several[0], chosen=list(chosen), rejected=left)))
    if not merged:
        raise DataError(
            f"{name}: no prompt keeps a rejected title when its rows are put together. Keep them "
            "apart with --set data.options.same_prompt=apart."
        )
    if torn:
        warnings.warn(
            DataWarning(
                f"{name}: {torn} titles are rejected in one row and chosen in another with the "
                f"same prompt; they count as chosen, and {len(found) - len(merged)} of "
                f"{len(found)} prompts are left out for want of a rejected title."
            ),
            stacklevel=3,
        )
    return merged


def _warn_of_shared_prompts(prompts: list[str], name: str) -> None:
    if (n_shared := len(prompts) - len(set(prompts))) == 0:
        return
    warnings.warn(
        DataWarning(
            f"{name}: {n_shared} of {len(prompts)} rows repeat the prompt of another row, so some "
            "prompts will be both trained on and held out. --set "
            "data.options.same_prompt=together makes one context of them."
        ),
        stacklevel=3,
    )


def _tables(
    rows: Iterable[tuple[str | None, Preference]], titles: Titles
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Interactions, lists and texts; every row is a user with the turn 0."""
    answers, shown, said = [], [], []
    for user, (split, row) in enumerate(rows):
        chosen = [titles.id_of(title, f"{row.place}, chosen") for title in row.chosen]
        rejected = [titles.id_of(title, f"{row.place}, rejected") for title in row.rejected]
        listed_items = [*chosen, *rejected]
        answers += [(user, item, split) for item in chosen]
        order = permutation(len(listed_items), "preferences", user)
        shown += [(user, listed_items[place]) for place in order]
        said.append((user, row.prompt))
    users, items, splits = (list(column) for column in zip(*answers, strict=True))
    columns = {"user_id": users, "item_id": items, "turn": [0] * len(users)}
    if splits[0] is not None:
        columns["split"] = splits
    listed_users, listed_items = (list(column) for column in zip(*shown, strict=True))
    text_users, prompts = (list(column) for column in zip(*said, strict=True))
    return (
        pa.table(columns),
        pa.table({"user_id": listed_users, "item_id": listed_items}),
        pa.table({"user_id": text_users, "turn": [0] * len(text_users), "text": prompts}),
    )


def _files(path: Path, items: str | None) -> list[tuple[str | None, Path]]:
    """(split, file) in the order of the splits; split None where there is one file of rows."""
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected {EXPECTED}, or a folder of them.")
    if path.is_file():
        if not ENDING.search(path.name):
            raise DataError(f"{path.name} has an unknown ending. Expected {EXPECTED}; rename it.")
        return [(None, path)]
    others = {DESCRIPTION} | ({Path(items).name} if items else set())
    files = [
        file
        for file in sorted(path.iterdir())
        if file.is_file() and ENDING.search(file.name) and file.name not in others
    ]
    if len(files) == 1:
        return [(None, files[0])]
    found = {split: [file for file in files if split_of(file.name) == split] for split in SPLITS}
    for split, several in found.items():
        if len(several) > 1 and not all(PART.search(file.name) for file in several):
            raise DataError(
                f"{path}: {', '.join(file.name for file in several)} all look like the {split} "
                "file. Expected one; keep the others in another folder."
            )
    named = [split for split in SPLITS if found[split]]
    if not named:
        raise DataError(
            f"{path} has no file of {EXPECTED} named train, val or test; found {listed(path)}. "
            "Rename them, or give one file as data.path."
        )
    return [(split if len(named) > 1 else None, file) for split in named for file in found[split]]
