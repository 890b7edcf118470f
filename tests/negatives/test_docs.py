"""What docs/negatives.md says is there."""

import inspect
import re
from pathlib import Path

import numpy as np
import torch
import yaml

from palate.config import PoolConfig, parse_config
from palate.data.contexts import Context
from palate.negatives import SAMPLERS, LiveSampler, Mixture
from palate.negatives.live import Visit
from palate.negatives.pool import Pool

PAGE = (Path(__file__).parents[2] / "docs" / "negatives.md").read_text()


def test_every_sampler_has_its_row_and_options():
    rows = dict(re.findall(r"\n\| `(\w+)` \|(.*)", PAGE))
    assert set(SAMPLERS) <= set(rows)
    for name, sampler in SAMPLERS.items():
        options = list(inspect.signature(sampler).parameters)[1:]
        assert re.findall(r"`(\w+)`", rows[name].split("|")[1]) == options
    for key, field in PoolConfig.model_fields.items():
        assert f" {'null' if field.default is None else field.default} " in rows[key]


def test_its_configurations_are_valid():
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        parse_config(yaml.safe_load(text))


def test_the_sampler_of_ones_own():
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict = {}
    exec(snippet, scope)
    sampler = scope["SecondBest"]()
    assert isinstance(sampler, LiveSampler)
    none = np.empty(0, np.int64)
    pool = Pool(-torch.arange(120.0)[None], torch.arange(120)).without([np.array([0, 51])])
    visit = Visit([Context(none, none, none)], [np.array([0, 51])], [(1,)], [], pool)
    (drawn,) = Mixture({"second": (sampler, 3)}).draw_live(visit)
    assert drawn.tolist() == [52, 53, 54]
