"""What docs/data.md says to type works when pasted."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

from palate.config import parse_config
from palate.data.sources import BUILT_IN
from palate.data.tables import check_tables
from palate.errors import DataError

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8")
SNIPPETS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet["data"]["source"])
def test_every_snippet_is_a_configuration(snippet):
    assert parse_config(snippet).data.source == snippet["data"]["source"]


def test_every_source_has_a_snippet_and_a_first_line():
    assert {snippet["data"]["source"] for snippet in SNIPPETS} == set(BUILT_IN) - {"simulate"}
    for name, source in BUILT_IN.items():
        first = (inspect.getdoc(source) or "").split("\n")[0]
        assert first.endswith("."), f"{name}: {first!r}"


def test_the_source_of_the_page_works(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict = {}
    exec(block, scope)
    path = tmp_path / "hours.csv"
    path.write_text('user_id,item_id,title,weight\n1,7,"Portal, 2",3.5\n2,7,"Portal, 2",0.5\n')
    tables = scope["steam"](str(path), least_hours=1)
    check_tables(tables)
    assert tables.interactions.to_pylist() == [{"user_id": 1, "item_id": 7, "weight": 3.5}]
    assert tables.items.to_pylist() == [{"item_id": 7, "title": "Portal, 2"}]
    path.write_text("user_id,item_id,title,weight\n1,7,Portal,lots\n")
    with pytest.raises(DataError, match=r"hours\.csv line 2: weight 'lots' is not a number"):
        scope["steam"](str(path))
