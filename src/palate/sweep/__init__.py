"""A grid of runs that share what they agree on, resumable, with one table at the end."""

from palate.sweep.grid import read_over
from palate.sweep.outlook import described
from palate.sweep.plan import plan_sweep
from palate.sweep.running import Swept, folder_of, sweep
from palate.sweep.table import rich_tables, sweep_rows, sweep_table

__all__ = [
    "Swept",
    "described",
    "folder_of",
    "plan_sweep",
    "read_over",
    "rich_tables",
    "sweep",
    "sweep_rows",
    "sweep_table",
]
