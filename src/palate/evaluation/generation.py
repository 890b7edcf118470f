"""How often free generation names an item at all, and how often the right one.

Three numbers, each under its own name, because papers mean different things by HitRatio@1:

* `valid_ratio`: rows whose text is the title of a listed candidate (of any item, where the prompt
  lists none);
* `hit_ratio@1`: rows whose text is the right title, over all rows;
* `hit_ratio@1_valid`: the same over the valid rows alone, which flatters a model that is seldom
  valid.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate.data.contexts import Context, ContextSet, Ids
from palate.evaluation.candidates import Candidates
from palate.evaluation.ranking import Interval, steps
from palate.evaluation.significance import Difference, bootstrap_interval, paired_difference
from palate.policies import LanguagePolicy
from palate.policies.language.decoding import generate, written_titles
from palate.policies.policy import PADDING_ITEM


@dataclass(frozen=True)
class Generations:
    """What was written, one row per held-out positive.

    Attributes:
        context_id, user_id, item_id: (R,) whose right answer it was.
        text: (R,) what the model wrote.
        valid, hit: (R,) whether that is a title to choose from, and the right one.
    """

    context_id: Ids
    user_id: Ids
    item_id: Ids
    text: list[str]
    valid: NDArray[np.bool_]
    hit: NDArray[np.bool_]

    def table(self, stage: str) -> pa.Table:
        """Rows for `generations.parquet`."""
        return pa.table({"stage": [stage] * len(self.text), **vars(self)})


def generations(
    policy: LanguagePolicy,
    contexts: ContextSet,
    lists: Candidates | None,
    batch_size: int = 16,
    label: str | None = None,
) -> Generations:
    """Let a policy write for every held-out positive.

    Args:
        policy: a language policy.
        contexts: test contexts.
        lists: the candidates that its prompts show, one list per positive; None where they show
            none.
        batch_size: rows written at once.
        label: names the progress bar; none without it.
    """
    asked: list[Context] = []
    if lists is None:
        asked = [
            replace(context, positives=item[None])
            for context in contexts
            for item in context.positives
        ]
    else:
        for row, place, ids in zip(lists.row, lists.place, lists.item_ids, strict=True):
            shown = ids[ids != PADDING_ITEM]
            context = contexts[int(row)]
            asked.append(replace(context, positives=ids[place][None], candidates=shown))
    texts: list[str] = []
    for start in steps(len(asked), batch_size, label):
        texts += generate(policy, asked[start : start + batch_size])
    names = [same(title) for title in written_titles(policy)]
    every = set(names)
    valid, hit = [], []
    for text, context in zip(texts, asked, strict=True):
        found = same(text)
        shown = context.candidates if lists is not None else None
        valid.append(found in (every if shown is None else {names[item] for item in shown}))
        hit.append(found == names[int(context.positives[0])])
    return Generations(
        context_id=np.array([context.context_id for context in asked]),
        user_id=np.array([context.user_id for context in asked]),
        item_id=np.array([int(context.positives[0]) for context in asked]),
        text=texts,
        valid=np.array(valid),
        hit=np.array(hit),
    )


def read_generations(path: Path) -> Generations:
    """What `Generations.table` wrote for one stage."""
    table = pq.read_table(path)
    columns = {
        name: table[name].to_numpy(zero_copy_only=False)
        for name in ("context_id", "user_id", "item_id", "valid", "hit")
    }
    return Generations(text=table["text"].to_pylist(), **columns)


def same(text: str) -> str:
    """A text without what does not matter when titles are compared: case and spacing."""
    return " ".join(text.split()).casefold()


def summarise_generations(found: Generations, seed: int, draws: int) -> dict[str, Interval]:
    """The three ratios with 95 % intervals by user; None where no row is valid."""
    summary: dict[str, Interval] = {}
    for name, (values, users) in _rows(found).items():
        if len(values):
            value, low, high = bootstrap_interval(values, users, seed, draws)
            summary[name] = {"value": value, "low": low, "high": high}
        else:
            summary[name] = {"value": None, "low": None, "high": None}
    return summary


def generation_difference(
    a: Generations, b: Generations, seed: int, draws: int
) -> dict[str, Difference]:
    """Paired differences of the ratios over all rows; the valid rows differ between policies."""
    rows_a, rows_b = _rows(a), _rows(b)
    return {
        name: paired_difference(rows_a[name][0], rows_b[name][0], a.user_id, seed, draws)
        for name in ("valid_ratio", "hit_ratio@1")
    }


def _rows(found: Generations) -> dict[str, tuple[NDArray[np.float64], Ids]]:
    hits = found.hit.astype(float)
    return {
        "valid_ratio": (found.valid.astype(float), found.user_id),
        "hit_ratio@1": (hits, found.user_id),
        "hit_ratio@1_valid": (hits[found.valid], found.user_id[found.valid]),
    }
