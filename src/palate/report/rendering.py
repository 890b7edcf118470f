"""Pages that need nothing beside themselves: templates, style, script and plotly in one file."""

import base64
import gzip
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from palate.report.charts import Chart
from palate.report.colours import PALETTE

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "page_parts"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def rendered(template: str, charts: Iterable[Chart], /, **content: Any) -> str:
    """A page as HTML; everything in `content` is escaped where it is shown.

    Args:
        template: name of a file in `page_parts/`.
        charts: all charts that the page shows; no two share a name.
        content: what the template asks for.
    """
    figures = {chart.name: chart.figure for chart in charts}
    packed = packed_plotly() if figures else ""
    page = TEMPLATES.get_template(template)
    return page.render(figures=figures, plotly=packed, palette=PALETTE, **content)


@cache
def packed_plotly() -> str:
    """plotly.js, gzipped and in base64: 2 MB instead of 5, which the page's script unpacks."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
