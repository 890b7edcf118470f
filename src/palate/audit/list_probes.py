"""What stands in candidate lists that should not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from palate.audit import structure
from palate.audit.candidate_rows import Repeats
from palate.audit.findings import LEAK_LIFT, NEVER, Finding, per_cent, share_finding
from palate.audit.lists import Lists, redrawn
from palate.audit.material import Material

REPEATS = 0.05
"""Share of answers that stand in the history from which on repeated consumption is normal."""


def repeated_titles(repeats: Repeats | None, seed: int) -> Finding | None:
    """Lists that hold a title twice, and whether it is the answer."""
    if repeats is None or not len(repeats.repeated):
        return None
    excess = float(np.mean(repeats.answer - repeats.by_chance))
    finding = share_finding(
        "repeated titles",
        "lists",
        repeats.repeated,
        np.arange(len(repeats.repeated)),
        (1e-9, NEVER),
        "{share} of the lists hold a title twice; the answer is among those titles in "
        f"{per_cent(float(np.mean(repeats.answer)))} of the lists, by chance in "
        f"{per_cent(float(np.mean(repeats.by_chance)))}.",
        "A repeated title makes a list shorter than it says. Draw negatives without repetition.",
        seed,
    )
    if excess < LEAK_LIFT:
        return finding
    advice = f"A repeated title is the answer far more often than by chance. {finding.advice}"
    return replace(finding, verdict="leak", advice=advice)


def negatives(subject: Material, scored: Lists, seed: int) -> list[Finding]:
    """Findings on negatives that are not as wrong as they should be, against redrawn ones."""
    titles = subject.data.titles()
    anew = redrawn(scored, subject.data.n_items, seed, "audit redraw", 0)

    def finding(
        probe: str, flags: Callable[[Lists], structure.Flags], words: str, advice: str
    ) -> Finding:
        null = float(np.mean(flags(anew)))
        found = f"In {{share}} of the lists {words}, on redrawn lists in {per_cent(null)}."
        limits = (0.05, NEVER)
        return share_finding(
            probe,
            "lists",
            flags(scored),
            scored.persons,
            limits,
            found,
            advice,
            seed,
            null,
            copies=scored.clusters,
        )

    return [
        _from_history(scored, seed),
        finding(
            "nested titles",
            lambda lists: structure.nested_titles(lists, titles),
            "the answer's title stands within a negative's or holds one",
            "A text search for the answer counts such rows wrongly. Compare item ids or whole "
            "titles, as evaluate does.",
        ),
        finding(
            "liked items as negatives",
            structure.liked_negatives,
            "a negative is something the same person likes at another time",
            "A policy that ranks such an item first is counted wrong, so no score can reach 1. "
            "Draw negatives outside all that the person likes.",
        ),
    ]


def _from_history(scored: Lists, seed: int) -> Finding:
    """Negatives that the person consumed before: no rival to an answer that must be new."""
    flags, again = structure.history_negatives(scored), structure.answers_in_history(scored)
    share = float(np.mean(again))
    return share_finding(
        "history items as negatives",
        "lists",
        flags,
        scored.persons,
        (NEVER if share >= REPEATS else 0.05, NEVER),
        "In {share} of the lists a negative stands in the person's own history; the answer does in "
        f"{per_cent(share)}.",
        "Nobody takes these again, so a policy that leaves the history out has fewer rivals than "
        "the list says. Draw negatives outside the history, or leave it out for every policy.",
        seed,
        copies=scored.clusters,
    )
