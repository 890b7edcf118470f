"""Runs against each other on the same contexts: paired differences, slices, seeds."""

from palate.comparison.compare import compare, stage_slices
from palate.comparison.rows import Comparison, Drift, Mean, Row, Side
from palate.comparison.table import markdown_report, rich_report

__all__ = [
    "Comparison",
    "Drift",
    "Mean",
    "Row",
    "Side",
    "compare",
    "markdown_report",
    "rich_report",
    "stage_slices",
]
