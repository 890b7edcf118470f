"""All probes on one subject."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from palate.audit import structure
from palate.audit.candidate_rows import Repeats
from palate.audit.findings import (
    LEAK_LIFT,
    NEVER,
    Audit,
    Finding,
    per_cent,
    verdict_on_share,
)
from palate.audit.lists import Lists, redrawn
from palate.audit.material import MOST_LISTS, Material, material
from palate.audit.rules import Known
from palate.audit.shortcuts import shortcuts
from palate.evaluation.significance import bootstrap_interval


def audit(
    path: Path | str,
    source: str | None = None,
    options: dict[str, Any] | None = None,
    seed: int = 0,
) -> Audit:
    """Probe data or candidate files for leaks and shortcuts, without a model.

    Args:
        path: a run folder, prepared data, candidate files, or what a source reads.
        source: name of the source that reads the path; None: told from the path.
        options: the source's options.
        seed: names every draw.

    Raises:
        DataError: there is nothing at the path that can be audited.
        ConfigError: there is no such source, or it has no such option.
    """
    with material(Path(path), source, options, seed) as subject:
        return audit_of(subject, seed)


def read_audit(folder: Path) -> Audit | None:
    """What a run's own audit found; None where the run has none."""
    path = folder / "audit.json"
    return Audit.from_json(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def audit_of(subject: Material, seed: int = 0) -> Audit:
    """Every finding on some material."""
    scored = subject.lists.sample(MOST_LISTS, seed, "audit sample")
    earlier = subject.earlier
    if earlier is not None:
        earlier = earlier.sample(MOST_LISTS, seed, "audit earlier sample")
    findings: list[Finding] = []
    skipped: dict[str, str] = {}
    if earlier is None and len(np.unique(scored.persons)) < 2:
        skipped["shortcuts"] = "one person's lists leave none to learn a rule from"
    else:
        findings += shortcuts(scored, earlier, _known(subject), seed)
    if subject.contexts.interactions.timestamps is None:
        for probe in ("items from the future", "training after the test", "tied timestamps"):
            skipped[probe] = "no timestamps"
    for found in (
        _repeated(subject.repeats, seed),
        *_negatives(subject, scored, seed),
        *_of_split(subject, skipped, seed),
        _ties(subject, seed),
        _users(subject, seed),
        _titles(subject, seed),
    ):
        findings += [found] if found is not None else []
    if subject.repeats is None:
        skipped["repeated titles"] = "lists of prepared data hold each item once"
    looked_at = f"{len(scored):,} of {len(subject.lists):,} {subject.split} {subject.whose}"
    return Audit(subject.name, tuple(findings), skipped, looked_at)


def _known(subject: Material) -> Known:
    data, log = subject.data, subject.contexts.interactions
    first_seen = None
    if log.timestamps is not None:
        first_seen = np.full(data.n_items, np.iinfo(np.int64).max)
        np.minimum.at(first_seen, log.items, log.timestamps)
    counts = data.popularity  # of the very answers, where training itself is judged
    is_apart = subject.split != "train" and counts.any()
    return Known(data.n_items, counts if is_apart else None, first_seen)


def _share(
    probe: str,
    about: str,
    values: ArrayLike,
    persons: ArrayLike,
    limits: tuple[float, float],
    found: str,
    advice: str,
    seed: int,
    null: float | None = None,
) -> Finding:
    """A finding on the mean of some values, its verdict from the two limits."""
    share, low, high = bootstrap_interval(np.asarray(values, float), persons, seed)
    verdict = verdict_on_share(low, *limits)
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
    )


