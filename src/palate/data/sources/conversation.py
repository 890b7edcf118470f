"""Dialogues in which a recommender names items: several right answers for one context."""

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pyarrow as pa
from pydantic import PositiveInt

from palate.data.reading import (
    FileContent,
    find_file,
    listed,
    place_of,
    read_file,
    read_json_rows,
    text_of,
    texts_of,
    value_of,
)
from palate.data.reading.bad_rows import OnBadRows, read_each
from palate.data.reading.json_rows import Row
from palate.data.sources.candidate_file import split_of
from palate.data.sources.dialogue_items import read_dialogue_items
from palate.data.sources.titles import ItemId, Titles, ids_by_title
from palate.data.tables import SourceTables
from palate.errors import DataError, DataWarning

KEYS = ("dialog_id", "turn_id", "context", "rec")
JSONL = re.compile(r"\.jsonl(\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Turn:
    """One answer of the recommender: what was said before it, and which items it names."""

    dialogue: str
    number: int
    utterances: list[str]
    answers: dict[ItemId, str]
    split: str | None
    place: str


def conversation(
    path: str | Path,
    items: str | None = None,
    max_characters: PositiveInt = 2000,
    mentioned: Literal["drop", "keep"] = "drop",
    on_bad_rows: OnBadRows = "error",
) -> SourceTables:
    """Dialogues with recommended items, such as ReDial in the form of iEvaLM (arXiv 2305.13112).

    Each dialogue is a user; a turn's right answers are the items the recommender then named.

    Args:
        path: a folder, or one .jsonl file (.gz allowed), of objects with dialog_id, turn_id,
            context (utterances so far) and rec (titles). Files of a folder that are named train,
            valid and test give the splits.
        items: the catalogue: .json (id → name, genre), .jsonl, .csv, .tsv or .parquet with a
            title; by default items.json in the folder.
        max_characters: a dialogue is cut to its last utterances that fit in so many.
        mentioned: "drop" leaves out right answers that the context already names, since they
            leak; contexts that lose all answers go with them.
        on_bad_rows: "error" stops at the first row that is wrong; "drop" leaves such rows out and
            counts them.

    Raises:
        DataError: a file is missing or not whole, a row lacks a key, or a title is unknown.
    """
    path = Path(path).expanduser()
    folder = path.parent if path.is_file() else path
    dialogue_files = _dialogue_files(path, items)
    contents = [read_file(file, "JSON lines of dialogue turns") for file in dialogue_files]
    items_path = find_file(folder, "items.json") if items is None else place_of(items, folder)
    items_file = read_file(items_path, "the items (.json, .jsonl, .csv, .tsv or .parquet)")
    catalogue = read_dialogue_items(items_file)
    known = ids_by_title(catalogue, items_file.name)
    titles = Titles(known, hint=lambda *_: f"Add it to {items_file.name}.")
    splits = [split_of(file.name) if len(contents) > 1 else None for file in contents]
    turns, dropped = [], 0
    for split, file in zip(splits, contents, strict=True):
        found, bad = _turns(file, split, titles, on_bad_rows)
        turns += found
        dropped += bad
    turns = _in_order(_with_own_ids(turns))
    kept, counts = _with_fair_answers(turns, mentioned, str(path))
    options = {
        "items": items,
        "max_characters": max_characters,
        "mentioned": mentioned,
        "on_bad_rows": on_bad_rows,
    }
    return SourceTables(
        interactions=_interactions(kept),
        items=catalogue,
        origin={
            "source": "conversation",
            "path": str(path),
            "options": options,
            "sha256": {file.name: file.sha256 for file in (*contents, items_file)},
            "rows_dropped": dropped,
            "counts": counts,
        },
        texts=_texts(turns, kept, max_characters),
        ordered=True,
    )


def _dialogue_files(path: Path, items: str | None) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected a .jsonl file of dialogues or a folder.")
    if path.is_file():
        return [path]
    is_items = {Path(items).name} if items else set()
    lines = (file for file in sorted(path.iterdir()) if JSONL.search(file.name))
    files = [file for file in lines if file.name not in is_items | {"items.jsonl"}]
    if not files:
        raise DataError(f"{path} has no .jsonl file of dialogues; found {listed(path)}.")
    if len(files) > 1:
        told = [split_of(file.name) for file in files]
        if None in told or len(set(told)) < len(told):
            raise DataError(
                f"{path} has several .jsonl files: {', '.join(file.name for file in files)}. "
                "Expected one, or one each named train, valid and test; give one as data.path."
            )
    return files


def _turns(
    file: FileContent, split: str | None, titles: Titles, on_bad_rows: OnBadRows
) -> tuple[list[Turn], int]:
    def read(row: Row, place: str) -> Turn:
        dialogue, number, context, named = (value_of(row, key, place, KEYS) for key in KEYS)
        if type(number) is not int:
            raise DataError(f"{place}: 'turn_id' is {number!r}. Expected a whole number.")
        if not isinstance(context, list) or not all(isinstance(said, str) for said in context):
            raise DataError(f"{place}: 'context' is not a list of texts. Expected the utterances.")
        answers = {
            titles.id_of(title, f"{place}, rec"): title for title in texts_of(named, "rec", place)
        }
        name = text_of(str(dialogue) if type(dialogue) is int else dialogue, "dialog_id", place)
        return Turn(
            name, number, [" ".join(said.split()) for said in context], answers, split, place
        )

    return read_each(read_json_rows(file), read, on_bad_rows, file.name)


def _with_own_ids(turns: list[Turn]) -> list[Turn]:
    """Dialogue ids that occur in several files get the name of their split in front."""
    files_of: dict[str, set[str | None]] = {}
    for turn in turns:
        files_of.setdefault(turn.dialogue, set()).add(turn.split)
    if all(len(files) == 1 for files in files_of.values()):
        return turns
    return [replace(turn, dialogue=f"{turn.split} {turn.dialogue}") for turn in turns]


def _in_order(turns: list[Turn]) -> list[Turn]:
    """Turns by dialogue, in order of first appearance, and number."""
    seen: dict[tuple[str, int], str] = {}
    for turn in turns:
        if first := seen.get((turn.dialogue, turn.number)):
            raise DataError(
                f"{turn.place}: turn {turn.number} of dialogue {turn.dialogue!r} was already given "
                f"in {first}. Expected each turn once."
            )
        seen[turn.dialogue, turn.number] = turn.place
    places = {dialogue: i for i, dialogue in enumerate(dict.fromkeys(t.dialogue for t in turns))}
    return sorted(turns, key=lambda turn: (places[turn.dialogue], turn.number))


def _with_fair_answers(
    turns: list[Turn], mentioned: str, name: str
) -> tuple[list[Turn], dict[str, int]]:
    """The turns that keep an answer not given away or given before, and counts of what went."""
    kept, counts = turns, {}
    if mentioned == "drop":
        kept, counts["answers_mentioned_before"] = _without_mentioned(turns)
    kept, counts["answers_repeated"] = _without_repeats(kept)
    kept = [turn for turn in kept if turn.answers]
    counts["contexts_without_answer"] = len(turns) - len(kept)
    if not kept:
        raise DataError(
            f"{name}: no context keeps a right answer. Expected titles in 'rec' that the context "
            "does not name; --set data.options.mentioned=keep keeps those as well."
        )
    if leaked := counts.get("answers_mentioned_before"):
        warnings.warn(
            DataWarning(
                f"{name}: dropped {leaked} of {_n_answers(turns)} right answers, named in their "
                f"context; {len(turns) - len(kept)} of {len(turns)} contexts are left without one."
            ),
            stacklevel=3,
        )
    return kept, counts


def _without_mentioned(turns: list[Turn]) -> tuple[list[Turn], int]:
    kept = []
    for turn in turns:
        said = normalize("NFC", "\n".join(turn.utterances)).casefold()
        new = {item: title for item, title in turn.answers.items() if not _names(said, title)}
        kept.append(replace(turn, answers=new))
    return kept, _n_answers(turns) - _n_answers(kept)


def _names(said: str, title: str) -> bool:
    """Whether a title stands in a text, as whole words and in any case."""
    words = " ".join(normalize("NFC", title).split()).casefold()
    pattern = rf"(?<!\w){re.escape(words)}(?!\w)"
    return re.search(pattern, said) is not None


def _without_repeats(turns: list[Turn]) -> tuple[list[Turn], int]:
    """An item stays a right answer only at the first turn of its dialogue that names it."""
    kept: list[Turn] = []
    named: dict[str, set[ItemId]] = {}
    for turn in turns:
        before = named.setdefault(turn.dialogue, set())
        new = {item: title for item, title in turn.answers.items() if item not in before}
        before.update(turn.answers)
        kept.append(replace(turn, answers=new))
    return kept, _n_answers(turns) - _n_answers(kept)


def _n_answers(turns: list[Turn]) -> int:
    return sum(len(turn.answers) for turn in turns)


def _interactions(turns: list[Turn]) -> pa.Table:
    rows = [(turn, item) for turn in turns for item in turn.answers]
    columns = {
        "user_id": [turn.dialogue for turn, _ in rows],
        "item_id": [item for _, item in rows],
        "turn": [turn.number for turn, _ in rows],
    }
    if any(turn.split for turn in turns):
        columns["split"] = [turn.split for turn, _ in rows]
    return pa.table(columns)


def _texts(turns: list[Turn], kept: list[Turn], max_characters: int) -> pa.Table:
    """What was said before each kept turn, with speakers where all turns alternate alike.

    The recommender speaks next, so the last utterance of a context is the seeker's. Within one
    dialogue all contexts must then be odd or all even; where they are not, somebody spoke twice.
    """
    parities: dict[str, set[int]] = {}
    for turn in turns:
        parities.setdefault(turn.dialogue, set()).add(len(turn.utterances) % 2)
    texts = [
        _text(turn.utterances, len(parities[turn.dialogue]) == 1, max_characters) for turn in kept
    ]
    users, numbers = [turn.dialogue for turn in kept], [turn.number for turn in kept]
    return pa.table({"user_id": users, "turn": numbers, "text": texts})


def _text(utterances: list[str], alternating: bool, max_characters: int) -> str:
    lines: list[str] = []
    room = max_characters
    for back, said in enumerate(reversed(utterances)):
        if not said:
            continue
        speaker = ("Seeker: ", "Recommender: ")[back % 2] if alternating else ""
        if lines and len(speaker) + len(said) > room:
            break
        start = max(0, len(speaker) + len(said) - room)
        lines.append(speaker + said[start:])
        room -= len(lines[-1]) + 1
    return "\n".join(reversed(lines))
