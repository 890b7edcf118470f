"""The choices by which a log becomes contexts."""

from dataclasses import dataclass, replace
from typing import Literal

from palate.data.tables import SourceTables
from palate.errors import DataError

Split = Literal["leave_one_out", "global_time", "by_user", "given"]
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
            holds out whole users; "given" takes the source's own column. None: "given" where
            there is such a column, "by_user" for dialogues, else "leave_one_out".
        fractions: of all interactions the shares before the two moments of "global_time"; of all
            users the shares before validation and test of "by_user".
        validation_share: share of the users whose item before the test item is held out for
            validation, for "leave_one_out"; the others' is trained on.
        levels: rating thresholds, ascending; an item's level is how many it reaches. Without
            ratings every interaction has level 1.
        disliked: ratings up to this one are observed dislikes; None for no dislikes.
        window: a context's positives are the items liked within this many interactions; 1 is the
            next item. Sources that give turns have the answers of a turn instead.
        duplicates: which of several interactions of a user with one item stays; where the source
            gives whole contexts, all of them do.
        min_history: interactions that must come before a held-out item.
    """

    k_core: int | None = None
    split: Split | None = None
    fractions: tuple[float, float] = (0.8, 0.9)
    validation_share: float = 1.0
    levels: tuple[float, ...] = (4.0,)
    disliked: float | None = 2.5
    window: int = 1
    duplicates: Literal["first", "last"] = "last"
    min_history: int = 1

    def resolved(self, tables: SourceTables) -> "Preparation":
        """With what was left open settled by what the source gives.

        Raises:
            DataError: the source lacks what a choice needs, or its contexts would be taken apart.
        """
        columns = tables.interactions.column_names
        whole = gives_contexts(tables)
        if "event" in columns and "timestamp" not in columns:
            raise DataError(
                "interactions: the column 'event' needs a column 'timestamp', to tell what was "
                "skipped before the split. Add it, or leave 'event' out."
            )
        own = "given" if "split" in columns else "by_user" if whole else "leave_one_out"
        settled = replace(
            self,
            split=self.split or own,
            k_core=self.k_core or (1 if whole else K_CORE),
        )
        if settled.split == "given" and "split" not in columns:
            raise DataError(
                "data.split: this source has no split of its own. Use --set "
                "data.split=leave_one_out, global_time or by_user."
            )
        if settled.split == "global_time" and "timestamp" not in columns:
            raise DataError(
                "split 'global_time' needs a timestamp column, which this source does not give. "
                "Use --set data.split=leave_one_out."
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
        return settled


def gives_contexts(tables: SourceTables) -> bool:
    """Whether a source gives whole contexts rather than a plain log."""
    return bool({"split", "turn"} & set(tables.interactions.column_names))
