# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""The choices by which a log becomes contexts."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow.compute as pc

from palate.data.feedback import Feedback, Meaning, feedback_of
from palate.data.tables import SKIP, SourceTables
from palate.errors import DataError, DataWarning

Split = Literal["leave_one_out", "global_time", "by_user", "random", "given"]
Duplicates = Literal["strongest", "last", "first", "all"]
K_CORE = 5
"""Least interactions of users and items where nothing is said and the log is a plain one."""


@dataclass(frozen=True)
class Preparation:
    """How a log becomes contexts.

    Attributes:
        k_core: keep users and items with at least this many interactions, iterated; 1 keeps all.
            None: 5, or 1 where the source gives whole contexts.
        split: "leave_one_out" holds out each user's last liked items (the last for test, the one
            before for validation); "global_time" cuts all users at the same two moments; "by_user"
            holds out whole users; "random" a share of each user's liked items, which needs no
            order; "given" takes the source's own column. None: "given" where there is such a
            column, "by_user" for dialogues, else "leave_one_out".
        fractions: of all interactions the shares before the two moments of "global_time"; of all
            users the shares before validation and test of "by_user"; of each user's liked items
            the shares that "random" keeps before validation and test.
        order: "rows": the rows stand in order of time, where times are missing or equal. None:
            they do where the source says so, and else times or positions must.
        validation_share: share of the users whose item before the test item is held out for
            validation, for "leave_one_out"; the others' is trained on.
        levels: thresholds of ratings or weights, ascending; an item's level is how many it reaches.
            Without either every interaction has level 1. None: 4 for ratings of 0.5 to 5 stars,
            each of up to ten different weights; other scales must be said.
        disliked: ratings up to this one are observed dislikes; None for no dislikes. "auto": 2.5
            for ratings of 0.5 to 5 stars.
        events: event → level, "shown", "disliked" or "rated" (its rating or weight says it); None
            where a log has no events, or one kind beside "skip".
        window: a context's positives are the items liked within this many interactions; 1 is the
            next item. Sources that give turns have the answers of a turn instead.
        duplicates: which of several interactions of a user with one item stays: "strongest", the
            one of the highest level, the latest of equals; the "last", the "first", or "all". None:
            "strongest" where levels come from events or weights, else "last". Where the source
            gives whole contexts, all of them stay.
        min_history: interactions that must come before a held-out item.
    """

    k_core: int | None = None
    split: Split | None = None
    fractions: tuple[float, float] = (0.8, 0.9)
    validation_share: float = 1.0
    levels: tuple[float, ...] | None = None
    disliked: float | Literal["auto"] | None = "auto"
    window: int = 1
    duplicates: Duplicates | None = None
    min_history: int = 1
    order: Literal["rows"] | None = None
    events: Mapping[str, Meaning] | None = None

    def resolved(self, tables: SourceTables) -> tuple["Preparation", Feedback]:
        """With what was left open settled by what the source gives; and how its rows are graded.

        Raises:
            DataError: the source lacks what a choice needs, or its contexts would be taken apart.
        """
        columns = tables.interactions.column_names
        whole = gives_contexts(tables)
        feedback = feedback_of(tables, self.levels, self.disliked, self.events)
        shown = [kind for kind, meaning in feedback.events.items() if meaning == "shown"]
        if shown and "timestamp" not in columns:
            raise DataError(
                f"interactions: the event '{shown[0]}' needs a column 'timestamp', to tell what "
                "was shown and passed over before the split. Add it, or leave those rows out."
            )
        own = "given" if "split" in columns else "by_user" if whole else "leave_one_out"
        settled = replace(
            self,
            split=self.split or own,
            k_core=self.k_core or (1 if whole else K_CORE),
            levels=feedback.levels,
            disliked=feedback.disliked,
            events=feedback.events or None,
            duplicates=self.duplicates or ("strongest" if feedback.is_graded else "last"),
        )
        if settled.split == "given" and "split" not in columns:
            raise DataError(
                "data.split: this source has no split of its own. Use --set "
                "data.split=leave_one_out, global_time, by_user or random."
            )
        if settled.split == "global_time" and "timestamp" not in columns:
            raise DataError(
                "split 'global_time' needs a timestamp column, which this source does not give. "
                "Use --set data.split=leave_one_out, by_user or random."
            )
        if whole and settled.split not in ("given", "by_user"):
            raise DataError(
                f"data.split: '{settled.split}' would cut through the contexts that this source "
                "gives whole. Leave data.split out."
            )
        if whole and self.k_core is not None and self.k_core > 1:
            raise DataError(
                f"data.k_core: {self.k_core} would take items out of the contexts that this "
                "source gives whole. Leave data.k_core out."
            )
        if settled.split == "leave_one_out" and not has_order(tables, self.order):
            raise DataError(
                "data.split: leave_one_out holds out what each person did last, and nothing in "
                "this log says what that is: it has neither timestamps nor positions. If its rows "
                "stand in order of time, say --set data.order=rows; if not, hold out a share of "
                "each person's liked items with --set data.split=random, or whole people with "
                "--set data.split=by_user."
            )
        return settled, feedback


def has_order(tables: SourceTables, order: Literal["rows"] | None = None) -> bool:
    """Whether something tells which of a user's interactions came first."""
    said = tables.ordered or order == "rows" or gives_contexts(tables)
    return said or bool({"timestamp", "position"} & set(tables.interactions.column_names))


def gives_contexts(tables: SourceTables) -> bool:
    """Whether a source gives whole contexts rather than a plain log."""
    return bool({"split", "turn"} & set(tables.interactions.column_names))


def as_it_is(tables: SourceTables, order: Literal["rows"] | None = None) -> Preparation:
    """Choices under which any log can be prepared, to look at it rather than to learn from it.

    No user or item is left out for being rare. What is not said is not asked for: on a scale other
    than stars, and with several kinds of events, everything consumed counts as liked; without an
    order, items are held out at random.

    Args:
        tables: what a source gave.
        order: "rows" where the rows are said to stand in order of time.
    """
    columns = tables.interactions.column_names
    split: Split | None = None if has_order(tables, order) else "random"
    events: dict[str, Meaning] = {}
    if "event" in columns:
        kinds = pc.unique(pc.fill_null(tables.interactions["event"], "")).to_pylist()
        events = {kind: "shown" if kind == SKIP else 1 for kind in kinds}
        if len(set(kinds) - {SKIP}) < 2:
            events = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # on scales; nothing is graded here
        try:
            found = feedback_of(tables, events=events)
            levels, disliked = found.levels, found.disliked
        except DataError:  # of a scale that is not known; what else is wrong, preparing says again
            levels, disliked = (-math.inf,), None
    return Preparation(k_core=1, split=split, levels=levels, disliked=disliked, events=events)
