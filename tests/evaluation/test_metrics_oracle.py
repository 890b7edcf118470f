"""Ranking metrics against ir-measures, which runs trec_eval's own code, where nothing ties.

The definitions agree but for MAP: trec_eval divides by the number of positives k, also where k is
above the cutoff K and no list could reach 1; ours divides by min(k, K). Ties it breaks by name.
"""

import ir_measures
import numpy as np
import pytest

from palate.evaluation.metrics import context_metrics, ranks_of

CUTOFFS = (1, 3, 5, 10, 20)
CONTEXTS, ITEMS = 300, 60
NAMES = {"hr": "Success", "recall": "R", "ndcg": "nDCG", "mrr": "RR", "map": "AP"}
GAINS = {level: 2**level - 1 for level in range(5)}


def random_lists(seed, most_positives):
    """(scores, context, item, level): no two scores of a context are equal; some are masked."""
    random = np.random.default_rng(seed)
    scores = np.stack([random.permutation(ITEMS) for _ in range(CONTEXTS)]).astype(float)
    scores[random.random(scores.shape) < 0.1] = -np.inf  # positives among them
    context, item = [], []
    for row in range(CONTEXTS):
        chosen = random.choice(ITEMS, random.integers(1, most_positives + 1), replace=False)
        context += [row] * len(chosen)
        item += chosen.tolist()
    levels = random.integers(1, 5, len(item))
    return scores, np.array(context), np.array(item), levels


def oracle(scores, context, item, levels, graded):
    """name@K → (contexts,) values of ir-measures."""
    qrels, by_level = ({str(row): {} for row in range(CONTEXTS)} for _ in range(2))
    for row, column, level in zip(context.tolist(), item.tolist(), levels.tolist(), strict=True):
        qrels[str(row)][str(column)], by_level[str(row)][str(column)] = 1, level
    run = {
        str(row): {str(i): float(scores[row, i]) for i in np.flatnonzero(np.isfinite(scores[row]))}
        for row in range(CONTEXTS)
    }
    wanted = [(name, ir_measures.parse_measure(theirs), qrels) for name, theirs in NAMES.items()]
    if graded:
        wanted.append(("ndcg_graded", ir_measures.parse_measure("nDCG")(gains=GAINS), by_level))
    values = {}
    for name, measure, relevant in wanted:
        measures = {measure @ cutoff: f"{name}@{cutoff}" for cutoff in CUTOFFS}
        values |= {named: np.full(CONTEXTS, np.nan) for named in measures.values()}
        for found in ir_measures.iter_calc(list(measures), relevant, run):
            values[measures[found.measure]][int(found.query_id)] = found.value
    return values


@pytest.mark.parametrize(
    ("most_positives", "graded"), [(1, False), (1, True), (12, False), (12, True), (40, False)]
)
def test_metrics_are_those_of_trec_eval(most_positives, graded):
    scores, context, item, levels = random_lists(most_positives, most_positives)
    ranks = ranks_of(scores, context, item)
    found = context_metrics(context, ranks, levels, CONTEXTS, CUTOFFS, graded)
    expected = oracle(scores, context, item, levels, graded)
    positives = np.bincount(context)
    assert set(found) == set(expected)
    for name, values in found.items():
        if name.startswith("map"):
            cutoff = int(name.partition("@")[2])
            values = values * np.minimum(positives, cutoff) / positives
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-9, err_msg=name)
        assert 0 < values.mean() < 1
