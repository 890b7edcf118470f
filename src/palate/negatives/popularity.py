"""Popular items are drawn more often than obscure ones."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from palate.data.contexts import Context, Ids
from palate.data.prepared import Prepared
from palate.negatives.stream import Stream
from palate.randomness import gumbel


@dataclass(frozen=True)
class Popularity:
    """An item is drawn in proportion to max(count, 1)^alpha, among those not yet drawn.

    An item that training never saw counts as seen once: it can be drawn, as seldom as the rarest.
    Without replacement: after each draw the others keep their proportions.
    With alpha 0.75: Mikolov et al., arXiv 1310.4546, §2.2 (there for words).

    Attributes:
        counts: (items,) how often each item was consumed in training.
        alpha: 0 draws uniformly, 1 as often as consumed; above 1 stresses the head.
    """

    counts: Ids
    alpha: float = 0.75

    @cached_property
    def log_probabilities(self) -> NDArray[np.float64]:
        """(items,) log-probability of each item in a single draw with nothing excluded."""
        log_weights = self.alpha * np.log(np.maximum(self.counts, 1))
        return log_weights - np.logaddexp.reduce(log_weights)

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        cumulative = np.cumsum(np.exp(self.log_probabilities))
        return cumulative / cumulative[-1]

    def draw(self, context: Context, count: int, exclude: Ids, key: tuple[int, ...]) -> Ids:
        """See `NegativeSampler.draw`."""
        n_items = len(self.counts)
        drawn = Stream(key).distinct(
            count, exclude, lambda u: self._cumulative.searchsorted(u, "right"), n_items
        )
        if len(drawn) == count:
            return drawn
        # what is left is small, or has next to no weight: rank all of it at once
        left = np.delete(np.arange(n_items), np.concatenate([exclude, drawn]))
        order = np.argsort(-self.log_probabilities[left] - gumbel(*key, "rest", left))
        return np.concatenate([drawn, left[order[: count - len(drawn)]]])


def popularity(
    data: Prepared,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.75,
) -> Popularity:
    """Items in proportion to max(training count, 1)^alpha.

    Options:
        alpha: ≥ 0; 0 is uniform, 1 is popularity itself. Default 0.75, the usual one.
    """
    return Popularity(data.popularity, alpha)
