"""Rules that choose a candidate by how its title is written, or by the words of the prompt."""

import numpy as np

from palate.audit.lists import Lists
from palate.audit.rules import Known, Scores, answer_rates
from palate.audit.titles import Titles
from palate.data.contexts import Ids

PROMPTED = 10
"""Items at the end of a history whose titles count as words of the prompt."""


def title_length(fit: Lists, scored: Lists, known: Known) -> Scores:
    """The shortest candidate, the longest or one between, whichever answers are most often."""
    lengths = titles_of(known).lengths
    rate = answer_rates(_by_length(fit, lengths), fit, 4)
    return rate[_by_length(scored, lengths)]


def title_form(fit: Lists, scored: Lists, known: Known) -> Scores:
    """A candidate whose case and punctuation are like an answer's, or stand out as answers' do.

    The traits count as independent (naive Bayes), and so does in how many of them a candidate
    differs from all others of its list.
    """
    forms = titles_of(known).forms
    scores = np.zeros(scored.item_ids.shape)
    for one, other in zip(_traits(fit, forms), _traits(scored, forms), strict=True):
        scores += np.log(answer_rates(one, fit, 3))[other]
    return scores.round(9)  # equal forms stay equal


def shared_words(fit: Lists, scored: Lists, known: Known) -> Scores:
    """The candidate that has most words in common with the prompt: its text and last titles."""
    titles = titles_of(known)
    first, words = titles.words
    prompts = _words_of_prompts(scored, titles)
    items = scored.item_ids.ravel()
    lengths = np.append(np.diff(first), 0)[items]  # padding, −1, has no words
    cells = np.repeat(np.arange(len(items)), lengths)
    within = np.arange(len(cells)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    asked = words[first[items][cells] + within]
    said = np.concatenate([row * titles.n_words + one for row, one in enumerate(prompts)])
    is_said = np.isin(cells // scored.item_ids.shape[1] * titles.n_words + asked, said)
    shared = np.bincount(cells[is_said], minlength=len(items))
    return shared.reshape(scored.item_ids.shape).astype(float)


def titles_of(known: Known) -> Titles:
    """The titles, where a rule that reads them is asked at all."""
    assert known.titles is not None
    return known.titles


def _words_of_prompts(lists: Lists, titles: Titles) -> list[Ids]:
    """For each row the words of its text and of the last titles of its history."""
    first, words = titles.words
    found = []
    for row, history in enumerate(lists.histories):
        own = [words[first[item] : first[item + 1]] for item in history[-PROMPTED:]]
        text = "" if lists.texts is None else lists.texts[row]
        found.append(np.concatenate([*own, titles.words_of(text)]))
    return found


def _by_length(lists: Lists, lengths: Ids) -> Ids:
    """(R, K) 0 for the shortest of a list, 1 for the longest, 2 between, 3 where all are alike."""
    own = lengths[lists.item_ids]
    least = np.where(lists.filled, own, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
    most = np.where(lists.filled, own, -1).max(axis=1, keepdims=True)
    groups = np.where(own == least, 0, np.where(own == most, 1, 2))
    return np.where(least == most, 3, groups)


def _traits(lists: Lists, forms: Ids) -> list[Ids]:
    """(R, K) groups: each trait, and in how many (0, 1, or 2 and more) a candidate is alone."""
    traits = [forms[lists.item_ids, trait] for trait in range(forms.shape[1])]
    sizes = lists.filled.sum(axis=1, keepdims=True)
    alone = np.zeros(lists.item_ids.shape, np.int64)
    for own in traits:
        have = (own * lists.filled).sum(axis=1, keepdims=True)
        alone += (sizes > 2) & (np.where(own == 1, have, sizes - have) == 1)
    return [*traits, np.minimum(alone, 2)]
