"""A recommendation log with a known truth."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from palate.data.simulator_text import (
    ERAS,
    GENRES,
    MOODS,
    compose_descriptions,
    compose_titles,
    maker_names,
)
from palate.errors import ConfigError
from palate.randomness import Key, gumbel, integers, normal, uniform

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SPAN_START = 1_640_995_200
"""2022-01-01 UTC: the log covers two calendar years, the usual span of a public data set."""
SPAN_END = 1_704_067_200
"""2024-01-01 UTC."""

ATTRIBUTE_SHARES = {"genre": 0.5, "maker": 0.2, "mood": 0.2, "era": 0.1}
"""Shares of the taste variance: genre explains most, as in film and book ratings; they sum to 1."""
QUALITY_SHARE = 0.3
"""Variance of utility that all users share; the rest is personal, so that personalising pays."""
COMMUNITY_SHARE = 0.5
"""Variance of taste shared inside a community: half, so that users inform about one another."""
N_COMMUNITIES = 8
"""Fewer than genres, so that communities are broad and large even with few users."""
DRIFT = math.pi / 4
"""Angle by which tastes turn over the span: their two ends correlate by cos(π/4) = 0.71."""

GENRE_OFFSET = 3
"""Genre shares ∝ 1/(rank + 3): from 19 % down to 4 %, the skew of a film catalogue."""
POPULARITY_OFFSET = 1 / 50
"""Popularity ∝ 1/(rank + n_items/50): a tenth of the items gets about 45 % of the proposals."""
POPULARITY_QUALITY = 0.5
"""Correlation of the score behind the popularity rank with quality: fame is only half deserved."""

REACH = 0.5
"""Chance that an item can reach a user at all: what is not seen is not always disliked."""
SLATE = 16
"""Proposals per visit; about half reach the user, one screen of a shop or streaming service."""
MAX_SKIPS = 3
"""Skips written per visit: a log keeps the neighbours of a click, not the whole screen."""
SATISFACTION_NOISE = 0.5
"""Standard deviation of a rating's own noise, half that of utility."""
RATING_THRESHOLDS = (-0.7, 0.0, 0.85, 1.75)
"""Cuts of satisfaction into 1–5: shares 5/11/26/32/26 % of a large log (100,000 × 20,000) and
7/14/30/31/18 % of the default one, where good items run out; MovieLens-1M has 6/11/26/35/23 %."""

VISITS_SIGMA = 0.5
"""Log-scale spread of the visits per user: the busiest decile visits about twice the median."""
MIN_VISITS = 12
"""Nobody has fewer visits (unless the mean asked for is lower): histories can be split by time."""
MAX_VISITS_RATIO = 4
"""Visits per user are cut at four times the mean, to bound the longest history."""
SHORTEST_STAY = 0.2
"""A user stays for at least this part of the time between the first visit and the span's end."""

TEXT_DIM, TEXT_NOISE = 32, 0.5
IMAGE_DIM, IMAGE_NOISE = 16, 1.0
"""Noise-to-signal ratio of the norms: text shows most of the attributes, images some."""

_VISITS_PER_BLOCK = 72_000  # bounds the working set to some hundred MB, whatever the user count
_ATTRIBUTES = ("genre", "era", "mood", "maker")


