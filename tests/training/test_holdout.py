"""Training histories in two parts: each target in one of them, histories whole."""

import numpy as np
import pytest

from conftest import log
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.errors import DataError
from palate.training.holdout import held_out_from, split_training


def learnt(data):
    contexts, items = data.imitation_contexts()
    return {(int(row), int(item)) for row, item in zip(contexts.begins, items, strict=True)}


def test_every_target_is_in_one_part(small_data):
    first, rest = split_training(small_data, 0.4)
    both = learnt(first), learnt(rest)
    assert not both[0] & both[1]
    assert both[0] | both[1] == learnt(small_data)
    liked = [{c.context_id for c in part.contexts("train")} for part in (first, rest, small_data)]
    assert not liked[0] & liked[1]
    assert liked[0] | liked[1] == liked[2]
    assert {row for row, _ in both[1]} >= liked[1]


def test_the_second_part_has_the_first_as_history(small_data):
    first, rest = split_training(small_data, 0.4)
    rows, begins = small_data.interactions, held_out_from(small_data, 0.4)
    starts = rows.split_starts
    in_first = np.flatnonzero(begins > starts["train"])
    before = dict(zip(in_first, first.training_histories, strict=True))
    in_rest = np.flatnonzero(starts["validation"] > begins)
    for user, after in zip(in_rest, rest.training_histories, strict=True):
        assert after.items[: after.first_target].tolist() == before[user].items.tolist()
        assert after.items[after.first_target] == rows.items[begins[user]]
    assert len(in_rest) > 30
    for context in rest.contexts("train")[:40]:
        assert len(context.history) == context.context_id - rows.first_row[context.user_id]
        assert context.context_id >= begins[context.user_id]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_the_share_is_rounded_and_one_stays(share, small_data):
    starts = small_data.interactions.split_starts
    n = starts["validation"] - starts["train"]
    held_out = starts["validation"] - held_out_from(small_data, share)
    assert (held_out == np.minimum(np.floor(share * n + 0.5), n - 1)).all()


def test_nothing_held_out_is_the_data_itself(small_data):
    assert split_training(small_data, 0.0) == (small_data, small_data)


def test_what_training_tells_of_items_stays_whole(small_data):
    for part in split_training(small_data, 0.5):
        assert (part.popularity == small_data.popularity).all()
        assert len(part.observed_negatives) == len(small_data.observed_negatives)


def test_a_turn_of_a_dialogue_is_never_divided(tmp_path):
    """A third of three answers is one, but the last two stand in one turn."""
    rows = [row for d in range(20) for row in [(d, d % 7, 2), (d, 7, 5), (d, 8, 5)]]
    tables = log(rows, "user_id item_id turn")
    prepare(tables, tmp_path, Preparation(), seed=0)
    data = Prepared(tmp_path, window=1)
    first, rest = split_training(data, 0.34)
    in_training = len(first.training_histories)
    assert in_training > 10
    assert [len(h.items) for h in first.training_histories] == [1] * in_training
    assert [h.first_target for h in rest.training_histories] == [1] * in_training
    assert [len(c.positives) for c in rest.contexts("train")] == [2] * in_training


def test_too_little_to_hold_out_is_told(small_data):
    with pytest.raises(DataError, match=r"align\.holdout: a share of 0\.001 holds out nothing"):
        split_training(small_data, 0.001)
