"""Prompts out of templates, and the token rules that hold in every stage.

A begin token wherever the tokenizer has one; every literal and every title is
tokenized on its own, a title as it is after a line break, so the title has the same tokens inside
a prompt and as an answer; the answer ends with the tokenizer's end token. With a chat template
(`chat.py`) the prompt without its last line break is the user's message; the answer is what follows
the assistant's marker, space included, and ends as the assistant's turn does. docs/language.md
tells it at length.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Context
from palate.errors import ConfigError, DataError
from palate.policies.language.chat import Chat, end_token
from palate.policies.language.templates import (
    BUILT_IN,
    CANDIDATES,
    DIALOGUE,
    HISTORY,
    SLOTS,
    Template,
    parse_templates,
    read_templates,
)
from palate.policies.language.text_tokens import BREAK, WORD, TextTokens, Tokens
from palate.policies.language.titles import check_texts
from palate.randomness import integers, permutation, random_bits

__all__ = [
    "BUILT_IN",
    "CANDIDATES",
    "DIALOGUE",
    "HISTORY",
    "Prompter",
    "Template",
    "Tokens",
    "need_tokens",
    "one_line",
    "parse_templates",
    "read_templates",
]

SAMPLE = 16
"""Tokens that a model is tried with."""
Line = tuple[str, Tokens]
"""A title or an utterance, as text and as tokens."""


class Prompter:
    """Turns contexts into token ids with one tokenizer, one catalogue and some templates.

    Args:
        tokenizer: a Hugging Face tokenizer with an end token (or a `chat` that has one).
        templates: the templates, of which each context gets one by (seed, context id).
        titles: title of each item, in item order.
        names: what each item is called where its title becomes no token; None where none may.
        max_history: most recent items a prompt may hold.
        max_tokens: longest prompt; older items are left out, whole, to keep it.
        max_title_tokens: longer titles are cut to this many tokens.
        seed: names the choice of templates and the order of candidates.
        chat: what a chat template puts around prompts; None for none.
        vocabulary: tokens that the model has embeddings of; None where there is no model.

    Raises:
        DataError: words or titles hold a token that the model lacks, or a title becomes no token.
        ConfigError: the begin or the end token is one that the model lacks.

    Attributes:
        title_tokens: of each item's title as an answer.
        lines: each item's title as a line of a prompt. The tokens are those of the answer, unless
            an answer follows other than a line break.
        begin: what stands before every prompt: the begin token, where no chat brings it itself.
        end: the token that ends an answer.
        renamed: the items whose titles became no token and were replaced by their names.
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
        chat: Chat | None = None,
        names: Sequence[str] | None = None,
        vocabulary: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self.templates = tuple(one.inside(chat) if chat else one for one in templates)
        self.max_history = max_history
        self.max_tokens = max_tokens
        self.max_title_tokens = max_title_tokens
        self.seed = seed
        self.end = end_token(tokenizer) if chat is None else chat.end
        self._tokens = TextTokens(tokenizer, vocabulary)
        begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        if (
            chat is not None
            and chat.head
            and np.isin(begin, self._tokens.alone([chat.head])[0]).all()
        ):
            begin = []
        self.begin = np.asarray(begin, np.int64)
        self._check_marks(vocabulary)
        self.break_tokens = self._tokens.break_tokens
        self._own_words = {template: self._words_of(template) for template in self.templates}
        texts = [one_line(title) for title in titles]
        listed = self._listed(texts)
        self.title_tokens = self._as_answers(texts, listed)
        self.renamed = self._rename(texts, listed, names)
        self.lines = [self._line(text, tokens) for text, tokens in zip(texts, listed, strict=True)]

    @property
    def lists_candidates(self) -> bool:
        """Whether prompts show the candidates."""
        return CANDIDATES in self.templates[0].pieces

    def tokenize_titles(self, titles: Sequence[str], where: str = "titles") -> list[Tokens]:
        """Tokens of each title as an answer, without special tokens.

        Raises:
            DataError: one is no text, or becomes no token; `where` is what errors call them.
        """
        texts = [one_line(title) for title in check_texts(titles, where)]
        found = self._as_answers(texts, self._listed(texts))
        for place, tokens in enumerate(found):
            if not len(tokens):
                raise DataError(
                    f"{where}[{place}], {titles[place]!r}, becomes no token with this tokenizer, "
                    "so it has no probability. Leave it out, or write it otherwise."
                )
        return found

    @property
    def sample_text(self) -> Tokens:
        """Some tokens of a prompt's own words and of a title, at least two, to try a model with."""
        words = self._own_words[self.templates[0]]
        found = np.concatenate([self.begin, *words, *self.title_tokens[:1]])[:SAMPLE]
        return found if len(found) > 1 else np.append(found, [self.end] * 2)

    def tokenize_prompt(self, text: str) -> Tokens:
        """Token ids of a prompt given as text, such as `prompt_text` gives; with a chat, the user's
        message. Lines that are titles of the catalogue have the tokens these have in any prompt.

        Raises:
            DataError: it is no text.
        """
        check_texts([text], "prompts")
        words, tail = (self.chat.head, self.chat.tail) if self.chat else ("", "")
        message = text.removesuffix(BREAK) if self.chat else text
        parts: list[Tokens] = []
        for number, line in enumerate(message.split(BREAK)):
            words += BREAK if number else ""
            title = self._known_lines.get(line)
            if title is None:
                words += line
                continue
            parts += [self._words(words, is_first=not parts, is_last=False), title]
            words = ""
        parts.append(self._words(words + tail, is_first=not parts, is_last=True))
        return np.concatenate([self.begin, *parts])

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

    def prompt_from(self, history: NDArray[np.int64], first_read: int, user_id: int) -> Tokens:
        """Token ids of a prompt that shows a history from a place on, whole; for templates that
        grow at the end, of which those moments get the same one that share the place."""
        name = int(random_bits(self.seed, "pass", user_id, first_read) >> np.uint64(1))
        words = self._own_words[self.template_of(name)]
        lines = self._broken([self.lines[item] for item in history[first_read:]])
        return np.concatenate([self.begin, *words[:-2], *lines, words[-1]])

    def prompt_text(
        self,
        history: NDArray[np.int64],
        name: int,
        candidates: NDArray[np.int64] | None = None,
        text: str | None = None,
    ) -> str:
        """What `prompt` gives, as text and without the begin token; with a chat, the user's message
        alone."""
        template, slots, _ = self._filled(history, name, candidates, text)
        whole = "".join(
            BREAK.join(line for line, _ in slots[piece]) if piece in slots else piece
            for piece in template.pieces
        )
        if self.chat is None:
            return whole
        return whole.removeprefix(self.chat.head).removesuffix(self.chat.tail)

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
        count = self._fitting([self.lines[item] for item in history], budget)
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
        openings = (sum(map(len, self._own_words[template][:-2])) for template in self.templates)
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
            for piece, words in zip(template.pieces, self._own_words[template], strict=True)
            for part in (self._broken(slots[piece]) if piece in slots else [words])
        ]

    def _filled(
        self,
        history: NDArray[np.int64],
        name: int,
        candidates: NDArray[np.int64] | None,
        text: str | None,
    ) -> tuple[Template, dict[str, list[Line]], int]:
        """The template, the lines of its slots, and how many recent items found no room."""
        template = self.template_of(name)
        budget = self.max_tokens - len(self.begin)
        budget -= self.own_length(template)
        slots: dict[str, list[Line]] = {CANDIDATES: [], DIALOGUE: [], HISTORY: []}
        lost = 0
        if candidates is not None and CANDIDATES in template.pieces:
            slots[CANDIDATES] = [self.lines[item] for item in candidates]
            budget -= sum(map(len, self._broken(slots[CANDIDATES])))
        if budget < 0:
            raise DataError(
                f"context {name}: the prompt's own words and its candidates take "
                f"{self.max_tokens - budget} tokens, but the model reads {self.max_tokens} before "
                "a title. Use fewer candidates, a shorter prompt or a model that reads more."
            )
        if text and DIALOGUE in template.pieces:
            said = self._said(text.split(BREAK), is_first=template.pieces[0] == DIALOGUE)
            count = self._fitting(said, budget)
            lost = len(said) - count
            # at least its last words
            slots[DIALOGUE] = said[lost:] or [self._end_of(said[-1], max(1, budget))]
            budget -= sum(map(len, self._broken(slots[DIALOGUE])))
        if HISTORY in template.pieces:
            recent = history[max(0, len(history) - self.max_history) :]
            kept = self.fitting(recent, budget)
            slots[HISTORY] = [self.lines[item] for item in kept]
            lost += len(recent) - len(kept)
        return template, slots, lost

    def opening(self, history: NDArray[np.int64]) -> Tokens:
        """Begin token and the text before a history that is learnt whole.

        For templates that grow at the end; the history itself chooses the template.
        """
        name = int(random_bits(self.seed, history.sum(), len(history)) >> np.uint64(32))
        return np.concatenate([self.begin, *self._own_words[self.template_of(name)][:-2]])

    @property
    def always_opens(self) -> bool:
        """Whether every text before a history that is learnt whole has a token."""
        openings = (sum(map(len, self._own_words[one][:-2])) for one in self.templates)
        return len(self.begin) + min(openings) > 0

    def own_length(self, template: Template) -> int:
        """Tokens of a template's own words."""
        return sum(map(len, self._own_words[template]))

    def _fitting(self, lines: Sequence[Line], budget: int) -> int:
        costs = [len(tokens) + len(self.break_tokens) for _, tokens in reversed(lines)]
        return int(np.searchsorted(np.cumsum(costs), budget, side="right"))

    def _broken(self, lines: Sequence[Line]) -> list[Tokens]:
        """Tokens of lines with a line break between any two."""
        return [part for _, tokens in lines for part in (tokens, self.break_tokens)][:-1]

    def _words_of(self, template: Template) -> tuple[Tokens, ...]:
        """Tokens of each piece of a template; none for a slot."""
        last = len(template.pieces) - 1
        return tuple(
            self.begin[:0] if piece in SLOTS else self._words(piece, place == 0, place == last)
            for place, piece in enumerate(template.pieces)
        )

    def _words(self, piece: str, is_first: bool, is_last: bool) -> Tokens:
        """Tokens of words between titles. Spaces at their end are left to the answer in a chat, and
        to every title where a line break is a space, with which the title's tokens begin."""
        is_asking = is_last and self.chat is not None
        return self._tokens.words(piece, is_first, is_asking or not self._tokens.keeps_breaks)

    def _check_marks(self, vocabulary: int | None) -> None:
        marks = {"begin": self.begin, "end": [self.end]}
        for name, tokens in marks.items():
            for token in tokens:
                if vocabulary is not None and token >= vocabulary:
                    raise ConfigError(
                        f"policy.base: the tokenizer's {name} token is {token:,} "
                        f"({self.tokenizer.convert_ids_to_tokens(int(token))!r}), but the model "
                        f"has embeddings of {vocabulary:,} tokens. Call "
                        "model.resize_token_embeddings(len(tokenizer)) and save both again."
                    )

    def _rename(
        self, texts: list[str], listed: list[Tokens], names: Sequence[str] | None
    ) -> list[int]:
        """Put an item's name in place of a title that becomes no token; the items it was done to.

        Nothing could be read of such an item in a prompt, and as an answer it would be the end
        token alone.
        """
        answers = self.title_tokens
        empty = [
            item for item in range(len(texts)) if not (len(listed[item]) and len(answers[item]))
        ]
        if not empty:
            return empty
        if names is not None:
            shown = [names[item] for item in empty]
            lines = self._listed(shown)
            for item, text, line, answer in zip(
                empty, shown, lines, self._as_answers(shown, lines), strict=True
            ):
                texts[item], listed[item], answers[item] = text, line, answer
        for item in empty:
            if not (len(listed[item]) and len(answers[item])):
                raise DataError(
                    f"titles: '{texts[item]}', that of item {item}, becomes no token "
                    f"with this tokenizer, and so do {len(empty) - 1:,} others. Use a model whose "
                    "tokenizer knows their characters, or give these items other titles."
                )
        return empty

    def _listed(self, texts: Sequence[str]) -> list[Tokens]:
        return [tokens[: self.max_title_tokens] for tokens in self._tokens.lines(texts)]

    def _as_answers(self, texts: Sequence[str], listed: list[Tokens]) -> list[Tokens]:
        """Tokens of titles behind the assistant's marker; as listed where the tokenizer joins the
        two."""
        if self.chat is None or not self.chat.tail:
            return listed
        found = self._tokens.after(WORD + self.chat.tail, texts)
        return [
            line if tokens is None else tokens[: self.max_title_tokens]
            for line, tokens in zip(listed, found, strict=True)
        ]

    def _said(self, utterances: list[str], is_first: bool) -> list[Line]:
        """Utterances as lines; the first may be the first of the whole prompt."""
        tokens = self._tokens.lines(utterances)
        if is_first:
            tokens[0] = self._tokens.first(utterances[0])
        return list(zip(utterances, tokens, strict=True))

    def _line(self, text: str, tokens: Tokens) -> Line:
        """A title as a line: its text is that of its tokens where these are cut."""
        is_cut = len(tokens) == self.max_title_tokens
        return (self._text_of(tokens) if is_cut else text, tokens)

    def _end_of(self, line: Line, count: int) -> Line:
        return self._text_of(line[1][-count:]), line[1][-count:]

    def _text_of(self, tokens: Tokens) -> str:
        text = self.tokenizer.decode(tokens.tolist(), clean_up_tokenization_spaces=False)
        return text.strip()

    @cached_property
    def _known_lines(self) -> dict[str, Tokens]:
        return dict(self.lines)


def need_tokens(prompt: Tokens, name: str) -> Tokens:
    """The prompt, of which a title's first token is read.

    Raises:
        DataError: it has no token; `name` is what the error calls it.
    """
    if not len(prompt):
        raise DataError(
            f"{name} has no token, so nothing foretells the title behind it, as this tokenizer has "
            "no begin token. Put words before it: --set policy.prompts=history."
        )
    return prompt


def one_line(title: str) -> str:
    """A title without space around it and line breaks in it, which would end it."""
    return " ".join(title.splitlines()).strip()
