"""Some users to look at: what they did, what was held out, and the list of each stage."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from palate.data.contexts import Interactions
from palate.evaluation.ranking import Ranks
from palate.evaluation.stages import Evaluation
from palate.files import write_table
from palate.randomness import permutation

EXAMPLES = 20
HISTORY = 20
"""Items of a history that are kept, the last ones."""
ITEM = pa.struct({"item_id": pa.int64(), "title": pa.string()})
FELT = pa.struct({"item_id": pa.int64(), "title": pa.string(), "felt": pa.string()})
STAGE = pa.struct({"stage": pa.string(), "items": pa.list_(ITEM), "ranks": pa.list_(pa.float64())})
SCHEMA = pa.schema(
    {
        "context_id": pa.int64(),
        "user": pa.string(),
        "said": pa.string(),
        "history_length": pa.int64(),
        "history": pa.list_(FELT),
        "held_out": pa.list_(ITEM),
        "stages": pa.list_(STAGE),
    }
)
"""`ranks` are those of the held-out items, in their order; `felt` is "liked", "disliked" or ""."""


def write_examples(evaluation: Evaluation, folder: Path) -> None:
    """Write `examples.parquet`, unless no trained stage has ranked the catalogue."""
    if (found := examples(evaluation)) is not None:
        write_table(found, folder / "examples.parquet")


def examples(evaluation: Evaluation, count: int = EXAMPLES) -> pa.Table | None:
    """A seeded sample of test contexts, whoever gained or lost, with the lists of every stage.

    Args:
        evaluation: what has ranked the trained stages.
        count: contexts, at most.

    Returns:
        A row per context, in the form of `SCHEMA`; None where no stage has lists, as with policies
        that score candidate lists alone.
    """
    stages = {
        stage: ranks["catalogue"]
        for stage, ranks in evaluation.trained().items()
        if "catalogue" in ranks
    }
    if not stages:
        return None
    data, contexts = evaluation.data, evaluation.contexts
    excludes = evaluation.config.exclude_history
    titles, names = data.titles(), data.users["source_id"].to_pylist()
    chosen = np.sort(permutation(len(contexts), evaluation.seed, "examples")[:count])

    def item(item_id: int) -> dict[str, object]:
        return {"item_id": item_id, "title": titles[item_id]}

    rows = []
    for index in chosen.tolist():
        context = contexts[index]
        felt = _felt(data.interactions, context.context_id, len(context.history))[-HISTORY:]
        history = context.history[-HISTORY:].tolist()
        # a list is filled up with them where the catalogue has too few others
        left_out = set(context.history) - set(context.positives) if excludes else set()
        rows.append(
            {
                "context_id": context.context_id,
                "user": str(names[context.user_id]),
                "said": context.text,
                "history_length": len(context.history),
                "history": [
                    {**item(i), "felt": feeling} for i, feeling in zip(history, felt, strict=True)
                ],
                "held_out": [item(i) for i in context.positives.tolist()],
                "stages": [
                    {
                        "stage": stage,
                        "items": [item(i) for i in _list(ranks, index) if i not in left_out],
                        "ranks": ranks.rank[ranks.group == index].tolist(),
                    }
                    for stage, ranks in stages.items()
                ],
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA)


def _list(ranks: Ranks, index: int) -> list[int]:
    return [] if ranks.lists is None else ranks.lists[index].tolist()


def _felt(log: Interactions, row: int, length: int) -> list[str]:
    """What the user thought of the `length` items before a row."""
    before = slice(row - length, row)
    marks = np.where(log.levels[before] > 0, "liked", "")
    return np.where(log.disliked[before], "disliked", marks).tolist()
