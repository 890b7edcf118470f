"""The embedded engine: what narwhals leaves to each database, in three methods.

Everything relational in `prepare` is written once in narwhals. Tried on DuckDB and on PySpark,
k-core, tie-safe positions, windowed positives and the portable hash came out the same to the
row; only opening a table, breaking a lazy plan and collecting differ between them.
"""

import duckdb
import narwhals as nw
import pyarrow as pa


class DuckDB:
    """An in-process DuckDB database."""

    def __init__(self) -> None:
        self._connection = duckdb.connect()

    def open(self, table: pa.Table) -> nw.LazyFrame:
        """A lazy frame over an Arrow table, not copied."""
        return nw.from_native(self._connection.from_arrow(table))

    def materialise(self, frame: nw.LazyFrame) -> nw.LazyFrame:
        """Run the plan so far, so that what follows does not run it again."""
        return self.open(self.collect(frame))

    def collect(self, frame: nw.LazyFrame) -> pa.Table:
        """Run the plan and bring the rows here."""
        return frame.collect("pyarrow").to_native()
