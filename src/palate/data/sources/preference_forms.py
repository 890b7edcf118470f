"""One row of preferences in the forms of TRL and LLaMA-Factory: a prompt, and titles after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palate.data.reading.json_rows import Row
from palate.errors import DataError

PROMPT_KEYS = ("prompt", "instruction", "conversations", "messages")
ROLES = {
    "system": "",
    "user": "User: ",
    "human": "User: ",
    "assistant": "Assistant: ",
    "gpt": "Assistant: ",
}
"""Who speaks in a message, and what stands before their words where both sides have spoken."""
MAX_CHARACTERS = 1000
"""A longer answer is a written one and no title."""
FIX = "Fix or delete the row."

Said = tuple[str, str]
"""Role and words of a message."""


@dataclass(frozen=True)
class Preference:
    """What was chosen after a prompt and what was not.

    Attributes:
        prompt: the text before a title, without the line break at its end.
        chosen: titles, each once, at least one.
        rejected: other titles, each once, at least one.
        place: where it stands, for errors.
        repeats: how often the row gave a title a second time.
    """

    prompt: str
    chosen: list[str]
    rejected: list[str]
    place: str
    repeats: int = 0


def read_preference(row: Row, place: str) -> Preference:
    """A row as a preference.

    TRL: `prompt`, `chosen` and `rejected`, texts or lists of messages (role, content).
    LLaMA-Factory: `instruction` with `input`, `system` and `history`, or `conversations` (from,
    value) with `system`. `chosen` and `rejected` may also be lists of titles. Null is missing.

    Args:
        row: keys and values.
        place: file and row, for errors.

    Raises:
        DataError: names place and key of what is missing, empty, no text or contradictory.
    """
    row = {key: value for key, value in row.items() if value is not None}
    prompt = _prompt(row, place)
    chosen, rejected = (_titles(row, key, place) for key in ("chosen", "rejected"))
    once, other = list(dict.fromkeys(chosen)), list(dict.fromkeys(rejected))
    if both := next((title for title in other if title in once), None):
        raise DataError(
            f"{place}: 'rejected' holds {both!r:.60}, which is 'chosen' too. Expected other "
            f"titles. {FIX}"
        )
    repeats = len(chosen) + len(rejected) - len(once) - len(other)
    return Preference(prompt, once, other, place, repeats)


def _prompt(row: Row, place: str) -> str:
    """The prompt as one text, verbatim but for one line break at its end."""
    key = next((key for key in PROMPT_KEYS if key in row), None)
    if key is None:
        raise DataError(
            f"{place}: there is no prompt; found {', '.join(map(str, row)) or 'no keys'}. Expected "
            "'prompt', 'instruction' or 'conversations'; where 'chosen' and 'rejected' both begin "
            "with the prompt (TRL's implicit prompt), give it a key of its own first, with TRL's "
            "dataset.map(extract_prompt)."
        )
    value = row[key]
    if key == "instruction":
        text = _dialogue([*_system(row, place), *_alpaca(row, place)])
    elif key == "prompt" and not isinstance(value, list):
        text = "\n".join([*(words for _, words in _system(row, place)), _text(value, key, place)])
    else:
        text = _dialogue([*_system(row, place), *_messages(value, key, place)])
    if not text.strip():
        raise DataError(f"{place}: '{key}' is empty. Expected the text before a title. {FIX}")
    return text.removesuffix("\n").removesuffix("\r")


def _system(row: Row, place: str) -> list[Said]:
    if not row.get("system"):
        return []
    return [("system", _text(row["system"], "system", place))]


def _alpaca(row: Row, place: str) -> list[Said]:
    """LLaMA-Factory reads the rounds of `history`, then `instruction` and `input` on lines."""
    said: list[Said] = []
    rounds = row.get("history", [])
    for turn in rounds if isinstance(rounds, list) else [rounds]:
        if not isinstance(turn, list) or len(turn) != 2:
            raise DataError(
                f"{place}: 'history' holds {turn!r:.60}; expected pairs of a question and its "
                f"answer. {FIX}"
            )
        question, answer = (_text(part, "history", place) for part in turn)
        said += [("user", question), ("assistant", answer)]
    parts = [
        _text(row[key], key, place) for key in ("instruction", "input") if row.get(key, "") != ""
    ]
    return [*said, ("user", "\n".join(parts))]


def _messages(value: Any, key: str, place: str) -> list[Said]:
    if not isinstance(value, list):
        raise DataError(f"{place}: '{key}' holds {value!r:.60}; expected a list of messages. {FIX}")
    return [_message(message, key, place) for message in value]


def _message(message: Any, key: str, place: str) -> Said:
    """TRL's messages have role and content, LLaMA-Factory's from and value."""
    for role, words in (("role", "content"), ("from", "value")):
        if isinstance(message, dict) and {role, words} <= message.keys():
            if not isinstance(message[role], str) or message[role] not in ROLES:
                raise DataError(
                    f"{place}: '{key}' has a message with the {role} {message[role]!r:.60}; "
                    f"expected {', '.join(ROLES)}. {FIX}"
                )
            return message[role], _text(message[words], key, place)
    raise DataError(
        f"{place}: '{key}' holds {message!r:.60}; expected a message with role and content, or "
        f"with from and value. {FIX}"
    )


def _dialogue(said: Sequence[Said]) -> str:
    """Messages as lines; who speaks is only said where the assistant has spoken before."""
    both = any(ROLES[role] == ROLES["assistant"] for role, _ in said)
    return "\n".join((ROLES[role] if both else "") + words for role, words in said)


def _titles(row: Row, key: str, place: str) -> list[str]:
    """The titles of a text, a message, a list of these, or a list of such lists."""
    if key not in row:
        raise DataError(
            f"{place}: '{key}' is missing; found {', '.join(map(str, row))}. Expected a title or a "
            f"list of titles. {FIX}"
        )
    value = row[key]
    parts: list[Any] = []
    for entry in value if isinstance(value, list) else [value]:
        parts += entry if isinstance(entry, list) else [entry]
    if not parts:
        raise DataError(f"{place}: '{key}' is empty. Expected at least one title. {FIX}")
    return [_title(part, key, place) for part in parts]


def _title(value: Any, key: str, place: str) -> str:
    if isinstance(value, dict):
        role, value = _message(value, key, place)
        if ROLES[role] != ROLES["assistant"]:
            raise DataError(
                f"{place}: '{key}' has a message of the {role}; expected the assistant's answer "
                "alone. Leave the prompt in its own key, with TRL's dataset.map(extract_prompt)."
            )
    title = _text(value, key, place).strip()
    if not title:
        raise DataError(f"{place}: '{key}' holds an empty text; expected a title. {FIX}")
    if len(title) > MAX_CHARACTERS:
        raise DataError(
            f"{place}: '{key}' holds a text of {len(title):,} characters; expected the title of an "
            f"item, at most {MAX_CHARACTERS:,}. {FIX}"
        )
    return title


def _text(value: Any, key: str, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: '{key}' holds {value!r:.60}; expected a text. {FIX}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: '{key}' holds half a character ({value[error.start]!r}); expected whole "
            f"text. {FIX}"
        ) from error
    return value
