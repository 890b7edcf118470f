"""Shortcuts: how often a rule without a model finds the answer, against redrawn lists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from palate.audit import rules
from palate.audit.findings import Finding, per_cent, verdict_on_lift
from palate.audit.lists import Lists, redraws
from palate.audit.rules import Known, Rule, Scores, hits, pairs_won
from palate.audit.structure import liked_negatives
from palate.evaluation.significance import bootstrap_interval, paired_difference
from palate.randomness import integers

FOLDS = 5
REDRAWS = 8
POPULARITY_WINS = 0.5
"""Part of the way from chance to 1 that popularity may go before lists are said to be won by it,
however they were drawn."""
BARRED = 0.01
"""Share of lists with a negative that the person likes, below which such negatives were barred."""
FEW_PERSONS = 10
"""Below this, lists are permuted instead of persons: so few signs could never be significant."""
REDRAW = (
    "Draw the negatives and the order anew from (seed, row), never from the answer, or rank the "
    "catalogue; until then print this score beside every result on these lists."
)
TASTE = 0.75
"""Share of the pairs of an answer and a negative up to which what a rule reads of the items may be
what people like. Where 5,000 people ranked ten kinds of sushi, the kind that more people prefer
wins 66 % of the pairs, and of jokes 62 %; negatives from other items than answers lose 90 %."""
BY_TASTE = (
    "Or people agree on what is better: then a prior for each item does as much. Compare with "
    "sft_continued and the popularity baseline, and print this score beside every result."
)
POPULAR = (
    "Uniform negatives are so much rarer than answers that popularity wins most lists by itself. "
    "Judge by the catalogue, and print the popularity baseline beside every result."
)


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
    """

    name: str
    rule: Rule
    chooses: str
    means: str
    against_chance: bool = False
    by_taste: bool = False


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
)


def shortcuts(scored: Lists, earlier: Lists | None, known: Known, seed: int) -> list[Finding]:
    """Findings of every rule that applies.

    The null is the mean over redraws. They bar what the person likes at another time where the
    lists do, for that alone makes popular negatives rarer.

    A rule learns from the earlier lists and is scored on `scored`; it is also learnt and scored
    in turn on parts of `scored` that share no person. The way with the greater lift counts.

    Args:
        scored: the lists to judge.
        earlier: lists of a split before; None for none.
        known: catalogue, popularity, times.
        seed: names the redraws, the folds and the bootstrap.
    """
    names = [(seed, "audit redraw", draw) for draw in range(REDRAWS)]
    anew = redraws(scored, known.n_items, names, _bars_known(scored))
    before: list[Lists | None] = [None] * REDRAWS
    if earlier is not None:
        names = [(*name, 1) for name in names]
        before = [*redraws(earlier, known.n_items, names, _bars_known(earlier))]
    drawn = list(zip(anew, before, strict=True))
    folds = _folds(scored, seed)
    is_timed = known.first_seen is not None and scored.times is not None
    applies = [one for one in SHORTCUTS if is_timed or one.rule is not rules.consumed_before]
    found = [_finding(one, scored, earlier, drawn, folds, known, seed) for one in applies]
    may_be_taste = all(
        pairs < TASTE for one, (_, pairs) in zip(applies, found, strict=True) if one.by_taste
    )
    return [
        _of_taste(one, finding) if one.by_taste and may_be_taste else finding
        for one, (finding, _) in zip(applies, found, strict=True)
    ]


def _of_taste(shortcut: Shortcut, finding: Finding) -> Finding:
    """A leak as a caution, for what it reads of the items may be what people like."""
    if finding.verdict != "leak":
        return finding
    return replace(finding, verdict="caution", advice=f"{shortcut.means} {BY_TASTE}")


def _finding(
    shortcut: Shortcut,
    scored: Lists,
    earlier: Lists | None,
    drawn: Sequence[tuple[Lists, Lists | None]],
    folds: Sequence[np.ndarray],
    known: Known,
    seed: int,
) -> tuple[Finding, float]:
    """What a rule finds, and the share of the pairs of answer and negative that it gets right."""

    def across(lists: Lists, before: Lists | None) -> Scores:
        assert before is not None
        return shortcut.rule(before, lists, known)

    def within(lists: Lists, _: Lists | None) -> Scores:
        found = np.empty(lists.item_ids.shape)
        for fold in folds:
            found[fold] = shortcut.rule(lists.subset(~fold), lists.subset(fold), known)
        return found

    ways = ([across] if earlier is not None else []) + ([within] if len(folds) > 1 else [])
    chance = 1.0 / scored.filled.sum(axis=1)
    found = []
    for way in ways:
        anew = [chance]
        if not shortcut.against_chance:
            anew = [hits(way(*one), one[0]) for one in drawn]
        scores = way(scored, earlier)
        found.append((hits(scores, scored), np.stack(anew), scores))
    won, anew, scores = max(
        found, key=lambda one: one[0].mean() - max(one[1].mean(), chance.mean())
    )
    means = anew.mean(axis=1)
    error = means.std(ddof=1) * np.sqrt(1 + 1 / REDRAWS) if len(means) > 1 else 0.0
    few = len(np.unique(scored.persons)) < FEW_PERSONS
    units = np.arange(len(scored)) if few else scored.persons
    p = max(
        paired_difference(won, null, units, seed, draws=1, permutations=2000)["p"]
        for null in (anew.mean(axis=0), chance)
    )
    score, low, high = bootstrap_interval(won, units, seed)
    expected = float(means.mean())
    to_beat = max(expected, float(chance.mean()))
    verdict = verdict_on_lift(score - to_beat, p, error) if low > to_beat else "ok"
    advice = "" if verdict == "ok" else f"{shortcut.means} {REDRAW}"
    room = (score - chance.mean()) / (1 - chance.mean())
    if shortcut.rule is rules.popularity and room >= POPULARITY_WINS and verdict == "ok":
        verdict, advice = "caution", POPULAR
    against = "by chance" if shortcut.against_chance else "on redrawn lists"
    finding = Finding(
        probe=shortcut.name,
        about="lists",
        measure="HR@1",
        score=score,
        low=low,
        high=high,
        null=expected,
        verdict=verdict,
        found=f"Choosing {shortcut.chooses} finds the answer in {per_cent(score)} of {len(won):,} "
        f"lists, {against} in {per_cent(expected)}.",
        advice=advice,
        n=len(won),
    )
    return finding, pairs_won(scores, scored)


def _bars_known(lists: Lists) -> bool:
    return float(np.mean(liked_negatives(lists))) < BARRED


def _folds(lists: Lists, seed: int) -> list[np.ndarray]:
    """(R,) masks that split the rows by person, each with rows in it and rows outside."""
    fold = integers(FOLDS, seed, "audit fold", lists.persons)
    return [fold == one for one in np.unique(fold)]
