"""Sources that give whole contexts: their own splits, turns, candidate lists and dialogues."""

import numpy as np
import pyarrow as pa
import pytest

from conftest import log
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.tables import SourceTables
from palate.errors import DataError
from palate.evaluation.candidates import given_candidates


def ready(tables, tmp_path, **choices):
    manifest = prepare(tables, tmp_path, Preparation(**choices), seed=0)
    return Prepared(tmp_path, window=1), manifest


def candidate_rows():
    """Two training rows, a validation and a test row, each with three candidates."""
    rows = [
        (0, 10, "history"), (0, 11, "history"), (0, 12, "train"),
        (1, 12, "history"), (1, 13, "train"),
        (2, 10, "history"), (2, 13, "validation"),
        (3, 11, "history"), (3, 10, "history"), (3, 14, "test"),
    ]  # fmt: skip
    tables = log(rows, "user_id item_id split")
    lists = [(0, 15), (0, 12), (0, 13), (1, 13), (1, 10), (1, 11)]
    lists += [(2, 12), (2, 15), (2, 13), (3, 14), (3, 15), (3, 12)]
    listed = pa.table({"user_id": [u for u, _ in lists], "item_id": [i for _, i in lists]})
    items = pa.table({"item_id": [10, 11, 12, 13, 14, 15], "title": list("abcdef")})
    return SourceTables(tables.interactions, items, lists=listed)


def test_given_contexts_are_kept_as_they_are(tmp_path):
    data, manifest = ready(candidate_rows(), tmp_path)
    assert manifest["preparation"]["split"] == "given"
    assert manifest["preparation"]["k_core"] == 1
    assert data.n_items == 6  # item 15 is only ever shown
    found = {
        split: [(c.history.tolist(), c.positives.tolist()) for c in data.contexts(split)]
        for split in ("train", "validation", "test")
    }
    assert found == {
        "train": [([0, 1], [2]), ([2], [3])],
        "validation": [([0], [3])],
        "test": [([1, 0], [4])],
    }
    assert [c.candidates.tolist() for c in data.contexts("train")] == [[5, 2, 3], [3, 0, 1]]
    # only what training rows ask for is learnt, and counted as popular
    assert [(h.items.tolist(), h.first_target) for h in data.training_histories] == [
        ([0, 1, 2], 2),
        ([2, 3], 1),
    ]
    assert data.popularity.tolist() == [0, 0, 1, 1, 0, 0]
    contexts, targets = data.imitation_contexts()
    assert [c.history.tolist() for c in contexts] == [[0, 1], [2]]
    assert targets.tolist() == [2, 3]


def test_candidate_lists_are_the_sources_own(tmp_path):
    data, _ = ready(candidate_rows(), tmp_path)
    lists = given_candidates(data.contexts("test"))
    assert lists.item_ids.tolist() == [[4, 5, 2]]
    assert lists.place.tolist() == [0]
    (tmp_path / "lists.parquet").unlink()
    with pytest.raises(DataError, match=r"the candidates of context 9 \(user 3\) lack its right"):
        given_candidates(Prepared(tmp_path, 1).contexts("test"))


def dialogues(n=40):
    """Each dialogue has two turns, the second with two right answers."""
    rows = [row for d in range(n) for row in [(d, d % 7, 2), (d, 7, 5), (d, 8, 5)]]
    tables = log(rows, "user_id item_id turn")
    texts = [(d, t, f"Seeker: {d} {t}") for d in range(n) for t in (2, 5)]
    columns = {
        name: [text[i] for text in texts] for i, name in enumerate(["user_id", "turn", "text"])
    }
    return SourceTables(tables.interactions, tables.items, texts=pa.table(columns))


def test_dialogues_are_split_whole_and_every_turn_is_a_context(tmp_path):
    data, manifest = ready(dialogues(), tmp_path, fractions=(0.5, 0.75))
    assert manifest["preparation"]["split"] == "by_user"
    owners = {}
    for split in ("train", "validation", "test"):
        contexts = data.contexts(split)
        owners[split] = {c.user_id for c in contexts}
        assert len(contexts) == 2 * len(owners[split])
        for first, second in zip(contexts[::2], contexts[1::2], strict=True):
            user = first.user_id
            assert (first.history.tolist(), first.positives.tolist()) == ([], [user % 7])
            assert (second.history.tolist(), second.positives.tolist()) == ([user % 7], [7, 8])
            assert first.text == f"Seeker: {user} 2"
            assert second.text == f"Seeker: {user} 5"
    assert sum(map(len, owners.values())) == 40
    assert not owners["train"] & owners["test"]
    contexts, targets = data.imitation_contexts()
    assert len(contexts) == 3 * len(owners["train"])
    last = contexts[2]  # the second answer of a turn: the first is no part of its history
    assert last.history.tolist() == [last.user_id % 7]
    assert targets[:3].tolist() == [contexts[0].user_id % 7, 7, 8]


def test_whole_users_of_a_plain_log_are_held_out(tmp_path):
    rows = [(u, (u + i) % 9, i, 5.0) for u in range(60) for i in range(5)]
    data, _ = ready(log(rows), tmp_path, split="by_user", k_core=1, fractions=(0.6, 0.8))
    train = {c.user_id for c in data.contexts("train")}
    test = data.contexts("test")
    assert len(train) + len(data.contexts("validation")) + len(test) == 60
    assert 20 < len(train) < 50
    assert not train & {c.user_id for c in test}
    assert all(len(c.history) == 4 for c in test)
    # what held-out users did before is looked back on, never learnt
    assert len(data.training_histories) == len(train)
    assert data.popularity.sum() == 5 * len(train)


@pytest.mark.parametrize(
    ("rows", "columns", "choices", "sentence"),
    [
        ([(0, 1, "train"), (0, 2, "tset")], "user_id item_id split", {}, "split 'tset' is unknown"),
        (
            [(0, 1, "test"), (0, 2, "train")],
            "user_id item_id split",
            {},
            "1 rows of an earlier split follow a later one",
        ),
        ([(0, 1, "train")], "user_id item_id split", {"k_core": 5}, "would take items out of the"),
        ([(0, 1, 1)], "user_id item_id turn", {"split": "leave_one_out"}, "would cut through the"),
        ([(0, 1)], "user_id item_id", {"split": "given"}, "this source has no split of its own"),
        ([(0, 1)], "user_id item_id", {"split": "global_time"}, "needs a timestamp column"),
    ],
)
def test_contexts_that_would_be_broken_are_refused(rows, columns, choices, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence):
        ready(log(rows, columns), tmp_path, **choices)
    assert not list(tmp_path.iterdir())


def test_a_list_with_an_unknown_item_is_refused(tmp_path):
    tables = candidate_rows()
    lists = pa.table({"user_id": [0], "item_id": [99]})
    wrong = SourceTables(tables.interactions, tables.items, lists=lists)
    with pytest.raises(DataError, match="lists: 1 rows name an item that the item table lacks"):
        ready(wrong, tmp_path)


def test_draws_by_user_depend_on_the_seed(tmp_path):
    held = []
    for seed in (1, 2):
        prepare(dialogues(), tmp_path / str(seed), Preparation(fractions=(0.5, 0.75)), seed)
        contexts = Prepared(tmp_path / str(seed), 1).contexts("test")
        held.append(np.unique(contexts.users).tolist())
    assert held[0] != held[1]
