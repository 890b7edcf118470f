"""Rank tables of two policies where the truth is known in closed form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.evaluation.ranking import Ranks

GAIN = np.mean(1 / np.log2(np.arange(1, 11) + 1))
"""Mean NDCG@10 of an answer found at any of the first ten places alike."""
SPREAD = 4
"""Sum of the two parameters of the beta distribution of a user's chance."""
EXPONENT = 1.6
"""P(a user has n contexts) ∝ n^−1.6: most have one or two, few nearly all."""


@dataclass(frozen=True)
class World:
    """Users of whom tables are drawn.

    Attributes:
        most: most contexts of a user; 1 … most, heavy-tailed. With `equal`, everyone has 4.
        equal: whether everyone has the same number.
        lift: what a has over b: of the chance that a finds an answer and b does not, were they
            alike and independent; 0 for no difference.
    """

    equal: bool = False
    lift: float = 0.0
    most: int = 200

    def counts(self) -> tuple[NDArray, NDArray]:
        """Numbers of contexts and their probabilities."""
        if self.equal:
            return np.array([4]), np.ones(1)
        n = np.arange(1, self.most + 1)
        return n, n**-EXPONENT / (n**-EXPONENT).sum()

    def found(self, n: NDArray) -> NDArray:
        """Mean chance that b finds an answer of a user with n contexts: more with more of them."""
        more = np.full(len(n), 1 / 3) if self.equal else np.log(n) / np.log(self.most)
        return 0.1 + 0.3 * more

    def truth(self) -> float:
        """E[Σ contexts' differences of a user] / E[contexts of a user], in NDCG@10."""
        n, p = self.counts()
        mean = self.found(n)
        # A chance c ~ Beta(4 m, 4 (1 − m)) has E c (1 − c) = m (1 − m) · 4 / 5.
        gained = self.lift * GAIN * mean * (1 - mean) * SPREAD / (SPREAD + 1)
        return float((p * n * gained).sum() / (p * n).sum())

    def draw(self, random: np.random.Generator, n_users: int) -> tuple[Ranks, Ranks]:
        """Ranks of a and b: half of the contexts are as easy or hard for both alike."""
        numbers, p = self.counts()
        counts = random.choice(numbers, n_users, p=p)
        mean = self.found(counts)
        chance = np.repeat(random.beta(SPREAD * mean, SPREAD * (1 - mean)), counts)
        users, n = np.repeat(np.arange(n_users), counts), counts.sum()
        ease = random.random(n)
        alike = random.random(n) < 0.5
        ranks = []
        for probability in (chance + self.lift * chance * (1 - chance), chance):
            own = np.where(alike, ease, random.random(n))
            place = random.integers(1, 11, n)
            ranks.append(np.where(own < probability, place, 10 + place).astype(float))
        ids = np.arange(n)
        one, other = (
            Ranks(ids, ids, users, np.zeros(n, int), np.ones(n, int), rank) for rank in ranks
        )
        return one, other
