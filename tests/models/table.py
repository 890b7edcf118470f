"""The table of families in docs/model-families.md: made of what the walk finds, and read again."""

import re
from collections import Counter
from pathlib import Path

from transformers import __version__
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from models.tiny import WHOLE
from models.walk import Found

PATH = Path(__file__).parents[2] / "docs" / "model-families.md"
SAID = {
    "tree": "right, by tree",
    "plain": "right, each title alone",
    "refused": "refused",
    "unbuilt": "not tried",
    "wrong": "**WRONG**",
    "crash": "**CRASH**",
}
HEAD = """\
# Families of language models

Each kind of causal language model that transformers {version} knows, as a tiny random model with
the settings of its published default that matter (windows, chunks, caps, scales, layer patterns).
Every score that Palate gives (by tree, title by title, of the catalogue, by beams), rankings,
gradients, and scores after saving and loading are compared with an ordinary `model(input_ids)`
forward of that model, one title a row: all within {tolerance} nats.

{counts}

* **right, by tree**: what titles share is read once.
* **right, each title alone**: the architecture reads no trees of titles; slower, the same numbers.
* **refused**: loading, or the first scores, end with the sentence given.
* **not tried**: transformers makes no such model here, for the reason given.

What is behind a comma is not the kind's default. Make the table again with `make model-families`;
`make test-models` fails where it does not agree with what is found.

| kind | class | scored | why |
|---|---|---|---|
"""


def row(found: Found) -> str:
    """A line of the table, without what differs from machine to machine."""
    kind = found.kind.partition(",")[0]
    made = WHOLE.get(found.kind, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])
    return f"| {found.kind} | {made} | {SAID[found.status]} | {steady(found.reason)} |"


def steady(reason: str) -> str:
    """A reason without measured nats, folders and signs that tables are made of."""
    reason = re.sub(
        r"\(by [^)]*nats\)|; each title is scored alone, which is slower\.?", "", reason
    )
    reason = re.sub(r"/\S*/tmp\w+|/tmp/\w+", "FOLDER", reason)
    reason = re.sub(r"\d+(\.\d+)?(e[-+]\d+)? nats", "some nats", reason)
    reason = re.sub(r"\s+", " ", reason.replace("|", "/").replace("*", "")).strip(" .")
    return reason if len(reason) <= 220 else reason[:217].rsplit(" ", 1)[0] + " …"


def written(all_found: list[Found], tolerance: float) -> str:
    """The whole page."""
    count = Counter(found.status for found in all_found)
    counts = ", ".join(f"{count[status]} {SAID[status]}" for status in SAID if count[status])
    head = HEAD.format(version=__version__, tolerance=tolerance, counts=f"{counts}.".capitalize())
    return head + "".join(f"{row(found)}\n" for found in all_found)


def committed() -> dict[str, str]:
    """Kind → its line, as the page has it."""
    lines = [line for line in PATH.read_text("utf-8").splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[1:]}
