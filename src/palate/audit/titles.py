"""The titles of a catalogue as the probes read them: length, case, punctuation, words."""

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from palate.data.contexts import Ids

LETTERS = re.compile(r"[^\W\d_]")
QUOTES = "\"“”«»‘’'"
FORMS = (
    re.compile(r"^\s*[a-zß-öø-ÿ]"),
    re.compile(r"[.!?…,;:]\s*$"),
    re.compile(rf"^[\s{QUOTES}]|[\s{QUOTES}]$"),
    re.compile(r"[()\[\]{}]"),
    re.compile(r"\d"),
    re.compile(r"[:/–—|]|\s-\s"),
    re.compile(r"[^\x00-\x7f]"),
    re.compile(r"[!\"“”*_#<>~]"),
)
"""Traits of a title's punctuation, with its first letter; that all letters are capitals, or all are
small, are two more."""


def plain(text: str) -> str:
    """A text as a careless reader sees it: words and figures in lower case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


class Titles:
    """What can be read of titles; each part is made when first asked for.

    Args:
        titles: title of each item.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        self._titles = list(titles)
        self._vocabulary: dict[str, int] = {}

    @cached_property
    def lengths(self) -> Ids:
        """(items,) characters of each title."""
        return np.array([len(title) for title in self._titles], np.int64)

    @cached_property
    def forms(self) -> Ids:
        """(items, traits) 1 where a title has a trait of case or punctuation."""
        traits = [
            [
                *(form.search(title) is not None for form in FORMS),
                *(bool(LETTERS.search(title)) and title == same for same in _cases(title)),
            ]
            for title in self._titles
        ]
        return np.array(traits, np.int64)

    @cached_property
    def padded(self) -> list[str]:
        """The words of each title, a space around, to be looked for in a text of such words."""
        return [f" {plain(title) or title} " for title in self._titles]

    @cached_property
    def words(self) -> tuple[Ids, Ids]:
        """(items + 1,), (words,): the distinct words of item i stand from first[i] on."""
        each = [self.words_of(title) for title in self._titles]
        return np.cumsum([0, *map(len, each)]), np.concatenate([np.zeros(0, np.int64), *each])

    @property
    def n_words(self) -> int:
        """Distinct words so far."""
        return len(self._vocabulary)

    def words_of(self, text: str) -> Ids:
        """Numbers of the distinct words of a text."""
        known = self._vocabulary
        words = dict.fromkeys(plain(text).split())
        return np.array([known.setdefault(word, len(known)) for word in words], np.int64)


def _cases(title: str) -> tuple[str, str]:
    return title.upper(), title.lower()
