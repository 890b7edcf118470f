"""The best items for everyone in a log."""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from palate.data.contexts import Ids
from palate.data.tables import SKIP
from palate.errors import CheckpointError, ConfigError, DataWarning
from palate.evaluation.ranking import steps
from palate.policies import LanguagePolicy, Policy, SequencePolicy
from palate.policies.policy import highest
from palate.recommend.choice import items_of
from palate.recommend.people import Person, people_of

BATCH = 32
POLICY, POPULARITY = "policy", "popularity"
"""Whose the list of a person is."""


def recommend(
    policy: Policy,
    log: Path,
    columns: Mapping[str, str],
    top: int = 10,
    *,
    popularity: Ids | None = None,
    allow: Sequence[object] | None = None,
    block: Sequence[object] = (),
    keep_seen: bool = False,
    on_bad_rows: Literal["error", "drop"] = "error",
    shown: Collection[str] = (SKIP,),
) -> pa.Table:
    """The best items for everyone in a log, without those they have had.

    Somebody's list does not depend on who else is in the log.

    Args:
        policy: a policy with a catalogue.
        log: interactions as the source `files` reads them, in the ids of the policy's source.
        columns: our name of a column → the file's.
        top: items in a list.
        popularity: (items,) how often each was consumed in training: the list of people of whom
            the policy knows no item. None: such people get no list.
        allow: item ids of the source, of which alone lists are made; None for all.
        block: item ids that no list holds.
        keep_seen: let lists hold what people have had.
        on_bad_rows: "drop" leaves out rows of the log that cannot be read, and counts them.
        shown: events of what was shown and passed over.

    Returns:
        user_id, rank (1 is best), item_id, title, score (log π; of popularity the logarithm of an
        item's share in training, each counted once more), by ("policy" or "popularity"); users in
        the order of their first rows in time.

    Raises:
        DataError: the log is unreadable, or names no item that the policy knows where no
            popularity is given; or allow and block leave nothing.
        CheckpointError: the policy has no catalogue, or its scores are not finite.
        ConfigError: the policy reads dialogues.
    """
    if policy.items is None:
        raise CheckpointError("this policy has no catalogue to recommend from; give a run folder.")
    if getattr(getattr(policy, "prompter", None), "shows_dialogue", False):
        raise ConfigError(
            "this policy's prompts hold a dialogue, which a log has none of; recommend takes "
            "policies that read histories."
        )
    names = [str(name) for name in policy.items["source_id"].to_pylist()]
    people = people_of(log, columns, names, on_bad_rows, shown, popularity is None)
    may_be = items_of(names, allow, block)
    top = min(top, len(names))
    ids = np.zeros((len(people), top), np.int64)
    scores = np.full((len(people), top), -np.inf, np.float32)
    is_known = np.array([len(person.items) > 0 for person in people])
    if popularity is not None and not is_known.all():
        counts = np.where(may_be, np.asarray(popularity) + 1.0, 0.0)
        best = np.argsort(-counts, kind="stable")[:top]
        with np.errstate(divide="ignore"):
            shares = np.log(counts[best] / (np.asarray(popularity) + 1.0).sum())
        ids[~is_known], scores[~is_known] = best, shares
    for rows in _batches(policy, people, np.flatnonzero(is_known)):
        legal = np.tile(may_be, (len(rows), 1))
        if not keep_seen:
            for place, row in enumerate(rows):
                legal[place, people[row].items] = False
        ids[rows], scores[rows] = _best(policy, [people[row] for row in rows], legal, top)
    _tell(log, is_known, scores, popularity is not None)
    return _table(policy.items, people, is_known, ids, scores)


def _batches(policy: Policy, people: Sequence[Person], rows: Ids) -> Iterator[Ids]:
    """Rows of people whose lists are made together: histories of one length, read alike."""
    size = _together(policy)
    reads: Any = getattr(policy, "max_history", None)
    lengths = np.array([len(people[row].items) for row in rows], np.int64).clip(max=reads)
    by_length = rows[np.argsort(lengths, kind="stable")]
    ends = np.cumsum(np.unique(lengths, return_counts=True)[1])
    parts = np.split(by_length, ends[:-1]) if size > 1 else [rows]
    batches = [part[start : start + size] for part in parts for start in range(0, len(part), size)]
    for number in steps(len(batches), 1, "recommend"):
        yield batches[number]


