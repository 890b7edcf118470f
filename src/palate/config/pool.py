"""The section that says among which items samplers that ask the policy choose."""

from typing import Literal

from pydantic import Field

from palate.config.section import Section


class PoolConfig(Section):
    """Items that the policy scores for a context before a live negative is drawn."""

    kind: Literal["catalogue", "uniform", "popularity", "beam"] | None = None
    """All items, or a candidate set for each context: drawn uniformly, by popularity^0.75, or (of
    a language policy) what a beam search finds. Null: uniform for a language policy, else
    catalogue."""
    size: int = Field(default=100, ge=2)
    """Items in a candidate set."""
    refresh: int = Field(default=0, ge=0)
    """Steps for which a context's scored candidate set is used again; 0 scores at every visit."""
