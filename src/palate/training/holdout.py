"""Training histories in two parts: what imitation sees, and what only alignment does."""

from copy import copy
from dataclasses import replace

import numpy as np

from palate.data.contexts import Ids
from palate.data.prepared import Prepared
from palate.errors import DataError


def split_training(data: Prepared, share: float) -> tuple[Prepared, Prepared]:
    """Prepared data whose training ends where the held-out part begins, and begins there.

    Of a user's n training interactions the last round(share · n) are held out, at least one is
    not; a dialogue's turn is never divided. In the second part the first one is history. What
    training tells of items and users (`popularity`, `observed_negatives`) is that of all of it in
    both. Both are for training alone: validation begins elsewhere in the first.

    Args:
        data: prepared data.
        share: in [0, 1); 0 gives all to both.

    Raises:
        DataError: all histories are too short for anything to be held out.
    """
    if share == 0:
        return data, data
    starts = data.interactions.split_starts
    begins = held_out_from(data, share)
    return (
        _with_training(data, starts["train"], begins),
        _with_training(data, begins, starts["validation"]),
    )


def held_out_from(data: Prepared, share: float) -> Ids:
    """(users,) the row at which each user's held-out part begins."""
    log = data.interactions
    first, end = log.split_starts["train"], log.split_starts["validation"]
    n_rows = end - first
    held_out = np.minimum((share * n_rows + 0.5).astype(np.int64), n_rows - 1).clip(min=0)
    begins = end - held_out
    if log.turn_starts is not None:
        some = held_out > 0
        begins[some] = log.turn_starts[begins[some]]
        begins = np.where(begins > first, begins, end)  # one long turn stays with imitation
    if (begins == end).all():
        raise DataError(
            f"align.holdout: a share of {share:g} holds out nothing, as training histories have at "
            f"most {n_rows.max()} interactions. Set it to 0, or to a larger share."
        )
    return begins


def _with_training(data: Prepared, first: Ids, end: Ids) -> Prepared:
    part = copy(data)
    starts = {**data.interactions.split_starts, "train": first, "validation": end}
    part.interactions = replace(data.interactions, split_starts=starts)
    part.popularity = data.popularity
    part.observed_negatives = data.observed_negatives
    part.__dict__.pop("training_histories", None)
    return part