def _together(policy: Policy) -> int:
    """People who are read at once.

    What a model computes for one of a batch depends, in the last digits and in 16 bits in more than
    these, on the shape of the batch. So the shape is the same whoever is in the log: `BATCH`
    histories of one length, and one prompt, or one history where experts sort the tokens of all.
    """
    if isinstance(policy, LanguagePolicy):
        return 1
    model: Any = policy.model
    return 1 if isinstance(policy, SequencePolicy) and model.config.experts else BATCH


def _best(
    policy: Policy, people: Sequence[Person], legal: NDArray[np.bool_], top: int
) -> tuple[Ids, NDArray[np.float32]]:
    """(people, top) the best legal items of each and their scores; −inf where none was left."""
    ids = np.zeros((len(people), top), np.int64)
    scores = np.full((len(people), top), -np.inf, np.float32)
    if not legal.any():
        return ids, scores
    if isinstance(policy, LanguagePolicy):
        contexts = [person.context(row) for row, person in enumerate(people)]
        ranking = policy.rank(contexts, top, exclude_history=False, allowed=legal)
        width = ranking.scores.shape[1]
        ids[:, :width], scores[:, :width] = ranking
        _check_finite(scores, people, has_one=True)
        return ids, scores
    full = [people[min(row, len(people) - 1)] for row in range(_together(policy))]
    contexts = [person.context(row) for row, person in enumerate(full)]
    log_probs = policy.catalogue_log_probs(contexts)[: len(people)].float()
    _check_finite(log_probs.cpu().numpy(), people)
    is_legal = torch.from_numpy(legal).to(log_probs.device)
    values, items = highest(log_probs.masked_fill(~is_legal, -torch.inf), top)
    return items.cpu().numpy(), values.cpu().numpy()


def _check_finite(
    scores: NDArray[np.float32], people: Sequence[Person], has_one: bool = False
) -> None:
    """Raise a CheckpointError for scores that rank nothing.

    Args:
        scores: (people, some); −inf is an item that a policy never gives.
        people: whose they are.
        has_one: whether the first score of each is that of an item.
    """
    bad = np.isnan(scores).any(axis=1) | np.isposinf(scores).any(axis=1)
    if has_one:
        bad |= ~np.isfinite(scores[:, 0])
    for row in np.flatnonzero(bad).tolist():
        raise CheckpointError(
            f"the policy's scores for user {people[row].user_id} are not finite numbers, so there "
            "is no list to make of them. Its weights are damaged, or too large for its precision; "
            "train it again."
        )


def _tell(
    log: Path,
    is_known: NDArray[np.bool_],
    scores: NDArray[np.float32],
    has_popularity: bool,
) -> None:
    """What must be known of some lists."""
    total, newcomers = len(is_known), int((~is_known).sum())
    lengths = (scores > -np.inf).sum(axis=1)
    short = int((lengths[is_known | has_popularity] < scores.shape[1]).sum())
    said = []
    if newcomers and has_popularity:
        said.append(
            f"{newcomers:,} of {total:,} people have no item that the policy knows; theirs are the "
            f"most popular items, with {POPULARITY} in the column by"
        )
    elif newcomers:
        said.append(
            f"{newcomers:,} of {total:,} people have no item that the policy knows, and get no "
            "list; give the run folder, whose data tells what is popular"
        )
    if short:
        said.append(
            f"{short:,} of {total:,} people get fewer than {scores.shape[1]} items, as no more are "
            "left for them"
        )
    for one in said:
        warnings.warn(f"{log}: {one}.", DataWarning, stacklevel=3)


def _table(
    items: pa.Table,
    people: Sequence[Person],
    is_known: NDArray[np.bool_],
    ids: Ids,
    scores: NDArray[np.float32],
) -> pa.Table:
    row, place = np.nonzero(scores > -np.inf)
    chosen = pa.array(ids[row, place])
    return pa.table(
        {
            "user_id": pa.array([person.user_id for person in people]).take(pa.array(row)),
            "rank": place + 1,
            "item_id": items["source_id"].take(chosen),
            "title": items["title"].take(chosen),
            "score": scores[row, place].astype(np.float64),
            "by": np.where(is_known, POLICY, POPULARITY)[row],
        }
    )
