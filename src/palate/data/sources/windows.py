"""Windows: a history and what came next, each as a user of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from palate.data.sources.titles import ItemId


@dataclass(frozen=True)
class Window:
    """One moment as published files give it.

    Attributes:
        history: item ids, oldest first; empty for none.
        answer: the item that came next.
        candidates: the items shown, in their order, the answer among them; None for no list.
    """

    history: Sequence[ItemId]
    answer: ItemId
    candidates: Sequence[ItemId] | None = None


def window_tables(
    windows: Iterable[tuple[str, Window]], first_user: int = 0
) -> tuple[pa.Table, pa.Table | None]:
    """Interactions (with `split`) and lists (or None) of windows, each with its split.

    Every window is a user of its own, numbered from `first_user`: the rows of its history, then
    one row for its answer.
    """
    users, items, splits = [], [], []
    listed_users, listed_items = [], []
    for user, (split, window) in enumerate(windows, first_user):
        users += [user] * (len(window.history) + 1)
        items += [*window.history, window.answer]
        splits += ["history"] * len(window.history) + [split]
        if window.candidates is not None:
            listed_users += [user] * len(window.candidates)
            listed_items += window.candidates
    interactions = pa.table({"user_id": users, "item_id": items, "split": splits})
    if not listed_users:
        return interactions, None
    return interactions, pa.table({"user_id": listed_users, "item_id": listed_items})
