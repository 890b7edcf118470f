"""Whether lists stand in the order of a retriever, which a place of the answer alone does not say.

A retriever's best candidates come first, so answers stand near the top because the retriever is
good. Its order shows without the answers: negatives, too, stand where what is known of them (how
high they stand for others, how often they go with the history, the words they share with the
prompt) puts them. Where an answer was only put at a place, its negatives stand in no order.
"""

import numpy as np
from scipy.sparse import csr_matrix

from palate.audit.lists import Lists
from palate.audit.rules import Known, Scores
from palate.audit.text_rules import shared_words
from palate.evaluation.significance import bootstrap_interval

MOST_ROWS = 1000
"""Lists whose order is looked at."""
LAST = 10
"""Items at the end of a history that candidates are compared with."""
LEAST_CORRELATION = 0.05
"""Mean correlation of place and evidence within a list, from which there is an order."""
FALLS = 0.25
"""Part of the first place's chance that the second place must have among the lists it is left."""


def in_order_of_retrieval(lists: Lists, known: Known, seed: int) -> bool:
    """Whether the lists stand in a retriever's order, best first, answers among the rest.

    True where the order of the negatives is no chance, and the answers' places fall off from the
    first as a ranking's do: among the lists whose answer is not first, it is second at least a
    quarter as often as it was first, and in the upper half on average.
    """
    return _falls_off(lists, seed) and _is_systematic(
        lists.sample(MOST_ROWS, seed, "audit order"), known, seed
    )


def _falls_off(lists: Lists, seed: int) -> bool:
    sizes = lists.filled.sum(axis=1)
    first = lists.place == 0
    rest = ~first & (sizes > 3)
    if not first.any() or not rest.any():
        return False
    second = float(np.mean(lists.place[rest] == 1))
    places = (lists.place[rest] - 1) / (sizes[rest] - 2)
    _, _, high = bootstrap_interval(places, lists.clusters[rest], seed)
    return second >= FALLS * float(first.mean()) and high < 0.5


def _is_systematic(lists: Lists, known: Known, seed: int) -> bool:
    negatives = lists.filled.copy()
    negatives[np.arange(len(lists)), lists.place] = False
    evidence = [_places_for_others(lists, negatives, known), _company(lists, known)]
    if known.titles is not None:
        evidence.append(shared_words(lists, lists, known))
    for values in evidence:
        correlations, rows = _correlations(values, negatives & np.isfinite(values))
        if len(np.unique(lists.clusters[rows])) < 5:
            continue
        mean, low, high = bootstrap_interval(
            correlations, lists.clusters[rows], seed, confidence=0.99
        )
        if abs(mean) >= LEAST_CORRELATION and (low > 0 or high < 0):
            return True
    return False


def _correlations(values: Scores, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of place and value within each row that has one, and those rows."""
    n = np.maximum(counted.sum(axis=1, keepdims=True), 1)
    places = np.where(counted, np.arange(values.shape[1], dtype=float), 0.0)
    own = np.where(counted, values, 0.0)
    places = np.where(counted, places - places.sum(axis=1, keepdims=True) / n, 0.0)
    own = np.where(counted, own - own.sum(axis=1, keepdims=True) / n, 0.0)
    scale = np.sqrt((places**2).sum(axis=1) * (own**2).sum(axis=1))
    rows = np.flatnonzero(scale > 1e-12)
    return (places * own).sum(axis=1)[rows] / scale[rows], rows


def _places_for_others(lists: Lists, negatives: np.ndarray, known: Known) -> Scores:
    """(R, K) where each item stands as other persons' negative, on average; NaN where it never
    does."""
    _, person = np.unique(lists.clusters, return_inverse=True)
    sizes = lists.filled.sum(axis=1, keepdims=True)
    relative = np.arange(lists.item_ids.shape[1]) / np.maximum(sizes - 1, 1)
    keys = person[:, None] * known.n_items + lists.item_ids
    _, cell = np.unique(np.where(negatives, keys, -1), return_inverse=True)
    cell = cell.reshape(keys.shape)
    weights = negatives.astype(float)
    found = []
    for values in (weights, weights * relative):
        by_item = np.bincount(lists.item_ids[negatives], values[negatives], known.n_items)
        own = np.bincount(cell.ravel(), values.ravel())
        found.append(by_item[lists.item_ids] - own[cell])
    counts, sums = found
    return np.where(counts > 0.5, sums / np.maximum(counts, 1), np.nan)


def _company(lists: Lists, known: Known) -> Scores:
    """(R, K) how often those who consumed the last of the history consumed each candidate."""
    log = known.log
    if log is None:
        return np.zeros(lists.item_ids.shape)
    ones = np.ones(len(log.items), np.float32)
    shape = (len(log.first_row) - 1, known.n_items)
    consumed = csr_matrix((ones, (log.users, log.items)), shape)
    histories = [history[-LAST:] for history in lists.histories]
    rows = np.repeat(np.arange(len(lists)), [len(one) for one in histories])
    items = np.concatenate([np.zeros(0, np.int64), *histories])
    asked = csr_matrix((np.ones(len(items), np.float32), (rows, items)), (len(lists), shape[1]))
    scores = np.empty(lists.item_ids.shape)
    for begin in range(0, len(lists), 100):
        part = slice(begin, begin + 100)
        company = (asked[part] @ consumed.T @ consumed).toarray()
        scores[part] = np.take_along_axis(company, np.maximum(lists.item_ids[part], 0), axis=1)
    return scores
