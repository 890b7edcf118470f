"""Small catalogues, as a run's data/items.parquet has them."""

import pyarrow as pa


def catalogue(titles: list[str], ids: list | None = None, **columns: list) -> pa.Table:
    """Items 0, 1, … with their ids in the source: 10, 11, … unless given."""
    numbers = list(range(len(titles)))
    source_ids = [10 + i for i in numbers] if ids is None else ids
    return pa.table({"item_id": numbers, "source_id": source_ids, "title": titles, **columns})