@dataclass(frozen=True)
class Simulation:
    """Users with drifting tastes choose from slates of a skewed catalogue and rate what they take.

    Items have a genre, an era, a mood and a maker; a quality q_i ~ N(0, 1); and a popularity
    p_i ∝ 1/(rank_i + n_items/50), ranked by ½ q_i + √¾ noise. A user belongs to one of eight
    communities c. The taste for an attribute value v turns slowly and stays standard normal:

        taste_u(v, t) = cos φ · g₀ + sin φ · g₁,    φ = π/4 · (t − T₀)/(T₁ − T₀)
        g₀, g₁        = √½ (normal of c and v) + √½ (normal of u and v)
        utility(u, i, t) = √0.7 Σ_a √share_a · taste_u(a_i, t) + √0.3 · q_i          (variance 1)

    On a visit, 16 proposals are drawn from p with replacement. Those that reach the user
    (reach(u, i) is a fixed coin per pair) form the slate; the choice is the argmax of utility
    plus standard Gumbel noise over the slate, an item proposed twice having two chances. A visit
    with an empty slate, or whose choice the user took before, leaves no row. The rating cuts
    utility + ½ N(0, 1) at four thresholds.

    No constant was chosen by looking at a trained model: each is a module constant with its
    reason, a marginal of public logs (ratings, popularity, activity) or a round number. Every
    draw is named by its keys, so tables are pure functions of the arguments, the rows of a user
    do not depend on `n_users`, and the truth of any pair can be recomputed without a dense matrix.

    Args:
        n_users: users, ids 0 to n_users − 1.
        n_items: items, ids 0 to n_items − 1; at least 20.
        seed: names this world; another seed gives other items, tastes and rows.
        visits: mean visits per user, before visits without a row are left out.
        impressions: also write up to three other items of each visit's slate as "skip" rows. A
            skipped item may have been consumed at another visit.

    Raises:
        ConfigError: a size is too small, or the visits lie outside 1–10,000.
    """

    n_users: int = 1000
    n_items: int = 500
    seed: int = 0
    visits: float = 36
    impressions: bool = False

    def __post_init__(self) -> None:
        if self.n_users < 1:
            raise ConfigError(f"n_users is {self.n_users}; a simulation needs at least 1 user.")
        if self.n_items < 20:
            raise ConfigError(f"n_items is {self.n_items}; a simulation needs at least 20 items.")
        if not 1 <= self.visits <= 10_000:
            raise ConfigError(f"visits is {self.visits}; the mean per user lies in 1–10,000.")

    @property
    def n_makers(self) -> int:
        """Makers in the catalogue: one per 25 items, at least 8."""
        return max(8, self.n_items // 25)

    @cached_property
    def quality(self) -> Floats:
        """(n_items,) the part of utility that all users share."""
        return normal(self.seed, "quality", np.arange(self.n_items))

    @cached_property
    def popularity(self) -> Floats:
        """(n_items,) probability of each item to be the next proposal; sums to 1."""
        noise = normal(self.seed, "popularity", np.arange(self.n_items))
        score = POPULARITY_QUALITY * self.quality + math.sqrt(1 - POPULARITY_QUALITY**2) * noise
        rank = np.empty(self.n_items)
        rank[np.argsort(-score, kind="stable")] = np.arange(1, self.n_items + 1)
        weight = 1 / (rank + POPULARITY_OFFSET * self.n_items)
        return weight / weight.sum()

    @cached_property
    def attributes(self) -> dict[str, Integers]:
        """Attribute to the (n_items,) index of each item's value."""
        item = np.arange(self.n_items)
        genre_share = 1 / (np.arange(len(GENRES)) + GENRE_OFFSET)
        return {
            "genre": _inverse_cdf(genre_share, uniform(self.seed, "genre", item)),
            "era": integers(len(ERAS), self.seed, "era", item),
            "mood": integers(len(MOODS), self.seed, "mood", item),
            "maker": integers(self.n_makers, self.seed, "maker", item),
        }

    def items(self) -> pa.Table:
        """The catalogue: item_id, title (unique), description, genre, era, maker, mood."""
        index = self.attributes
        makers = maker_names(self.n_makers)
        names = {"genre": list(GENRES), "era": ERAS, "maker": makers, "mood": list(MOODS)}
        values = {a: [words[v] for v in index[a].tolist()] for a, words in names.items()}
        titles = compose_titles(index["genre"], index["mood"], index["maker"], self.seed)
        descriptions = compose_descriptions(**values, seed=self.seed)
        ids = np.arange(self.n_items)
        return pa.table({"item_id": ids, "title": titles, "description": descriptions, **values})

    def text_vectors(self) -> NDArray[np.float32]:
        """(n_items, 32) projection of all four attributes, with noise of half the signal's norm."""
        return self._view("text", _ATTRIBUTES, TEXT_DIM, TEXT_NOISE)

    def image_vectors(self) -> NDArray[np.float32]:
        """(n_items, 16) projection of era, mood and maker, with noise of the signal's norm."""
        return self._view("image", _ATTRIBUTES[1:], IMAGE_DIM, IMAGE_NOISE)

    def utility(self, users: ArrayLike, items: ArrayLike, timestamps: ArrayLike) -> Floats:
        """True utility of each (user, item, Unix time); the arguments broadcast."""
        user, item = np.asarray(users), np.asarray(items)
        community = integers(N_COMMUNITIES, self.seed, "community", user)
        still, turning = 0.0, 0.0
        for attribute, share in ATTRIBUTE_SHARES.items():
            value = self.attributes[attribute][item]
            own = _normal_pair(self.seed, "user taste", attribute, user, value)
            shared = self._community_tastes[attribute]
            w_own = math.sqrt((1 - QUALITY_SHARE) * share * (1 - COMMUNITY_SHARE))
            w_shared = math.sqrt((1 - QUALITY_SHARE) * share * COMMUNITY_SHARE)
            still += w_own * own[0] + w_shared * shared[0][community, value]
            turning += w_own * own[1] + w_shared * shared[1][community, value]
        phase = DRIFT * (np.asarray(timestamps) - SPAN_START) / (SPAN_END - SPAN_START)
        personal = np.cos(phase) * still + np.sin(phase) * turning
        return personal + math.sqrt(QUALITY_SHARE) * self.quality[item]

    def ratings(self, users: ArrayLike, items: ArrayLike, timestamps: ArrayLike) -> Integers:
        """The rating, 1–5, that each user gives, or would give, to the item at that time."""
        noise = normal(self.seed, "satisfaction", users, items)
        satisfaction = self.utility(users, items, timestamps) + SATISFACTION_NOISE * noise
        return 1 + np.searchsorted(RATING_THRESHOLDS, satisfaction, "right")

    def exposed(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.bool_]:
        """Whether the item can reach the user at all; the arguments broadcast."""
        return uniform(self.seed, "reach", users, items) < REACH

    def exposure_probability(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """Probability that the item stands in the slate of one visit of the user."""
        proposed = 1 - (1 - self.popularity[np.asarray(items)]) ** SLATE
        return np.where(self.exposed(users, items), proposed, 0.0)

    def event_probability(self, user: int, timestamp: int, liked: int | None = 4) -> Floats:
        """The oracle: how likely the user's next choice is each item, and rated `liked` or more.

        Mean field: the sum over the other proposals, random in the model, is replaced by its
        mean Z = 15 Σ_j p_j reach_j e^{u_j}, which gives

            16 p_i · reach_i · e^{u_i}/(e^{u_i} + Z) · P(rating ≥ liked | u_i).

        Normalised, it differs from the exact law by a total variation of 0.02 on average (at
        most 0.06 over 300 users of the default world): the mean field favours good items a little.
        Items that the user took before are not left out: they can be chosen, but leave no row.

        Args:
            user, timestamp: who and when (Unix time).
            liked: least rating that counts, 2 to 5; None for any rating.

        Returns:
            (n_items,) probabilities up to a factor equal for all items.

        Raises:
            ConfigError: liked is not a rating.
        """
        if liked is not None and not 1 <= liked <= 5:
            raise ConfigError(f"liked is {liked}; ratings go from 1 to 5. Pass None for any.")
        item = np.arange(self.n_items)
        utility = self.utility(user, item, timestamp)
        offered = self.popularity * self.exposed(user, item)
        others = (SLATE - 1) * np.sum(offered * np.exp(utility))
        chosen = SLATE * offered / (1 + others * np.exp(-utility))
        if liked is None or liked == 1:
            return chosen
        excess = (utility - RATING_THRESHOLDS[liked - 2]) / SATISFACTION_NOISE
        return chosen * [0.5 * math.erfc(-x / math.sqrt(2)) for x in excess.tolist()]

    def interactions(self) -> pa.Table:
        """The log: user_id, item_id, timestamp (Unix s), rating (null on skips), event.

        Sorted by user and time. An event is "consume" or, with `impressions`, "skip"; skips
        follow the consumption of their visit and carry its timestamp.
        """
        step = max(1, int(_VISITS_PER_BLOCK / self.visits))
        users = np.arange(self.n_users)
        blocks = [self._log_of(users[i : i + step]) for i in range(0, self.n_users, step)]
        return pa.concat_tables(blocks).combine_chunks()

    @cached_property
    def _community_tastes(self) -> dict[str, tuple[Floats, Floats]]:
        """Attribute to the pair of (N_COMMUNITIES, n_values) normals behind its tastes."""
        community = np.arange(N_COMMUNITIES)[:, None]
        return {
            a: _normal_pair(self.seed, "community taste", a, community, np.arange(v.max() + 1))
            for a, v in self.attributes.items()
        }

    def _view(
        self, name: str, attributes: tuple[str, ...], dim: int, noise: float
    ) -> NDArray[np.float32]:
        """Sum of one random vector per attribute value, of mean square norm 1, plus noise."""
        item, column = np.arange(self.n_items)[:, None], np.arange(dim)
        signal = sum(
            normal(self.seed, name, attribute, self.attributes[attribute][:, None], column)
            for attribute in attributes
        )
        noisy = signal / math.sqrt(len(attributes)) + noise * normal(
            self.seed, name, "noise", item, column
        )
        return (noisy / math.sqrt(dim)).astype(np.float32)

    def _visits_of(self, users: Integers) -> tuple[Integers, Integers, Integers]:
        """User, index and Unix time of each visit, sorted by user and time."""
        spread = VISITS_SIGMA * normal(self.seed, "visits", users) - VISITS_SIGMA**2 / 2
        low, high = min(MIN_VISITS, self.visits), MAX_VISITS_RATIO * self.visits
        n_visits = np.rint(np.clip(self.visits * np.exp(spread), low, high)).astype(np.int64)

        index = np.arange(n_visits.max() + 1)
        gaps = -np.log1p(-uniform(self.seed, "gap", users[:, None], index))
        elapsed = np.cumsum(gaps, axis=1)
        elapsed /= np.take_along_axis(elapsed, n_visits[:, None], axis=1)

        span = SPAN_END - SPAN_START
        start = SPAN_START + uniform(self.seed, "start", users) * span / 2
        stay = SHORTEST_STAY + (1 - SHORTEST_STAY) * uniform(self.seed, "stay", users)
        # One second per visit is set aside, so that whole seconds strictly increase.
        moving = (SPAN_END - start) * stay - n_visits
        seconds = (start[:, None] + elapsed * moving[:, None]).astype(np.int64) + index
        row, visit = np.nonzero(index < n_visits[:, None])
        return users[row], visit, seconds[row, visit]

    def _slates(self, user: Integers, visit: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """(V, 16) proposals of each visit, and whether they reach the user."""
        draw = uniform(self.seed, "proposal", user[:, None], visit[:, None], np.arange(SLATE))
        proposals = _inverse_cdf(self.popularity, draw)
        return proposals, self.exposed(user[:, None], proposals)

    def _log_of(self, users: Integers) -> pa.Table:
        user, visit, time = self._visits_of(users)
        slate, shown = self._slates(user, visit)
        row, slot = np.nonzero(shown)
        appeal = np.full(slate.shape, -np.inf)
        appeal[row, slot] = self.utility(user[row], slate[row, slot], time[row])
        appeal[row, slot] += gumbel(self.seed, "choice", user[row], visit[row], slot)
        chosen = np.take_along_axis(slate, appeal.argmax(axis=1)[:, None], axis=1)[:, 0]

        served = np.flatnonzero(shown.any(axis=1))
        _, first = np.unique(user[served] * self.n_items + chosen[served], return_index=True)
        taken = served[np.sort(first)]
        item, skipped = chosen[taken], np.zeros(len(taken), bool)
        if self.impressions:
            other, position = np.nonzero(_others(slate[taken], shown[taken], item))
            order = np.argsort(np.concatenate([np.arange(len(taken)), other]), kind="stable")
            item = np.concatenate([item, slate[taken[other], position]])[order]
            skipped = np.repeat([False, True], [len(taken), len(other)])[order]
            taken = np.concatenate([taken, taken[other]])[order]
        user, time = user[taken], time[taken]
        rating = self.ratings(user, item, time).astype(np.float64)
        event = pa.array(["consume", "skip"]).take(pa.array(skipped.astype(np.int8)))
        return pa.table(
            [user, item, time, pa.array(rating, mask=skipped), event],
            names=["user_id", "item_id", "timestamp", "rating", "event"],
        )


def _inverse_cdf(weights: Floats, draw: Floats) -> Integers:
    """The index that each uniform draw falls on when indices have these weights."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative / cumulative[-1], draw, "right")


def _normal_pair(*keys: Key) -> tuple[Floats, Floats]:
    """Two independent standard normal draws per element of the keys: both of Box and Muller's."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(*keys, 1)))
    angle = 2.0 * np.pi * uniform(*keys, 2)
    return radius * np.cos(angle), radius * np.sin(angle)


def _others(slate: Integers, shown: NDArray[np.bool_], chosen: Integers) -> NDArray[np.bool_]:
    """(V, 16) whether the proposal is one of the first MAX_SKIPS distinct ones not chosen."""
    earlier = np.tri(slate.shape[1], k=-1, dtype=bool)
    repeated = ((slate[:, :, None] == slate[:, None, :]) & earlier).any(axis=2)
    eligible = shown & ~repeated & (slate != chosen[:, None])
    return eligible & (np.cumsum(eligible, axis=1) <= MAX_SKIPS)
