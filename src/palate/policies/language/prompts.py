"""Prompt templates and the token rules that hold in every stage.

A template file is plain text; templates are separated by lines of three dashes. A template has
the slot `{history}` or `{dialogue}`, or both, and may have `{candidates}`; slots become titles, one
on a line, or what was said, one utterance on a line. What follows the template's last character is
the answer, so a template ends with its line break.

Token rules: a begin token wherever the tokenizer has one; every literal and every title is
tokenized on its own, a title as it is after a line break, so the title has the same tokens inside
a prompt and as an answer; the answer ends with the tokenizer's end token.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Context, ContextSet
from palate.errors import ConfigError, DataError, did_you_mean
from palate.randomness import integers, permutation, random_bits

HISTORY, CANDIDATES, DIALOGUE = "{history}", "{candidates}", "{dialogue}"
SLOTS = (HISTORY, CANDIDATES, DIALOGUE)
BREAK = "\n"
BUILT_IN = ("history", "history_and_candidates", "dialogue", "prompt")

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Template:
    """One prompt: literals and slots in their order."""

    pieces: tuple[str, ...]

    @property
    def grows_at_the_end(self) -> bool:
        """Whether a longer history only appends, so that one pass can learn all its items."""
        others = {CANDIDATES, DIALOGUE} & set(self.pieces)
        return self.pieces[-2:] == (HISTORY, BREAK) and not others


def read_templates(name: str) -> tuple[str, tuple[Template, ...]]:
    """The text and the templates of a built-in file ("history") or of a path.

    Raises:
        ConfigError: no such file, or a template without its slot or its final line break.
    """
    if name in BUILT_IN:
        text = (
            resources.files("palate.policies.language")
            .joinpath("prompts", f"{name}.txt")
            .read_text("utf-8")
        )
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8")
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


class Prompter:
    """Turns contexts into token ids with one tokenizer, one catalogue and some templates.

    Args:
        tokenizer: a Hugging Face tokenizer with an end token.
        templates: the templates, of which each context gets one by (seed, context id).
        titles: title of each item, in item order.
        max_history: most recent items a prompt may hold.
        max_tokens: longest prompt; older items are left out, whole, to keep it.
        max_title_tokens: longer titles are cut to this many tokens.
        seed: names the choice of templates and the order of candidates.
    """

    def __init__(
        self,
        tokenizer: Any,
        templates: Sequence[Template],
        titles: Sequence[str],
        max_history: int,
        max_tokens: int,
        max_title_tokens: int = 64,
        seed: int = 0,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "policy.base: the tokenizer has no end token, which ends every title. Set its "
                "eos_token and save it again."
            )
        self.tokenizer = tokenizer
        self.templates = tuple(templates)
        self.max_history = max_history
        self.max_tokens = max_tokens
        self.max_title_tokens = max_title_tokens
        self.seed = seed
        self.end = int(tokenizer.eos_token_id)
        begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self.begin = np.asarray(begin, np.int64)
        self.break_tokens = self._encode([BREAK])[0]
        literals = {piece for template in self.templates for piece in template.pieces}
        texts = sorted(literals - set(SLOTS))
        self._literals = dict(zip(texts, self._encode(texts), strict=True))
        self.title_tokens = self.tokenize_titles(titles)

    @property
    def lists_candidates(self) -> bool:
        """Whether prompts show the candidates."""
        return CANDIDATES in self.templates[0].pieces

    def tokenize_titles(self, titles: Sequence[str]) -> list[Tokens]:
        """Tokens of each title as they are after a line break, without special tokens."""
        if not titles:
            return []
        n_break = len(self.break_tokens)
        plain = self._encode(titles)
        after_break = self._encode([BREAK + title for title in titles])
        limit = self.max_title_tokens
        return [
            tokens[n_break : n_break + limit]
            if np.array_equal(tokens[:n_break], self.break_tokens) and len(tokens) > n_break
            else alone[:limit]
            for tokens, alone in zip(after_break, plain, strict=True)
        ]

    def literal(self, piece: str) -> Tokens:
        """Tokens of a template's own words; none for a slot."""
        return self._literals.get(piece, self.begin[:0])

    def template_of(self, name: int) -> Template:
        """The template for a context id."""
        return self.templates[int(integers(len(self.templates), self.seed, "template", name))]

    @property
    def shows_dialogue(self) -> bool:
        """Whether prompts hold what was said."""
        return DIALOGUE in self.templates[0].pieces

    def prompt(
        self,
        history: NDArray[np.int64],
        name: int,
        candidates: NDArray[np.int64] | None = None,
        text: str | None = None,
    ) -> Tokens:
        """Token ids of a prompt, begin token included.

        What is too long loses its oldest utterances, then its oldest items, each whole.

        Args:
            history: item ids, oldest first.
            name: the context id, which chooses the template.
            candidates: item ids in the order to show them, where templates list candidates.
            text: what was said, an utterance a line, where templates hold a dialogue.

        Raises:
            DataError: what must stay is longer than the model reads.
        """
        return np.concatenate([self.begin, *self._parts(history, name, candidates, text)])

    def prompt_text(
        self,
        history: NDArray[np.int64],
        name: int,
        candidates: NDArray[np.int64] | None = None,
        text: str | None = None,
    ) -> str:
        """What `prompt` gives, as text and without the begin token."""
        parts = self._parts(history, name, candidates, text)
        return "".join(
            self.tokenizer.decode(
                part.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for part in parts
        )

    def shown(
        self, context: Context, item_ids: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """The candidates that a context's prompt shows, in their order: the context's own, or else
        the scored ones (those from 0 on) in an order named by the context."""
        if context.candidates is not None or item_ids is None or not self.lists_candidates:
            return context.candidates
        present = item_ids[item_ids >= 0]
        return present[permutation(len(present), self.seed, "candidates", context.context_id)]

    def fitting(self, history: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
        """The most recent items, whole, whose titles and line breaks fit a budget of tokens."""
        count = self._fitting([self.title_tokens[item] for item in history], budget)
        return history[len(history) - count :]

    def lost(
        self,
        history: NDArray[np.int64],
        name: int,
        candidates: NDArray[np.int64] | None = None,
        text: str | None = None,
    ) -> int:
        """Utterances, and items of the last `max_history`, that a prompt has no room for."""
        return self._filled(history, name, candidates, text)[2]

    def fitting_after_opening(self, items: NDArray[np.int64]) -> int:
        """How many items, from the first one on, fit a history that is learnt whole."""
        openings = (
            sum(len(self._literals[piece]) for piece in template.pieces[:-2])
            for template in self.templates
        )
        budget = self.max_tokens - len(self.begin) - max(openings)
        costs = [len(self.title_tokens[item]) + len(self.break_tokens) for item in items]
        return max(1, int(np.searchsorted(np.cumsum(costs), budget, side="right")))

    def _parts(
        self,
        history: NDArray[np.int64],
        name: int,
        candidates: NDArray[np.int64] | None,
        text: str | None,
    ) -> list[Tokens]:
        template, slots, _ = self._filled(history, name, candidates, text)
        return [
            part
            for piece in template.pieces
            for part in (slots[piece] if piece in slots else [self._literals[piece]])
        ]

    def _filled(
        self,
        history: NDArray[np.int64],
        name: int,
        candidates: NDArray[np.int64] | None,
        text: str | None,
    ) -> tuple[Template, dict[str, list[Tokens]], int]:
        """The template, the tokens of its slots, and how many recent items found no room."""
        template = self.template_of(name)
        budget = self.max_tokens - len(self.begin)
        budget -= sum(len(self.literal(piece)) for piece in template.pieces)
        slots: dict[str, list[Tokens]] = {CANDIDATES: [], DIALOGUE: [], HISTORY: []}
        lost = 0
        if candidates is not None and CANDIDATES in template.pieces:
            slots[CANDIDATES] = self._lines([self.title_tokens[item] for item in candidates])
            budget -= sum(map(len, slots[CANDIDATES]))
        if budget < 0:
            raise DataError(
                f"context {name}: the prompt's own words and its candidates take "
                f"{self.max_tokens - budget} tokens, but the model reads {self.max_tokens} before "
                "a title. Use fewer candidates, a shorter prompt or a model that reads more."
            )
        if text and DIALOGUE in template.pieces:
            said = self._encode(text.split(BREAK))
            count = self._fitting(said, budget)
            lost = len(said) - count
            kept_lines = said[lost:] or [said[-1][-max(1, budget) :]]  # at least its last words
            slots[DIALOGUE] = self._lines(kept_lines)
            budget -= sum(map(len, slots[DIALOGUE]))
        if HISTORY in template.pieces:
            recent = history[max(0, len(history) - self.max_history) :]
            kept = self.fitting(recent, budget)
            slots[HISTORY] = self._lines([self.title_tokens[item] for item in kept])
            lost += len(recent) - len(kept)
        return template, slots, lost

    def _fitting(self, lines: Sequence[Tokens], budget: int) -> int:
        costs = [len(line) + len(self.break_tokens) for line in reversed(lines)]
        return int(np.searchsorted(np.cumsum(costs), budget, side="right"))

    def opening(self, history: NDArray[np.int64]) -> Tokens:
        """Begin token and the text before a history that is learnt whole.

        For templates that grow at the end; the history itself chooses the template.
        """
        name = int(random_bits(self.seed, history.sum(), len(history)) >> np.uint64(32))
        pieces = self.template_of(name).pieces[:-2]
        return np.concatenate([self.begin, *(self._literals[piece] for piece in pieces)])

    def _lines(self, lines: Sequence[Tokens]) -> list[Tokens]:
        return [part for line in lines for part in (line, self.break_tokens)][:-1]

    def _encode(self, texts: Sequence[str]) -> list[Tokens]:
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [np.asarray(tokens, np.int64) for tokens in encoded]


def shortened(prompter: Prompter, contexts: ContextSet) -> tuple[int, int]:
    """Contexts whose prompts lose recent items for want of room, and how many items they lose."""
    log = contexts.interactions
    lengths = np.array([len(tokens) for tokens in prompter.title_tokens])
    ends = np.concatenate([[0], np.cumsum(lengths[log.items] + len(prompter.break_tokens))])
    first = np.maximum(log.first_row[contexts.users], contexts.begins - prompter.max_history)
    suspects = np.arange(len(contexts))
    if log.lists is None and not log.texts:
        longest = max(
            sum(len(prompter.literal(piece)) for piece in template.pieces)
            for template in prompter.templates
        )
        room = prompter.max_tokens - len(prompter.begin) - longest
        suspects = np.flatnonzero(ends[contexts.begins] - ends[first] > room)
    lost = [
        prompter.lost(one.history, one.context_id, one.candidates, one.text)
        for one in (contexts[int(index)] for index in suspects)
    ]
    return int(np.count_nonzero(lost)), sum(lost)
