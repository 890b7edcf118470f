"""What a log and its catalogue hold that a score should not rest on."""

import numpy as np

from palate.audit import structure
from palate.audit.copies import LEAST_EVENTS, alike_users
from palate.audit.findings import NEVER, Finding, per_cent, share_finding
from palate.audit.material import Material


def ties(subject: Material, seed: int) -> Finding | None:
    """Interactions whose order within a second is not known; None without times."""
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
    return share_finding(
        "tied timestamps",
        "log",
        flags,
        log.users,
        (0.05, NEVER),
        f"{found}.",
        "The order within a tie is not known, and with it what was next. Compare only runs with "
        "the same rule, and never sort ties by item id.",
        seed,
        copies=alike_users(log)[log.users],
    )


def degenerate_users(subject: Material, seed: int) -> Finding:
    """Users whose order says nothing."""
    log = subject.contexts.interactions
    flags = structure.degenerate_users(log)
    return share_finding(
        "degenerate users",
        "log",
        flags,
        np.arange(len(flags)),
        (0.05, NEVER),
        "{share} of the users have one item only, or did everything in one second.",
        "Their order says nothing. Drop them from the log, or raise data.k_core.",
        seed,
    )


def duplicate_titles(subject: Material, seed: int) -> Finding:
    """Items that share their title."""
    flags = structure.duplicate_titles(subject.data.titles())
    return share_finding(
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


def copied_users(subject: Material, seed: int) -> Finding:
    """Users who did the same as another in the same order."""
    alike = alike_users(subject.contexts.interactions)
    counts = np.bincount(alike, minlength=len(alike))
    flags = counts[alike] > 1
    largest = int(counts.max(initial=0))
    return share_finding(
        "copied users",
        "log",
        flags,
        np.arange(len(flags)),
        (0.01, NEVER),
        f"{{share}} of the users ({int(flags.sum()):,} of {len(flags):,}) have the same "
        f"{LEAST_EVENTS} items or more in the same order as another"
        + (f"; the largest group has {largest:,}." if largest > 1 else "."),
        "An interval by user takes one person for many. Read the one where copies count as one, or "
        "keep each sequence once.",
        seed,
    )
