"""Histories as tensors, and the places in them at which a model answers."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from palate.data.contexts import Context, Ids
from palate.errors import DataError
from palate.policies.policy import Batch
from palate.policies.sequence.moments import Moments
from palate.policies.sequence.times import days_since_first, interval_buckets


def history_tensors(items: Sequence[Ids], times: Sequence[Ids | None] | None) -> Batch:
    """`history` (R, L), shorter ones filled with 0; `intervals` and `days` with the times given.

    Args:
        items: item ids of R histories.
        times: Unix seconds of their items, None for those without a clock; None for a model that
            reads no times.
    """
    batch: Batch = {"history": _right_padded(items, np.int64)}
    if times is not None:
        known = [
            np.empty(0, np.int64) if clock is None else clock[: len(read)]
            for read, clock in zip(items, times, strict=True)
        ]
        longest = batch["history"].shape[1]
        intervals = [interval_buckets(clock) for clock in known]
        batch["intervals"] = _right_padded(intervals, np.int64, longest)
        days = [days_since_first(clock) for clock in known]
        batch["days"] = _right_padded(days, np.float32, longest)
    return batch


def places(contexts: Sequence[Context], longest: int, reads_times: bool) -> Batch:
    """Histories (R, L), and for each context its row and its column in them.

    A history that begins another one of the batch is not read twice.

    Args:
        contexts: B contexts.
        longest: most recent items to read where a context does not say from which one on.
        reads_times: whether times are read too, and told apart by.

    Raises:
        DataError: a context has an empty history.
    """
    windows = [_window(context, longest, reads_times) for context in contexts]
    read: dict[int, list[int]] = defaultdict(list)
    histories: list[tuple[Ids, Ids | None]] = []
    rows = np.zeros(len(contexts), np.int64)
    for place in sorted(range(len(windows)), key=lambda place: -len(windows[place][0])):
        window, user = windows[place], contexts[place].user_id
        if len(window[0]) == 0:
            raise DataError(
                f"context {contexts[place].context_id} has an empty history; a sequence "
                "policy needs at least one item. Recommend popular items to newcomers, or use "
                "a language policy."
            )
        row = next((r for r in read[user] if _begins(window, histories[r])), len(histories))
        if row == len(histories):
            histories.append(window)
            read[user].append(row)
        rows[place] = row
    columns = np.array([len(items) - 1 for items, _ in windows])
    times = [clock for _, clock in histories] if reads_times else None
    return {
        **history_tensors([items for items, _ in histories], times),
        "rows": torch.from_numpy(rows),
        "columns": torch.from_numpy(columns),
    }


def moments_of(batch: Batch) -> Moments:
    """The part of a batch that says at which places to answer."""
    return Moments(**{name: batch[name] for name in Moments._fields if name in batch})


def _window(context: Context, longest: int, reads_times: bool) -> tuple[Ids, Ids | None]:
    first = -longest if context.first_read is None else context.first_read
    times = context.times[first:] if reads_times and context.times is not None else None
    return context.history[first:], times


def _begins(one: tuple[Ids, Ids | None], other: tuple[Ids, Ids | None]) -> bool:
    """Whether a history is the beginning of another one, times included."""
    (items, times), (longer, its_times) = one, other
    same = np.array_equal(longer[: len(items)], items)
    if times is None or its_times is None:
        return same and times is its_times
    return same and np.array_equal(its_times[: len(items)], times)


def _right_padded(
    rows: Sequence[NDArray[Any]], dtype: type, longest: int | None = None
) -> torch.Tensor:
    padded = np.zeros((len(rows), longest or max(map(len, rows))), dtype)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values
    return torch.from_numpy(padded)
