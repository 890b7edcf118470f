"""Shortcuts: how often a rule without a model finds the answer, against redrawn lists."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from palate.audit import rules, text_rules
from palate.audit.findings import (
    LEAK_LIFT,
    Finding,
    interval,
    interval_of_copies,
    per_cent,
    verdict_on_lift,
)
from palate.audit.known_shortcuts import SHORTCUTS, Shortcut
from palate.audit.lists import Lists, redraws
from palate.audit.retrieved import in_order_of_retrieval
from palate.audit.rules import Known, Scores, hits, pairs_won
from palate.audit.structure import liked_negatives
from palate.evaluation.significance import paired_difference
from palate.randomness import integers

TEXT_RULES = (text_rules.title_length, text_rules.title_form, text_rules.shared_words)
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
TASTE_GAINS = 0.3
"""… and part of the way from the null to 1 up to which it may be; 0.22 in pairs of sushi."""
BY_TASTE = (
    "Or people agree on what is better: then a prior for each item does as much. Compare with "
    "sft_continued and the popularity baseline, and print this score beside every result."
)
RETRIEVED = (
    "The negatives stand in order, too, so this is a retriever's order, best first, and the score "
    "its own. A model that sees places can copy it: shuffle the lists, and print the score as the "
    "retriever's."
)
PRINT = "Print this score beside every result on these lists."
POPULAR = (
    "Uniform negatives are so much rarer than answers that popularity wins most lists by itself. "
    "Judge by the catalogue, and print the popularity baseline beside every result."
)

Parts = dict[int, list[tuple[NDArray[np.bool_], Lists, Lists]]]
"""id() of lists → for each fold its rows, the lists outside it and those in it."""


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
    parts: Parts = {}
    for lists in (scored, *anew) if len(folds) > 1 else ():
        parts[id(lists)] = [(fold, lists.subset(~fold), lists.subset(fold)) for fold in folds]
    order = partial(in_order_of_retrieval, scored, known, seed)
    is_timed = known.first_seen is not None and scored.times is not None
    is_written = known.titles is not None
    applies = [
        one
        for one in SHORTCUTS
        if (is_timed or one.rule is not rules.consumed_before)
        and (is_written or one.rule not in TEXT_RULES)
    ]
    found = [_finding(one, scored, earlier, drawn, parts, known, seed) for one in applies]
    leaks = [
        is_beyond_taste
        for one, (finding, is_beyond_taste) in zip(applies, found, strict=True)
        if one.by_taste and finding.verdict == "leak"
    ]
    if not any(leaks):
        found = [
            (_of_taste(one, finding), beyond)
            for one, (finding, beyond) in zip(applies, found, strict=True)
        ]
    return _of_retrieval({one.probe: one for one, _ in found}, order)


def _of_taste(shortcut: Shortcut, finding: Finding) -> Finding:
    """A leak as a caution, where what it reads of the items may be what people like."""
    if not shortcut.by_taste or finding.verdict != "leak":
        return finding
    return replace(finding, verdict="caution", advice=f"{shortcut.means} {BY_TASTE}")


def _of_retrieval(found: dict[str, Finding], in_order: Callable[[], bool]) -> list[Finding]:
    """Leaks of position as cautions, where a retriever's order explains them."""
    position, of_answer = found["position"], found["position of the answer"]
    explained = [position] if position.verdict == "leak" else []
    if of_answer.verdict == "leak" and of_answer.score < position.score + LEAK_LIFT:
        explained.append(of_answer)
    if position in explained and in_order():
        found |= {one.probe: replace(one, verdict="caution", advice=RETRIEVED) for one in explained}
    return list(found.values())


def _finding(
    shortcut: Shortcut,
    scored: Lists,
    earlier: Lists | None,
    drawn: Sequence[tuple[Lists, Lists | None]],
    parts: Parts,
    known: Known,
    seed: int,
) -> tuple[Finding, bool]:
    """What a rule finds, and whether it is more than people's agreement on items explains."""

    def across(lists: Lists, before: Lists | None) -> Scores:
        assert before is not None
        return shortcut.rule(before, lists, known)

    def within(lists: Lists, _: Lists | None) -> Scores:
        found = np.empty(lists.item_ids.shape)
        for fold, others, here in parts[id(lists)]:
            found[fold] = shortcut.rule(others, here, known)
        return found

    ways = ([across] if earlier is not None else []) + ([within] if parts else [])
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
    few = len(np.unique(scored.clusters)) < FEW_PERSONS
    rows = np.arange(len(scored))
    persons, copies = (rows, rows) if few else (scored.persons, scored.clusters)
    p = max(
        paired_difference(won, null, copies, seed, draws=1, permutations=2000)["p"]
        for null in (anew.mean(axis=0), chance)
    )
    score, low, high = interval(won, persons, seed)
    as_one = interval_of_copies(won, persons, copies, seed)
    expected = float(means.mean())
    to_beat = max(expected, float(chance.mean()))
    is_beaten = min(low, as_one[0] if as_one else low) > to_beat
    verdict = verdict_on_lift(score - to_beat, p, error) if is_beaten else "ok"
    room = (score - chance.mean()) / (1 - chance.mean())
    advice = "" if verdict == "ok" else f"{shortcut.means} {REDRAW}"
    if shortcut.cautions_from is not None:
        is_much = verdict != "ok" and room >= shortcut.cautions_from
        verdict, advice = ("caution", f"{shortcut.means} {PRINT}") if is_much else ("ok", "")
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
        copies_as_one=as_one,
    )
    gained = (score - to_beat) / (1 - to_beat) if to_beat < 1 else 0.0
    return finding, pairs_won(scores, scored) >= TASTE or gained >= TASTE_GAINS


def _bars_known(lists: Lists) -> bool:
    return float(np.mean(liked_negatives(lists))) < BARRED


def _folds(lists: Lists, seed: int) -> list[np.ndarray]:
    """(R,) masks that split the rows by person, each with rows in it and rows outside."""
    fold = integers(FOLDS, seed, "audit fold", lists.persons)
    return [fold == one for one in np.unique(fold)]
