"""Known false negatives: by the simulator's ratings, and by what the log holds later."""

import numpy as np
import pytest

from conftest import log
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation
from palate.data.sources.simulate import simulate
from palate.evaluation.false_negatives import LikedLater, WouldLike

SIZES = {"n_users": 40, "n_items": 60, "visits": 24}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    prepare(simulate(**SIZES, seed=3), folder, Preparation(k_core=2), 0)
    return Prepared(folder, 1), Simulation(**SIZES, seed=3)


def test_would_like_agrees_with_the_ratings_in_the_log(simulated):
    data, world = simulated
    would_like, table = WouldLike(data, world), data.interactions
    contexts = list(data.contexts("test")) + list(data.contexts("train"))
    rows = np.array([context.context_id for context in contexts])
    items = table.items[rows][:, None]  # each begins at an event with a rating of its own
    assert (would_like(contexts, items)[:, 0] == (table.levels[rows] > 0)).all()
    assert 0.5 < (table.levels[rows] > 0).mean() <= 1


def test_fewer_would_be_liked_with_a_higher_bar_and_none_that_is_absent(simulated):
    data, world = simulated
    contexts = data.contexts("test")[:5]
    items = np.tile(np.arange(data.n_items), (5, 1))
    four, five = (WouldLike(data, world, liked)(contexts, items) for liked in (4, 5))
    assert (four & five == five).all()
    assert 0 < five.sum() < four.sum() < items.size
    assert not WouldLike(data, world, 1)(contexts, np.full((5, 2), -1)).any()


def test_liked_later_by_hand(tmp_path):
    """u: 0 1 2 3 4 in time, 3 not liked; v the same items in other order."""
    rows = [("u", i, i, 1.0 if i == 3 else 5.0) for i in range(5)]
    rows += [("v", i, t, 5.0) for t, i in enumerate((4, 3, 2, 1, 0))]
    prepare(log(rows), tmp_path, Preparation(k_core=1), 0)
    data = Prepared(tmp_path, 1)
    later = LikedLater(data)
    source = data.items["source_id"].to_pylist()
    of = np.array([source.index(i) for i in range(5)])
    users = data.users["source_id"].to_pylist()
    contexts = [
        c for c in data.contexts("train") if users[c.user_id] == "u" and len(c.history) == 1
    ]
    (context,) = contexts
    asked = np.append(of, -1)[None]
    # 0 is past, 1 is its own positive, 2 and 4 come later, 3 comes later and is not liked
    assert later(contexts, asked).tolist() == [[False, True, True, False, True, False]]
    assert data.interactions.items[context.context_id] == of[1]