def _repeated(repeats: Repeats | None, seed: int) -> Finding | None:
    if repeats is None or not len(repeats.repeated):
        return None
    excess = float(np.mean(repeats.answer - repeats.by_chance))
    finding = _share(
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


def _negatives(subject: Material, scored: Lists, seed: int) -> list[Finding]:
    """Findings on negatives that are not as wrong as they should be, against redrawn ones."""
    titles = subject.data.titles()
    anew = redrawn(scored, subject.data.n_items, seed, "audit redraw", 0)

    def finding(
        probe: str, flags: Callable[[Lists], structure.Flags], words: str, advice: str
    ) -> Finding:
        null = float(np.mean(flags(anew)))
        found = f"In {{share}} of the lists {words}, on redrawn lists in {per_cent(null)}."
        limits = (0.05, NEVER)
        persons = scored.persons
        return _share(probe, "lists", flags(scored), persons, limits, found, advice, seed, null)

    return [
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


def _of_split(subject: Material, skipped: dict[str, str], seed: int) -> list[Finding]:
    """Findings on how the contexts stand to what was trained on."""
    contexts, log = subject.contexts, subject.contexts.interactions
    users, split = contexts.users, subject.split
    rows = np.arange(len(log.items))
    starts = log.split_starts
    in_training = (rows >= starts["train"][log.users]) & (rows < starts["validation"][log.users])
    if split == "train" or not in_training.any():
        for probe in ("shared windows", "shared histories", "unseen answers"):
            skipped[probe] = "no training data beside it"
        return []
    training = rows[in_training]
    trains = starts["validation"] > starts["train"]
    trained_on = rows[trains[log.users] & (rows < starts["validation"][log.users])]
    answers = np.array([context.positives[0] for context in contexts])
    findings = [
        _share(
            "shared windows",
            "split",
            structure.shared_windows(contexts, training),
            users,
            (0.01, 0.05),
            f"{{share}} of the {split} windows, history and answer, stand in another user's "
            "training data.",
            "What was trained on is asked again. Remove these windows from one of the files, or "
            "split by user with --set data.split=by_user.",
            seed,
        ),
        _share(
            "shared histories",
            "split",
            structure.shared_histories(contexts, trained_on),
            users,
            (0.05, NEVER),
            f"{{share}} of the {split} histories stand in the training data of a user with another "
            "id.",
            "The same people seem to be on both sides of a split by user. Give them one id, and "
            "split again.",
            seed,
        ),
        _share(
            "unseen answers",
            "split",
            ~np.isin(answers, log.items[trained_on]),
            users,
            (0.05, NEVER),
            f"{{share}} of the {split} answers never occur in training.",
            "A policy that knows items by id alone cannot rank them. Say so beside the result, or "
            "use a policy that reads titles.",
            seed,
        ),
    ]
    if (later := structure.later_training(contexts, training)) is not None:
        findings.append(
            _share(
                "training after the test",
                "split",
                later,
                users,
                (0.05, NEVER),
                f"{{share}} of the training interactions came after the {split} moment they are "
                "judged by, on average.",
                "A policy has seen what others did later. For figures that hold in use take "
                "--set data.split=global_time.",
                seed,
            )
        )
    return findings


def _ties(subject: Material, seed: int) -> Finding | None:
    log = subject.contexts.interactions
    flags = structure.tied(log)
    if flags is None:
        return None
    found = "{share} of the interactions share their second with another of the same user"
    if "tied_groups" in subject.ties:
        ties = subject.ties
        found += (
            f" ({ties['tied_groups']:,} groups, {per_cent(ties['share_in_item_id_order'])} of "
            f"them in item-id order in the source). Rule used: {ties['rule']}"
        )
    return _share(
        "tied timestamps",
        "log",
        flags,
        log.users,
        (0.05, NEVER),
        f"{found}.",
        "The order within a tie is not known, and with it what was next. Compare only runs with "
        "the same rule, and never sort ties by item id.",
        seed,
    )


def _users(subject: Material, seed: int) -> Finding:
    log = subject.contexts.interactions
    flags = structure.degenerate_users(log)
    return _share(
        "degenerate users",
        "log",
        flags,
        np.arange(len(flags)),
        (0.05, NEVER),
        "{share} of the users have one item only, or did everything in one second.",
        "Their order says nothing. Drop them from the log, or raise data.k_core.",
        seed,
    )


def _titles(subject: Material, seed: int) -> Finding:
    flags = structure.duplicate_titles(subject.data.titles())
    return _share(
        "duplicate titles",
        "catalogue",
        flags,
        np.arange(len(flags)),
        (0.01, NEVER),
        "{share} of the items share their title with another, letters and figures alone compared.",
        "A policy that reads titles cannot tell them apart. Merge the items, or add what "
        "distinguishes them (a year, an author) to the title.",
        seed,
    )
