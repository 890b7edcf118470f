"""Ranks and ranking metrics: by hand, against published examples and against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import ConfigError, DataError
from palate.evaluation import metrics
from palate.evaluation.metrics import context_metrics, ranks_of


def one_context(ranks, levels=None, **options):
    levels = [1] * len(ranks) if levels is None else levels
    result = context_metrics([0] * len(ranks), ranks, levels, 1, **options)
    return {name: value.item() for name, value in result.items()}


def loop_rank(row, item):
    higher = sum(score > row[item] for score in row)
    equal = sum(score == row[item] for j, score in enumerate(row) if j != item)
    return 1 + higher + equal / 2


def loop_metrics(ranks, levels, cutoff, graded):
    """The definitions of one context, word by word."""
    found = [r for r in ranks if r <= cutoff]
    upside, reach = [-rank for rank in ranks], min(len(ranks), cutoff)

    def ndcg(gains):
        dcg = sum(g / math.log2(r + 1) for r, g in zip(ranks, gains, strict=True) if r <= cutoff)
        best = enumerate(sorted(gains, reverse=True)[:reach])
        return min(1.0, dcg / sum(g / math.log2(j + 2) for j, g in best))

    by_level = {"ndcg_graded": ndcg([2.0**level - 1 for level in levels])} if graded else {}
    return {
        "hr": float(any(found)),
        "recall": len(found) / len(ranks),
        "ndcg": ndcg([1.0] * len(ranks)),
        **by_level,
        "mrr": 1 / min(ranks) if min(ranks) <= cutoff else 0.0,
        "map": min(1.0, sum(loop_rank(upside, ranks.index(r)) / r for r in found) / reach),
    }


def test_ranks_by_hand():
    scores = np.array([[3.0, 1.0, 2.0, 1.0], [5.0, 5.0, 5.0, -np.inf]])
    # Row 0: 3 is first, 2 second; the two ones share places 3 and 4: 1 + 2 + 1/2 = 3.5.
    # Row 1: three equal candidates, one masked: 1 + 0 + 2/2 = 2.
    ranks = ranks_of(scores, [0, 0, 0, 1, 0], [0, 2, 1, 1, 3])
    np.testing.assert_array_equal(ranks, [1, 2, 3.5, 2, 3.5])


def test_constant_scores_rank_in_the_middle_and_a_masked_positive_nowhere():
    np.testing.assert_array_equal(ranks_of(np.zeros((1, 101)), [0], [7]), [51])
    masked = ranks_of(np.full((1, 3), -np.inf), [0], [1])
    np.testing.assert_array_equal(masked, [np.inf])
    assert set(one_context(masked).values()) == {0.0}


@given(st.integers(0, 10_000), st.sampled_from([np.float16, np.float32, np.float64]))
def test_ranks_equal_a_loop_in_blocks_of_any_size(seed, kind):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 5, (4, 9)).astype(kind)
    scores[random.random((4, 9)) < 0.2] = -np.inf
    rows, items = np.nonzero(np.isfinite(scores) & (random.random((4, 9)) < 0.5))
    shuffled = random.permutation(len(rows))
    expected = [loop_rank(scores[r], i) for r, i in zip(rows, items, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK", int(random.integers(1, 50)))
        found = ranks_of(scores, rows[shuffled], items[shuffled])
    np.testing.assert_array_equal(found, np.array(expected)[shuffled])


def test_bad_scores_are_named():
    scores = np.zeros((3, 4))
    scores[2, 1] = np.nan
    with pytest.raises(DataError, match="scores row 2: item 1 has the score NaN"):
        ranks_of(scores, [0], [0])
    with pytest.raises(DataError, match="items are -1–0, but the scores have 2 items"):
        ranks_of(np.zeros((1, 2)), [0, 0], [-1, 0])
    with pytest.raises(DataError, match=r"rows \(2,\), items \(1,\)"):
        ranks_of(np.zeros((2, 2)), [0, 1], [1])
    with pytest.raises(DataError, match="expected"):
        ranks_of(np.zeros((2, 0)), [], [])
    assert ranks_of(np.zeros((2, 3)), [], []).shape == (0,)


def test_metrics_by_hand():
    # k = 2 positives, at ranks 2 and 7.
    found = one_context([7, 2], cutoffs=(1, 5, 10))
    ideal = 1 / math.log2(2) + 1 / math.log2(3)
    expected = {
        "hr@1": 0, "recall@1": 0, "ndcg@1": 0, "mrr@1": 0, "map@1": 0,
        "hr@5": 1, "recall@5": 1 / 2, "mrr@5": 1 / 2,
        "ndcg@5": (1 / math.log2(3)) / ideal,
        "map@5": (1 / 2) / 2,
        "hr@10": 1, "recall@10": 1, "mrr@10": 1 / 2,
        "ndcg@10": (1 / math.log2(3) + 1 / math.log2(8)) / ideal,
        "map@10": (1 / 2 + 2 / 7) / 2,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-12)


def test_more_positives_than_places():
    # k = 3, K = 2, ranks 1, 2, 9: recall is divided by k, the ideals of ndcg and map by min(k, K).
    found = one_context([1, 2, 9], cutoffs=(2,))
    assert found == pytest.approx(
        {"hr@2": 1, "recall@2": 2 / 3, "ndcg@2": 1, "mrr@2": 1, "map@2": 1}, abs=1e-12
    )


def test_published_examples():
    # Relevances 3, 2, 3, 0, 1, 2 down the list: NDCG 0.9488 with gains 2^level − 1 (Wikipedia).
    graded = one_context([1, 2, 3, 5, 6], [3, 2, 3, 1, 2], cutoffs=(6,), graded=True)
    assert graded["ndcg_graded@6"] == pytest.approx(0.9488, abs=5e-5)
    # Average precision 0.62 and 0.44 (Manning, Raghavan and Schütze's course slides).
    assert one_context([1, 3, 6, 9, 10])["map@10"] == pytest.approx(0.62, abs=5e-3)
    assert one_context([2, 5, 7])["map@10"] == pytest.approx(0.44, abs=5e-3)


def test_levels_count_in_graded_ndcg_alone():
    # levels 2 and 1 at ranks 3 and 1: (3/log2(4) + 1) / (3 + 1/log2(3)) = 2.5/3.6309
    found = one_context([3, 1], [2, 1], cutoffs=(3,), graded=True)
    assert found["ndcg_graded@3"] == pytest.approx(0.688529, abs=1e-6)
    assert found["ndcg@3"] == pytest.approx(1.5 / (1 + 1 / math.log2(3)), abs=1e-12)
    # K = 1 of k = 2: the ideal is the better level alone
    assert one_context([3, 1], [2, 1], cutoffs=(1,), graded=True)["ndcg_graded@1"] == (
        pytest.approx(1 / 3, abs=1e-12)
    )
    # tied at ranks 1 and 2, both stand at 1.5: (3 + 1) / log2(2.5) over the same ideal
    tied = one_context([1.5, 1.5], [2, 1], cutoffs=(2,), graded=True)["ndcg_graded@2"]
    assert tied == pytest.approx(4 / math.log2(2.5) / (3 + 1 / math.log2(3)), abs=1e-12)
    # five tied at 1 to 5 stand at 3; twice the gains within K = 3 than fit there are cut to 1
    assert one_context([3] * 5, [3] * 5, cutoffs=(3,), graded=True)["ndcg_graded@3"] == 1


@pytest.mark.parametrize("level", [1, 2, 4])
def test_graded_ndcg_of_one_level_is_the_binary_one(level):
    found = one_context([1.5, 4, 9, 30], [level] * 4, cutoffs=(1, 3, 10), graded=True)
    for k in (1, 3, 10):
        assert found[f"ndcg_graded@{k}"] == pytest.approx(found[f"ndcg@{k}"], abs=1e-12)


def test_a_rank_of_ten_and_a_half_is_not_in_the_top_ten():
    found = one_context([10.5, 10.5], cutoffs=(10, 11))
    assert {name: found[name] for name in ("hr@10", "recall@10", "mrr@10", "map@10")} == {
        "hr@10": 0, "recall@10": 0, "mrr@10": 0, "map@10": 0,
    }  # fmt: skip
    assert found["recall@11"] == 1


def test_tied_positives_keep_precision_at_most_one():
    # Two positives share ranks 1 and 2: (1/1.5 + 2/1.5) / 2 = 1, where counting
    # both at both would give (2/1.5 + 2/1.5) / 2 = 4/3.
    assert one_context([1.5, 1.5])["map@5"] == pytest.approx(1, abs=1e-12)
    assert one_context([1.5, 1.5, 4])["map@5"] == pytest.approx((2 + 3 / 4) / 3, abs=1e-12)
    assert one_context([1.5, 1.5])["ndcg@5"] == pytest.approx(
        (2 / math.log2(2.5)) / (1 + 1 / math.log2(3)), abs=1e-12
    )


def test_a_positive_tied_with_others_counts_at_the_middle_of_them():
    # Scores 4, 2, 2, 2, 1, the positive among the three twos: 1 + 1 + 2/2 = 3.
    (rank,) = ranks_of(np.array([[2.0, 4.0, 2.0, 2.0, 1.0]]), [0], [2])
    assert rank == 3
    # Tied with one other at the top, it stands at 1.5: not first, and each metric says so.
    (rank,) = ranks_of(np.array([[2.0, 1.0, 2.0]]), [0], [0])
    assert one_context([rank], cutoffs=(1, 2)) == pytest.approx(
        {
            "hr@1": 0, "recall@1": 0, "ndcg@1": 0, "mrr@1": 0, "map@1": 0,
            "hr@2": 1, "recall@2": 1, "mrr@2": 1 / 1.5, "map@2": 1 / 1.5,
            "ndcg@2": 1 / math.log2(2.5),
        },
        abs=1e-12,
    )  # fmt: skip


def test_more_tied_positives_than_places_give_one_not_more():
    # Five positives share ranks 1 to 5: all stand at 3, so K = 3 finds five where three fit.
    # DCG 5 / log2(4) = 2.5 over 1 + 0.631 + 0.5 = 2.131 and 5 · (3/3) / 3 are both cut to 1.
    found = one_context([3, 3, 3, 3, 3], cutoffs=(3,))
    assert found == {"hr@3": 1, "recall@3": 1, "ndcg@3": 1, "mrr@3": 1 / 3, "map@3": 1}


@given(st.integers(0, 100_000), st.booleans())
def test_metrics_equal_a_loop_over_contexts(seed, graded):
    random = np.random.default_rng(seed)
    n_contexts = int(random.integers(1, 6))
    scores = random.integers(0, 12, (n_contexts, 15)).astype(float)
    chosen = random.random((n_contexts, 15)) < 0.3
    chosen[:, 0] = True
    context, items = np.nonzero(chosen)
    shuffled = random.permutation(len(context))
    context, items = context[shuffled], items[shuffled]
    ranks, levels = ranks_of(scores, context, items), random.integers(1, 4, len(context))
    found = context_metrics(context, ranks, levels, n_contexts, (1, 3, 10), graded)
    assert len(found) == (18 if graded else 15)
    for c in range(n_contexts):
        mine = context == c
        for cutoff in (1, 3, 10):
            expected = loop_metrics(ranks[mine].tolist(), levels[mine].tolist(), cutoff, graded)
            for name, value in expected.items():
                assert found[f"{name}@{cutoff}"][c] == pytest.approx(value, abs=1e-12)
                assert 0 <= found[f"{name}@{cutoff}"][c] <= 1


@pytest.mark.parametrize(
    ("context", "ranks", "levels", "message"),
    [
        ([0, 2], [1, 1], [1, 1], "context 1 has no positive"),
        ([0, 3], [1, 1], [1, 1], "positive 1: context is 3; expected 0 to 2"),
        ([0, 1, 2], [1, np.nan, 1], [1, 1, 1], "positive 1: rank is nan"),
        ([0, 1, 2], [1, 1, 0.5], [1, 1, 1], "positive 2: rank is 0.5"),
        ([0, 1, 2], [1, 1, 1], [1, 0, 1], "positive 1: level is 0"),
        ([0, 1, 2], [1, 1, 1], [1, 1], "differ in shape"),
    ],
)
def test_columns_that_do_not_fit_are_named(context, ranks, levels, message):
    with pytest.raises(DataError, match=message):
        context_metrics(context, ranks, levels, 3)


def test_cutoffs_are_positive_integers():
    for cutoff in (0, 2.5):
        with pytest.raises(ConfigError, match="not a positive integer"):
            context_metrics([0], [1], [1], 1, cutoffs=(cutoff,))  # type: ignore[arg-type]
