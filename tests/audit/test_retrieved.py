"""A retriever's order is told apart from an answer that was put at a place."""

import numpy as np
import pytest

from audit.test_audit import by_name, noted, write_json
from palate.audit import audit


def retrieved_rows(n: int, seed: int, put=None) -> list[dict]:
    """Lists of ten, best first by popularity and a person's taste; `put` moves the answer."""
    random = np.random.default_rng(seed)
    popular = np.log(np.arange(1, 201) ** -0.8)
    genres = np.arange(200) % 5
    rows = []
    while len(rows) < n:
        taste = popular + np.log(random.gamma(0.5, size=5) + 1e-9)[genres]
        whole = np.argsort(-(taste + random.gumbel(size=200)))[:9].tolist()
        history, answer = whole[:8], whole[8]
        thought = taste + random.normal(0, 1, 200)
        thought[history] = -np.inf
        best = np.argsort(-thought)[:10].tolist()
        if put is None:
            if answer not in best:
                continue
        else:
            best = [item for item in best if item != answer][:9]
            best.insert(put, answer)
        rows.append(
            {
                "historyList": [f"Title {item:03d}" for item in history],
                "itemList": [f"Title {item:03d}" for item in best],
                "trueSelection": f"Title {answer:03d}",
            }
        )
    return rows


@pytest.mark.parametrize("seed", range(2))
def test_a_retrievers_order_is_a_caution(seed, tmp_path):
    found = audit(write_json(retrieved_rows(500, seed), tmp_path / "test.json"))
    position = by_name(found)["position"]
    assert position.score > 0.15
    assert position.verdict == "caution", noted(found)
    assert "a retriever's order" in position.advice
    assert not found.leaks(), noted(found)


@pytest.mark.parametrize("put", [0, 9, 4])
def test_an_answer_put_into_a_retrievers_list_is_a_leak(put, tmp_path):
    found = audit(write_json(retrieved_rows(300, 5, put), tmp_path / "test.json"))
    assert by_name(found)["position"].verdict == "leak", noted(found)


def test_an_answer_that_is_often_first_among_shuffled_negatives_is_a_leak(tmp_path):
    random, rows = np.random.default_rng(1), retrieved_rows(500, 6)
    for row in rows:
        random.shuffle(row["itemList"])
        if (place := min(int(random.geometric(0.35)) - 1, 9)) < 10:
            row["itemList"].remove(row["trueSelection"])
            row["itemList"].insert(place, row["trueSelection"])
    found = audit(write_json(rows, tmp_path / "test.json"))
    assert by_name(found)["position"].verdict == "leak", noted(found)
