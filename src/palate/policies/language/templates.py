"""Prompt templates: files of text with slots.

A template file is plain text; templates are separated by lines of three dashes. A template has
the slot `{history}` or `{dialogue}`, or both, and may have `{candidates}`; slots become titles, one
on a line, or what was said, one utterance on a line. What follows the template's last character is
the answer, so a template ends with its line break.
"""

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from palate.errors import ConfigError, did_you_mean
from palate.policies.language.chat import Chat
from palate.policies.language.text_tokens import BREAK

HISTORY, CANDIDATES, DIALOGUE = "{history}", "{candidates}", "{dialogue}"
SLOTS = (HISTORY, CANDIDATES, DIALOGUE)
BUILT_IN = ("history", "history_and_candidates", "dialogue", "prompt")


@dataclass(frozen=True)
class Template:
    """One prompt: literals and slots in their order."""

    pieces: tuple[str, ...]

    @property
    def grows_at_the_end(self) -> bool:
        """Whether a longer history only appends, so that one pass can learn all its items."""
        others = {CANDIDATES, DIALOGUE} & set(self.pieces)
        return self.pieces[-2:] == (HISTORY, BREAK) and not others

    @property
    def sample(self) -> str:
        """A user's message as a chat would get it, with a line in place of each slot."""
        pieces = ("Velvet Alibi" if piece in SLOTS else piece for piece in self.pieces)
        return "".join(pieces).removesuffix(BREAK)

    def inside(self, chat: Chat) -> "Template":
        """The template with a chat's text around it, in place of its last line break."""
        first, *others = self.pieces
        pieces = [chat.head, first, *others] if first in SLOTS else [chat.head + first, *others]
        pieces[-1] = pieces[-1].removesuffix(BREAK) + chat.tail
        return Template(tuple(piece for piece in pieces if piece))


def read_templates(name: str) -> tuple[str, tuple[Template, ...]]:
    """The text and the templates of a built-in file ("history") or of a path.

    Raises:
        ConfigError: no such file, not UTF-8, or a template without its slot or its final line
            break.
    """
    if name in BUILT_IN:
        text = (
            resources.files("palate.policies.language")
            .joinpath("prompts", f"{name}.txt")
            .read_text("utf-8")
        )
    elif Path(name).is_file():
        try:
            text = Path(name).read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ConfigError(
                f"policy.prompts: {name} line {line} is not UTF-8. Save the file as UTF-8, or "
                f"convert it: iconv -f LATIN1 -t UTF-8 {name} > prompts-utf8.txt."
            ) from error
    else:
        raise ConfigError(
            f"policy.prompts: '{name}' is neither a file nor built in."
            f"{did_you_mean(name, BUILT_IN)}"
        )
    return text, parse_templates(text, name)


def parse_templates(text: str, name: str) -> tuple[Template, ...]:
    """Templates of a prompt file's text; `name` is what errors call it."""
    found = []
    for number, part in enumerate(re.split(r"^---[ \t]*\n", text, flags=re.MULTILINE), start=1):
        pieces = tuple(piece for piece in re.split(r"(\{\w*\})", part) if piece)
        slots = [piece for piece in pieces if re.fullmatch(r"\{\w*\}", piece)]
        where = f"{name}, template {number}"
        if unknown := [slot for slot in slots if slot not in SLOTS]:
            raise ConfigError(f"{where}: there is no slot {unknown[0]}; use {', '.join(SLOTS)}.")
        if twice := [slot for slot in SLOTS if slots.count(slot) > 1]:
            raise ConfigError(f"{where}: the slot {twice[0]} occurs twice; expected once.")
        if not {HISTORY, DIALOGUE} & set(slots):
            raise ConfigError(
                f"{where}: it has neither {{history}} nor {{dialogue}}, so it would ask the same "
                "of everyone. Put one of these slots on a line of its own."
            )
        if not part.endswith(BREAK):
            raise ConfigError(f"{where}: it must end with a line break; the answer follows it.")
        found.append(Template(pieces))
    for slot in (CANDIDATES, DIALOGUE):
        if len({slot in template.pieces for template in found}) > 1:
            raise ConfigError(f"{name}: either all templates have the slot {slot} or none.")
    return tuple(found)
