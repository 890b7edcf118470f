"""Places in some histories at which a model answers."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

PLACES_OF_A_PART = 2048
"""Places that a batch has for each part it is read in."""
PADDING = 0.25
"""Share of the places of a batch that must be padding for it to be read in parts."""


class Moments(NamedTuple):
    """Places in some histories to answer at.

    Attributes:
        history: (R, L) item ids, oldest first; shorter histories are filled on the right with any
            id.
        rows, columns: (N,) the places: after item `columns` of history `rows`.
        intervals: (R, L) bucket of the time before each item, where the model `reads_times`.
        days: (R, L) days since the first item, likewise.
    """

    history: Tensor
    rows: Tensor
    columns: Tensor
    intervals: Tensor | None = None
    days: Tensor | None = None

    def lengths(self) -> Tensor:
        """(R,) items of each history up to its last place."""
        none = self.columns.new_zeros(len(self.history))
        return none.scatter_reduce(0, self.rows, self.columns + 1, "amax")

    def parts_worth(self) -> int:
        """In how many parts to read: one where there is little padding to save, and off the CPU,
        where starting a part costs more than its padding."""
        places = self.history.numel()
        parts = places // PLACES_OF_A_PART
        if parts <= 1 or self.history.device.type != "cpu":
            return 1
        return 1 if self.lengths().sum() > (1 - PADDING) * places else parts

    def parts(self, number: int) -> Iterator["Part"]:
        """Histories of like length together, cut to their last places.

        Args:
            number: of parts, at most.
        """
        lengths = self.lengths()
        new_rows = torch.empty_like(lengths)
        order = lengths.argsort(stable=True)
        for chosen in order[lengths[order] > 0].chunk(number):
            new_rows[chosen] = torch.arange(len(chosen))
            (asked,) = torch.isin(self.rows, chosen).nonzero(as_tuple=True)
            longest = int(lengths[chosen[-1]])
            cut = [
                None if of is None else of[chosen, :longest] for of in (self.intervals, self.days)
            ]
            rows, columns = new_rows[self.rows[asked]], self.columns[asked]
            moments = Moments(self.history[chosen, :longest], rows, columns, *cut)
            yield Part(chosen, asked, moments)


class Part(NamedTuple):
    """Some histories, and the places in them.

    Attributes:
        histories: (r,) which they are.
        asked: (n,) which of the places are in them.
        moments: the same by themselves.
    """

    histories: Tensor
    asked: Tensor
    moments: Moments
