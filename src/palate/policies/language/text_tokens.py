"""Tokens of a piece of text as they are where it stands, not as they are alone.

Alone, a piece may get a leading space (SentencePiece puts one before a text), and a space or a line
break before it may become part of its first token (or vanish: many Unigram tokenizers make every
white space one space). So a piece is tokenized behind the text before it, and the tokens of that
text are taken off.
"""

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError

Tokens = NDArray[np.int64]

BREAK = "\n"
WORD = "x"
"""Stands for whatever was before."""


class TextTokens:
    """Tokens of pieces of text with one tokenizer, never with special tokens put around them.

    Args:
        tokenizer: a Hugging Face tokenizer.
        vocabulary: tokens that the model has embeddings of; None where there is no model.
    """

    def __init__(self, tokenizer: Any, vocabulary: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = {str(token) for token in added.values() if token.special}
        names = {*special, *map(str, tokenizer.all_special_tokens)}
        longest_first = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
        behind_first = "|".join(
            f"(?<={re.escape(n[0])})(?={re.escape(n[1:])})" for n in longest_first
        )
        self._cuts = re.compile(behind_first or "(?!)")
        word, line, joined, spaced = self.alone(
            [WORD, WORD + BREAK, f"{WORD}{BREAK}y", f"{WORD} y"]
        )
        self.keeps_breaks = not np.array_equal(joined, spaced)
        """Whether a line break is a token of its own, and not a space like any other."""
        follows = np.array_equal(line[: len(word)], word)
        alone = line[len(word) :] if follows else self.alone([BREAK])[0]
        self.break_tokens = alone if self.keeps_breaks else line[:0]
        """A line break between two lines; none where it is a part of what follows it."""

    def alone(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of whole texts; the names of special tokens become those tokens.

        Raises:
            DataError: a text has a character that the tokenizer has no token for, not even one for
                unknown ones, or a token that the model has no embedding of.
        """
        if not texts:
            return []
        try:
            encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            found = [np.asarray(tokens, np.int64) for tokens in encoded]
        except Exception as error:
            # what tokenizers raise in Rust is a bare Exception; a None among tokens is a TypeError
            if type(error) not in (Exception, TypeError):
                raise
            if len(texts) > 1:
                return [tokens for text in texts for tokens in self.alone([text])]
            text = _short(texts[0].removeprefix(WORD + BREAK))
            raise DataError(
                f"the tokenizer has no tokens for {text}, nor one for unknown "
                f"characters ({str(error).splitlines()[0]}). Give it an unk_token, or leave such "
                "characters out."
            ) from error
        limit = self.vocabulary
        if limit is not None and np.concatenate(found).max(initial=0) >= limit:
            at_fault = next(
                index for index, tokens in enumerate(found) if tokens.max(initial=0) >= limit
            )
            self._refuse(texts[at_fault], int(found[at_fault].max()))
        return found

    def _refuse(self, text: str, token: int) -> NoReturn:
        raise DataError(
            f"{_short(text.removeprefix(WORD + BREAK))} holds token {token:,} "
            f"({self.tokenizer.convert_ids_to_tokens(token)!r}), but the model has embeddings of "
            f"{self.vocabulary:,} tokens, 0 to {(self.vocabulary or 0) - 1:,}. The tokenizer is "
            "another model's, or was widened alone: call model.resize_token_embeddings("
            "len(tokenizer)) and save both again."
        )

    def stem(self, text: str) -> Tokens:
        """Tokens of a text without the spaces at its end, which belong to what follows."""
        return self.alone([text.rstrip(" " if self.keeps_breaks else None)])[0]

    def after(self, before: str, texts: Sequence[str]) -> list[Tokens | None]:
        """Tokens of texts, each behind `before`; None where a token holds some of both.

        What they say is data: "</s>" in a title is four characters, and is cut behind the first so
        that no tokenizer takes it for its end token.
        """
        start = self.stem(before)
        parts = [self._cuts.split(text) for text in texts]
        whole = self.alone([before + first for first, *_ in parts])
        return [
            np.concatenate([tokens[len(start) :], *(self.words(rest) for rest in others)])
            if np.array_equal(tokens[: len(start)], start)
            else None
            for tokens, (_, *others) in zip(whole, parts, strict=True)
        ]

    def lines(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of texts as lines of a longer text, each behind a line break."""
        found = self.after(WORD + BREAK, texts)
        return [
            self.first(text) if tokens is None else tokens
            for text, tokens in zip(texts, found, strict=True)
        ]

    def first(self, text: str) -> Tokens:
        """Tokens of a text that nothing is before."""
        (tokens,) = self.after("", [text])
        return self.alone([text])[0] if tokens is None else tokens

    def words(self, piece: str, is_first: bool = False, is_followed: bool = False) -> Tokens:
        """Tokens of a prompt's own words; the names of special tokens become those tokens.

        Args:
            piece: the words.
            is_first: nothing is before them.
            is_followed: what follows brings the spaces at their end.
        """
        before = "" if is_first else WORD
        whole = self.stem(before + piece) if is_followed else self.alone([before + piece])[0]
        start = self.alone([before])[0] if before else whole[:0]
        if np.array_equal(whole[: len(start)], start):
            return whole[len(start) :]
        return self.stem(piece) if is_followed else self.alone([piece])[0]


def _short(text: str, longest: int = 60) -> str:
    return repr(text if len(text) <= longest else f"{text[: longest - 1]}…")
