"""The simulated log: pure in its arguments, true to its documented model."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from palate.data.simulator import SPAN_END, SPAN_START, Simulation
from palate.data.simulator_text import GENRES, MOODS, maker_places, roman
from palate.errors import ConfigError
from palate.randomness import integers

WORLD = Simulation()
HEADS = "user_id", "item_id", "timestamp", "rating"


@pytest.fixture(scope="module")
def items() -> pa.Table:
    return WORLD.items()


@pytest.fixture(scope="module")
def log() -> dict[str, np.ndarray]:
    return columns(WORLD.interactions())


def columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in HEADS}


def events_of(log: dict[str, np.ndarray], which: np.ndarray) -> list[np.ndarray]:
    return [log[name][which] for name in HEADS]


def first_and_last_rows(log: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    change = np.flatnonzero(np.diff(log["user_id"]))
    return np.r_[0, change + 1], np.r_[change, len(log["user_id"]) - 1]


def test_same_arguments_give_the_same_world_and_another_seed_another(items):
    again, other = Simulation(), Simulation(seed=1)
    assert again.items().equals(items)
    assert again.interactions().equals(WORLD.interactions())
    assert np.array_equal(again.text_vectors(), WORLD.text_vectors())
    assert other.items()["title"] != items["title"]
    assert not other.interactions().equals(WORLD.interactions())
    assert not np.allclose(other.image_vectors(), WORLD.image_vectors())


@pytest.mark.parametrize("visits", [36, 3000])
def test_rows_of_a_user_do_not_depend_on_how_many_users_there_are(visits):
    # With 3,000 visits a block holds 24 users, so that the two runs are cut differently.
    few = Simulation(n_users=7, visits=visits, impressions=True).interactions()
    many = Simulation(n_users=40, visits=visits, impressions=True).interactions()
    assert many.filter(pc.less(many["user_id"], 7)).equals(few)
    assert pc.count_distinct(many["user_id"]).as_py() == 40


def test_schema_and_order():
    table = WORLD.interactions()
    assert table.schema == pa.schema(
        {
            "user_id": pa.int64(),
            "item_id": pa.int64(),
            "timestamp": pa.int64(),
            "rating": pa.float64(),
            "event": pa.string(),
        }
    )
    assert table["event"].unique().to_pylist() == ["consume"]
    assert table["rating"].null_count == 0


def test_time_strictly_increases_within_a_user_and_stays_in_the_span(log):
    same_user = np.diff(log["user_id"]) == 0
    assert (np.diff(log["user_id"]) >= 0).all()
    assert (np.diff(log["timestamp"])[same_user] > 0).all()
    assert log["timestamp"].min() >= SPAN_START
    assert log["timestamp"].max() < SPAN_END


def test_nobody_takes_an_item_twice_or_one_that_cannot_reach_them(log):
    pairs = log["user_id"] * WORLD.n_items + log["item_id"]
    assert len(np.unique(pairs)) == len(pairs)
    assert WORLD.exposed(log["user_id"], log["item_id"]).all()
    everyone = WORLD.exposed(np.arange(1000)[:, None], np.arange(500))
    assert everyone.mean() == pytest.approx(0.5, abs=0.005)


def test_truth_is_recomputed_from_the_seed_alone(log):
    user, item, time, rating = events_of(log, np.arange(0, len(log["user_id"]), 7))
    fresh = Simulation(n_users=1)
    assert np.array_equal(fresh.ratings(user, item, time), rating)
    single = fresh.utility(int(user[5]), int(item[5]), int(time[5]))
    assert single == pytest.approx(WORLD.utility(user, item, time)[5], abs=1e-12)
    grid = WORLD.utility(np.arange(3)[:, None], np.arange(4), SPAN_START)
    assert grid.shape == (3, 4)
    assert grid[2, 1] == pytest.approx(float(WORLD.utility(2, 1, SPAN_START)), abs=1e-12)


def test_utility_has_variance_one_and_tastes_turn_by_their_angle():
    world = Simulation(n_items=20_000)
    key = np.arange(40_000)
    user, item = integers(1000, 5, "u", key), integers(20_000, 5, "i", key)
    quality = math.sqrt(0.3) * world.quality[item]
    ends = [world.utility(user, item, t) - quality for t in (SPAN_START, SPAN_END)]
    assert np.corrcoef(*ends)[0, 1] == pytest.approx(math.cos(math.pi / 4), abs=0.05)
    assert np.var(ends[0]) == pytest.approx(0.7, rel=0.1)
    assert np.var(ends[1] + quality) == pytest.approx(1.0, rel=0.1)


def test_ratings_rise_with_utility_and_have_the_shares_of_public_logs(log):
    user, item, time, rating = events_of(log, np.arange(len(log["user_id"])))
    assert set(rating) == {1, 2, 3, 4, 5}
    utility = WORLD.utility(user, item, time)
    means = [utility[rating == r].mean() for r in range(1, 6)]
    assert (np.diff(means) > 0.3).all()
    share = np.bincount(rating.astype(int))[1:] / len(rating)
    assert (share > [0.03, 0.08, 0.2, 0.22, 0.12]).all()
    assert (share < [0.15, 0.2, 0.38, 0.42, 0.3]).all()


def test_choices_beat_what_popularity_alone_would_offer(log):
    user, item, time, _ = events_of(log, np.arange(0, len(log["user_id"]), 10))
    chosen = WORLD.utility(user, item, time).mean()
    all_items = WORLD.utility(user[:, None], np.arange(500), time[:, None])
    reach = WORLD.exposed(user[:, None], np.arange(500))
    offered = np.average(all_items, weights=reach * WORLD.popularity)
    assert chosen > offered + 0.4


def test_popularity_is_skewed_and_only_partly_deserved(log):
    taken = np.sort(np.bincount(log["item_id"], minlength=500))[::-1]
    assert taken[:50].sum() > 0.3 * taken.sum()
    assert WORLD.popularity.sum() == pytest.approx(1)
    world = Simulation(n_items=20_000)
    rank = world.popularity.argsort().argsort()
    assert 0.4 < np.corrcoef(rank, world.quality)[0, 1] < 0.6


def test_users_visit_about_as_often_as_asked_for(log):
    user, _, _ = WORLD._visits_of(np.arange(1000))
    visits = np.bincount(user)
    assert visits.mean() == pytest.approx(36, rel=0.05)
    assert visits.min() >= 12
    assert visits.max() <= 144
    assert (np.bincount(log["user_id"], minlength=1000) <= visits).all()


def test_exposure_probability_counts_the_items_of_a_slate():
    user, visit, _ = WORLD._visits_of(np.arange(300))
    slate, shown = WORLD._slates(user, visit)
    row, slot = np.nonzero(shown)
    seen = np.unique(row * WORLD.n_items + slate[row, slot]) // WORLD.n_items
    expected = WORLD.exposure_probability(user[:, None], np.arange(500)).sum(axis=1)
    assert len(seen) == pytest.approx(expected.sum(), rel=0.01)
    some = WORLD.exposure_probability(3, np.arange(500))
    assert np.array_equal(some > 0, WORLD.exposed(3, np.arange(500)))


def test_oracle_ranks_real_next_events_better_than_popularity(log):
    first, last = first_and_last_rows(log)
    by_oracle, by_popularity = [], []
    for start, end in zip(first[:400], last[:400], strict=True):
        user, item, time, rating = events_of(log, end)
        if rating < 4:
            continue
        fresh = np.ones(500, bool)
        fresh[log["item_id"][start:end]] = False
        scores = WORLD.event_probability(int(user), int(time))
        by_oracle.append(np.sum(scores[fresh] > scores[item]))
        by_popularity.append(np.sum(WORLD.popularity[fresh] > WORLD.popularity[item]))
    assert len(by_oracle) > 100
    assert np.mean(by_oracle) < 0.5 * np.mean(by_popularity)


def test_oracle_is_calibrated_on_first_events(log):
    """It predicts how often one of its 20 likeliest items is chosen, and the choice is liked."""
    first, _ = first_and_last_rows(log)
    likely, hits, liked_share, liked = [], [], [], []
    for user, item, time, rating in zip(*events_of(log, first), strict=True):
        probability = WORLD.event_probability(int(user), int(time), liked=None)
        top = probability.argsort()[-20:]
        likely.append(probability[top].sum() / probability.sum())
        hits.append(item in top)
        liked_share.append(WORLD.event_probability(int(user), int(time)).sum() / probability.sum())
        liked.append(rating >= 4)
    assert np.mean(hits) == pytest.approx(np.mean(likely), abs=0.05)
    assert np.mean(liked) == pytest.approx(np.mean(liked_share), abs=0.05)


def test_mean_field_is_close_to_the_exact_law_of_the_choice():
    """E[e^u/(e^u + S)] = ∫ e^u exp(−s e^u) (E exp(−s X))^15 ds, S the sum of 15 independent X."""
    log_s = np.linspace(-14, 8, 300)
    for user in range(10):
        appeal = np.exp(WORLD.utility(user, np.arange(500), SPAN_START))
        appeal *= WORLD.exposed(user, np.arange(500))
        decay = np.exp(-np.exp(log_s)[:, None] * appeal)
        others = (decay @ WORLD.popularity) ** 15
        integral = (np.exp(log_s) * others) @ (appeal * decay) * (log_s[1] - log_s[0])
        exact = 16 * WORLD.popularity * integral
        assert exact.sum() == pytest.approx(1, abs=1e-3)  # all but the empty slates
        mean_field = WORLD.event_probability(user, SPAN_START, liked=None)
        assert 0.5 * np.abs(mean_field / mean_field.sum() - exact / exact.sum()).sum() < 0.06


def test_oracle_narrows_with_the_rating_asked_for():
    previous = WORLD.event_probability(0, SPAN_START, liked=None)
    assert np.array_equal(previous > 0, WORLD.exposed(0, np.arange(500)))
    assert np.array_equal(previous, WORLD.event_probability(0, SPAN_START, liked=1))
    for liked in (2, 3, 4, 5):
        current = WORLD.event_probability(0, SPAN_START, liked=liked)
        assert (current <= previous).all()
        assert current.sum() < previous.sum()
        previous = current
    with pytest.raises(ConfigError, match="1 to 5"):
        WORLD.event_probability(0, SPAN_START, liked=6)


def test_impressions_add_skips_beside_their_choice_and_change_nothing_else():
    plain = Simulation(n_users=200).interactions()
    shown = Simulation(n_users=200, impressions=True).interactions()
    consumed = pc.equal(shown["event"], "consume")
    assert shown.filter(consumed).equals(plain)

    skip = ~consumed.to_numpy()
    user, item, time, rating = (shown[name].to_numpy() for name in HEADS)
    assert np.isnan(rating[skip]).all()
    assert not skip[0]
    follows = np.flatnonzero(skip) - 1
    assert np.array_equal(user[follows], user[skip])
    assert np.array_equal(time[follows], time[skip])
    assert WORLD.exposed(user[skip], item[skip]).all()
    visit_of = np.cumsum(~skip)
    assert np.bincount(visit_of[skip]).max() == 3
    per_visit = np.unique(visit_of * 500 + item)
    assert len(per_visit) == len(item)
    assert 2.5 < skip.sum() / (~skip).sum() <= 3
    choice = item[~skip][visit_of[skip] - 1]
    assert WORLD.utility(user[skip], choice, time[skip]).mean() > 0.4 + (
        WORLD.utility(user[skip], item[skip], time[skip]).mean()
    )


def test_titles_are_unique_and_their_words_tell_genre_mood_and_maker(items):
    rows = items.to_pylist()
    assert len({row["title"] for row in rows}) == len(rows)
    genre_of = {noun: genre for genre, nouns in GENRES.items() for noun in nouns}
    mood_of = {adjective: mood for mood, words in MOODS.items() for adjective in words}
    for row in rows:
        adjective, noun, of, place = row["title"].split(" ", 3)
        assert of == "of"
        assert genre_of[noun] == row["genre"]
        assert mood_of[adjective] == row["mood"]
        assert place.startswith(row["maker"].removesuffix(" House"))
        for attribute in ("genre", "mood", "maker", "era"):
            assert row[attribute] in row["description"]
    assert Counter(items["genre"].to_pylist()).most_common(1)[0][0] == "drama"


def test_words_belong_to_one_value_and_places_never_repeat():
    nouns = [noun for words in GENRES.values() for noun in words]
    adjectives = [word for words in MOODS.values() for word in words]
    places = maker_places(3000)
    assert {len(words) for words in GENRES.values()} == {8}
    assert {len(words) for words in MOODS.values()} == {6}
    words = [*nouns, *adjectives, *places]
    assert len(set(words)) == len(words) == 96 + 48 + 3000
    assert maker_places(30) == places[:30]
    by_name = sorted(places)
    assert not any(b.startswith(a) for a, b in pairwise(by_name))


def test_colliding_titles_get_roman_numerals():
    titles = Simulation(n_items=20_000).items()["title"].to_pylist()
    assert len(set(titles)) == 20_000
    seconds = [title for title in titles if title.endswith(" II")]
    assert seconds
    assert {title.removesuffix(" II") for title in seconds} <= set(titles)
    assert [roman(n) for n in (1, 4, 9, 14, 40, 1994)] == ["I", "IV", "IX", "XIV", "XL", "MCMXCIV"]


def test_vectors_show_their_attributes_through_the_noise():
    """A least-squares probe reads genre from text, and from images only era, mood and maker."""
    text, image = WORLD.text_vectors(), WORLD.image_vectors()
    assert text.shape == (500, 32)
    assert image.shape == (500, 16)
    assert text.dtype == image.dtype == np.float32
    assert np.square(text).sum(1).mean() == pytest.approx(1 + 0.5**2, rel=0.2)
    assert np.square(image).sum(1).mean() == pytest.approx(1 + 1.0**2, rel=0.2)
    assert probe(text, "genre") > 0.7
    assert probe(text, "mood") > 0.7
    assert probe(image, "mood") > probe(image, "genre") + 0.15


def probe(vectors: np.ndarray, attribute: str) -> float:
    value = WORLD.attributes[attribute]
    inputs = np.c_[vectors, np.ones(500)]
    weights, *_ = np.linalg.lstsq(inputs[:350], np.eye(value.max() + 1)[value[:350]], rcond=None)
    return float(np.mean((inputs[350:] @ weights).argmax(1) == value[350:]))


@pytest.mark.parametrize(
    "arguments", [{"n_users": 0}, {"n_items": 19}, {"visits": 0}, {"visits": math.nan}]
)
def test_impossible_sizes_are_refused_in_a_sentence(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Simulation(**arguments)


def test_smallest_world_works():
    log = Simulation(n_users=1, n_items=20, visits=1, impressions=True)
    assert log.interactions().schema.names == [*HEADS, "event"]
    assert log.items().num_rows == 20
