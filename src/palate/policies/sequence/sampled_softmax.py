"""Cross-entropy against a sample of a catalogue, corrected for how the sample was drawn.

The partition function Z = Σ_v exp(z_v) is estimated by exp(z_t) + (1/m) Σ_j exp(z_j) / q_j over m
draws j ~ q other than the target t, which is unbiased; that is, log(m q_j) is taken from the logit
of each draw (Bengio and Senécal, 2008).
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from palate.randomness import integers


class Proposals(nn.Module):
    """Draws the items that stand for the catalogue, by how often they were consumed, or uniformly.

    A draw is named by (seed, number of the draw). The number is a buffer, so a run that goes on
    from a checkpoint draws what it would have drawn.

    Args:
        n_items: size of the catalogue.
        samples: items in a draw, with replacement.
        seed: names the draws.
        counts: (items,) how often each was consumed, to draw in proportion to count + 1; None
            draws uniformly.
    """

    def __init__(
        self, n_items: int, samples: int, seed: int, counts: ArrayLike | None = None
    ) -> None:
        super().__init__()
        self.samples = samples
        self.seed = seed
        weights = np.ones(n_items, np.int64) + (0 if counts is None else np.asarray(counts))
        self.cumulative: Tensor
        self.drawn: Tensor
        self.register_buffer("cumulative", torch.from_numpy(np.cumsum(weights)))
        self.register_buffer("drawn", torch.zeros((), dtype=torch.long))

    def forward(self) -> tuple[Tensor, Tensor]:
        """(samples,) item ids of the next draw, and the log-probability of each in one draw."""
        name = (self.seed, "sampled softmax", int(self.drawn))
        self.drawn += 1
        total = int(self.cumulative[-1])
        places = integers(total, *name, np.arange(self.samples))
        at = torch.from_numpy(places).to(self.cumulative.device)
        item_ids = torch.searchsorted(self.cumulative, at, right=True)
        before = torch.where(item_ids > 0, self.cumulative[item_ids - 1], 0)
        weight = (self.cumulative[item_ids] - before).double()
        return item_ids, (weight / total).log().float()


def sampled_cross_entropy(
    states: Tensor,
    target_vectors: Tensor,
    vectors: Tensor,
    log_q: Tensor,
    is_target: Tensor,
) -> Tensor:
    """−log of the target's share in the estimated partition function.

    Args:
        states: (N, d) what is known.
        target_vectors: (N, d) vector of each target.
        vectors: (samples, d) vectors of the drawn items.
        log_q: (samples,) log-probability of each in one draw.
        is_target: (N, samples) whether a draw hit the target, which is then left out.

    Returns:
        (N,) float32, in nats.
    """
    target = (states * target_vectors).sum(dim=1).float()
    others = (states @ vectors.T).float() - (log_q + np.log(len(log_q)))
    others = others.masked_fill(is_target, -torch.inf)
    return torch.cat([target[:, None], others], dim=1).logsumexp(dim=1) - target
