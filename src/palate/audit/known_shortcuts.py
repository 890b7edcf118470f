"""The rules without a model that lists are tried with, and what each says of them."""

from dataclasses import dataclass

from palate.audit import rules, text_rules
from palate.audit.rules import Rule


@dataclass(frozen=True)
class Shortcut:
    """A rule with its words.

    Attributes:
        name: the probe.
        rule: what chooses.
        chooses: the choice, as the subject of a sentence.
        means: what a leak says of the lists.
        against_chance: whether the null is chance, not the redrawn lists, which share the fault.
        by_taste: whether it reads of an item what people may like or dislike it for.
        cautions_from: part of the way from chance to 1 from which a rule that is no leak, for good
            answers follow it too, is a caution; None for rules that may leak.
    """

    name: str
    rule: Rule
    chooses: str
    means: str
    against_chance: bool = False
    by_taste: bool = False
    cautions_from: float | None = None


SHORTCUTS = (
    Shortcut(
        "position",
        rules.position,
        "the index that most often holds the answer",
        "Answers stand at a fixed place.",
    ),
    Shortcut(
        "position of the answer",
        rules.position_of_answer,
        "the candidate at the index where it last stood as an answer",
        "The order of a list is a function of its answer.",
    ),
    Shortcut(
        "popularity",
        rules.popularity,
        "the candidate at the place in popularity that answers usually hold",
        "Negatives were chosen by their popularity.",
        by_taste=True,
    ),
    Shortcut(
        "seen as answer",
        rules.seen_as_answer,
        "the candidate that was right in the largest part of its lists",
        "Answers and negatives come from different parts of the catalogue.",
        by_taste=True,
    ),
    Shortcut(
        "list overlap",
        rules.list_overlap,
        "the candidate whose earlier list as the answer shares most items with this one",
        "The negatives of a list are a function of its answer.",
    ),
    Shortcut(
        "answer in history",
        rules.history,
        "by whether a candidate stands in the history",
        "Answers stand in the history where negatives do not, or the other way round.",
        against_chance=True,
    ),
    Shortcut(
        "items from the future",
        rules.consumed_before,
        "a candidate that someone had consumed before the moment",
        "Negatives were taken from items that did not exist yet.",
    ),
    Shortcut(
        "title length",
        text_rules.title_length,
        "the shortest title, the longest or one between, as answers usually are,",
        "The titles of answers and of negatives were written in different ways.",
        by_taste=True,
    ),
    Shortcut(
        "title form",
        text_rules.title_form,
        "the title whose case and punctuation are an answer's, or stand out,",
        "The titles of answers and of negatives were written in different ways.",
        by_taste=True,
    ),
    Shortcut(
        "words of the prompt",
        text_rules.shared_words,
        "the title that has most words in common with the prompt",
        "Good answers do so too, such as sequels; but no preference is needed to find them.",
        against_chance=True,
        cautions_from=0.2,
    ),
)
