"""All probes on one subject."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palate.audit.findings import Audit, Finding
from palate.audit.list_probes import negatives, repeated_titles
from palate.audit.log_probes import copied_users, degenerate_users, duplicate_titles, ties
from palate.audit.material import MOST_LISTS, Material, material
from palate.audit.rules import Known
from palate.audit.shortcuts import shortcuts
from palate.audit.split_probes import of_split
from palate.audit.titles import Titles


def audit(
    path: Path | str,
    source: str | None = None,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    changes: Sequence[str] = (),
) -> Audit:
    """Probe data or candidate files for leaks and shortcuts, without a model.

    Args:
        path: a run folder, prepared data, candidate files, or what a source reads.
        source: name of the source that reads the path; None: told from the path.
        options: the source's options.
        seed: names every draw.
        changes: keys of the data section as a run takes them after `--set`, such as
            "data.split=by_user", where the files are not prepared yet.

    Raises:
        DataError: there is nothing at the path that can be audited.
        ConfigError: there is no such source, it has no such option, or a change is wrong.
    """
    with material(Path(path), source, options, seed, changes) as subject:
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
        repeated_titles(subject.repeats, seed),
        *negatives(subject, scored, seed),
        *of_split(subject, skipped, seed),
        ties(subject, seed),
        degenerate_users(subject, seed),
        copied_users(subject, seed),
        duplicate_titles(subject, seed),
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
    return Known(data.n_items, counts if is_apart else None, first_seen, Titles(data.titles()), log)
