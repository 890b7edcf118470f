"""What a probe found, and the verdict on it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from palate.evaluation.significance import bootstrap_interval

Verdict = Literal["ok", "caution", "leak"]
VERDICTS: tuple[Verdict, ...] = ("ok", "caution", "leak")
LEAK_LIFT = 0.05
"""HR@1 over the redrawn lists from which a rule without a model is a leak."""
CAUTION_LIFT = 0.03
"""The same from which it is a caution."""
NEVER = 2.0
"""A limit that no share reaches: such a probe gives no leak."""
LEVEL = 0.05 / 10
"""A lift counts where its p-value over persons is below this: 5 % shared by ten rules."""
REDRAW_ERRORS = 5.0
"""… and where it is this many times as large as the score varies between redraws: a rule that
learnt from few lists is lucky or not on all rows at once, which no test over persons sees."""


@dataclass(frozen=True)
class Finding:
    """One probe's result.

    Attributes:
        probe: name of the probe.
        about: "lists" (the candidates shown), "split", "log" or "catalogue".
        measure: what the score is: "HR@1" of a rule without a model, or a "share".
        score, low, high: the score and its 95 % interval over persons.
        null: the same score on redrawn, reshuffled lists, or chance; None where there is none.
        verdict: "ok", "caution" or "leak".
        found: what was found, for people.
        advice: what to do about it; empty when all is well.
        n: rows, items, users or interactions that were looked at.
        copies_as_one: the interval over persons where those who are copies of one another (five
            events or more, the same in the same order) count as one; None where there are none.
    """

    probe: str
    about: str
    measure: str
    score: float
    low: float
    high: float
    null: float | None
    verdict: Verdict
    found: str
    advice: str
    n: int
    copies_as_one: tuple[float, float] | None = None


@dataclass(frozen=True)
class Audit:
    """All findings on one subject.

    Attributes:
        subject: what was audited.
        findings: one per probe that applies.
        skipped: probe → why it does not apply.
        lists: which lists were looked at.
    """

    subject: str
    findings: tuple[Finding, ...]
    skipped: dict[str, str]
    lists: str

    @property
    def verdict(self) -> Verdict:
        """The gravest of all verdicts."""
        return worst(finding.verdict for finding in self.findings)

    def verdict_on(self, about: str) -> Verdict:
        """The gravest verdict on the lists, the split, the log or the catalogue."""
        return worst(finding.verdict for finding in self.findings if finding.about == about)

    def leaks(self) -> tuple[Finding, ...]:
        """The findings that are leaks, the greatest score first."""
        found = [finding for finding in self.findings if finding.verdict == "leak"]
        return tuple(sorted(found, key=lambda finding: -finding.score))

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes and `audit.json` holds."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "lists": self.lists,
            "findings": [vars(finding) for finding in self.findings],
            "skipped": self.skipped,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Audit":
        """What `to_json` gave."""
        findings = tuple(_finding(one) for one in content["findings"])
        return cls(content["subject"], findings, content["skipped"], content["lists"])


def _finding(content: dict[str, Any]) -> Finding:
    pair = content.get("copies_as_one")
    return Finding(**{**content, "copies_as_one": None if pair is None else tuple(pair)})


def interval(values: ArrayLike, persons: ArrayLike, seed: int) -> tuple[float, float, float]:
    """Mean and 95 % interval over persons, without a draw where all values are one."""
    own = np.asarray(values, float)
    if own.size and (own == own.flat[0]).all():
        mean = float(own.flat[0])
        return mean, mean, mean
    return bootstrap_interval(own, persons, seed)


def interval_of_copies(
    values: ArrayLike, persons: ArrayLike, copies: ArrayLike, seed: int
) -> tuple[float, float] | None:
    """95 % interval of a mean that resamples copies as one; None where nobody is a copy.

    Args:
        values: (C,) one per row.
        persons: (C,) who is behind each.
        copies: (C,) the same, with copies of one another under one number.
        seed: names the draws.
    """
    if len(np.unique(persons)) == len(np.unique(copies)):
        return None
    return interval(values, copies, seed)[1:]


def share_finding(
    probe: str,
    about: str,
    values: ArrayLike,
    persons: ArrayLike,
    limits: tuple[float, float],
    found: str,
    advice: str,
    seed: int,
    null: float | None = None,
    copies: ArrayLike | None = None,
    less: ArrayLike = 0.0,
) -> Finding:
    """A finding on the mean of some values, its verdict from the two limits.

    Args:
        copies: whose each value is, copies as one; None where there are no persons.
        less: what the values would be by chance, to be taken off before the limits are looked at.
    """
    share, low, high = interval(values, persons, seed)
    chance = np.broadcast_to(np.asarray(less, float), np.shape(values))
    beyond = low
    if chance.any():
        beyond = bootstrap_interval(np.asarray(values, float) - chance, persons, seed)[1]
    verdict = verdict_on_share(beyond, *limits)
    return Finding(
        probe=probe,
        about=about,
        measure="share",
        score=share,
        low=low,
        high=high,
        null=null,
        verdict=verdict,
        found=found.format(share=per_cent(share)),
        advice="" if verdict == "ok" else advice,
        n=np.size(values),
        copies_as_one=None if copies is None else interval_of_copies(values, persons, copies, seed),
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of some verdicts; "ok" for none."""
    return VERDICTS[max((VERDICTS.index(verdict) for verdict in verdicts), default=0)]


def verdict_on_lift(lift: float, p: float, error: float) -> Verdict:
    """Verdict on a rule's HR@1 less that on redrawn lists.

    Args:
        lift: the difference.
        p: its p-value over persons.
        error: standard error of the difference over redraws.
    """
    if p >= LEVEL or lift < REDRAW_ERRORS * error:
        return "ok"
    return "leak" if lift >= LEAK_LIFT else "caution" if lift >= CAUTION_LIFT else "ok"


def verdict_on_share(low: float, caution: float, leak: float) -> Verdict:
    """Verdict on the lower end of a share's interval, by where caution and leak begin."""
    return "leak" if low >= leak else "caution" if low >= caution else "ok"


def per_cent(share: float) -> str:
    """A share for people: 55.3 %."""
    return f"{100 * share:.1f} %"
