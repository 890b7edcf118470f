"""What docs/objectives.md and docs/papers.md say can be pasted, and is there."""

import math
import re
from pathlib import Path

import pytest
import torch
import yaml

from palate.config import parse_config
from palate.objectives import OBJECTIVES, CandidateScores, DynamicPO, setwise_bound_gap

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "objectives.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_runs_when_pasted(snippet):
    torch.manual_seed(0)
    scope: dict = {}
    exec(snippet, scope)
    if "loss" in scope:
        assert scope["loss"].isfinite().all()


def snippet_with(text: str) -> dict:
    (snippet,) = [snippet for snippet in SNIPPETS if text in snippet]
    scope: dict = {}
    exec(snippet, scope)
    return scope


def test_every_objective_has_a_section():
    assert all(f"\n## `{name}`\n" in PAGE for name in OBJECTIVES)


def test_the_boundary_of_the_snippet_is_what_its_comment_says():
    scope = snippet_with("objective.boundary")
    assert scope["objective"].boundary(scope["scores"]).tolist() == [[0, 1, 0, 0, 0]]


def test_the_gap_of_the_snippet_is_what_its_comment_says():
    scope = snippet_with("import CandidateScores, setwise_bound_gap")
    small, large = scope["gap"].tolist()
    assert 0 < small < large / 5


def test_the_monitor_of_the_snippet_speaks_once(capsys):
    snippet_with("CollapseMonitor()")
    assert capsys.readouterr().out.count("collapse at step") == 1


@pytest.mark.parametrize("k", [1, 3])
def test_the_losses_before_the_first_step(k):
    m, beta = 5, 0.5
    s = torch.full((1, k + m), -3.0, dtype=torch.float64)
    scores = CandidateScores(s, s, levels=torch.tensor([[1] * k + [0] * m]))
    promised = {
        "dpo": math.log(2),
        "dmpo": math.log(2),
        "ipo": 1 / (4 * beta**2),
        "lipo": k * m * math.log(2),
        "s_dpo": math.log(1 + m),
        "mult_dpo": k * math.log(k + m) - math.lgamma(k + 1),
        "pl_dpo": math.log(math.comb(k + m, k)),
    }
    found = {name: float(OBJECTIVES[name](scores, beta=beta)) for name in promised}
    assert found == pytest.approx(promised, rel=1e-9)
    assert setwise_bound_gap(scores, beta).gap.item() == pytest.approx(
        promised["mult_dpo"] - promised["pl_dpo"], abs=1e-9
    )


def test_violating_negatives_have_the_betas_the_page_promises():
    torch.manual_seed(0)
    s = torch.randn(500, 12, dtype=torch.float64) * 5
    scores = CandidateScores(s, levels=torch.tensor([[1] + [0] * 11]).expand(500, -1))
    dynamic = DynamicPO("s_dpo", scale=0.5)
    rest = scores.negatives & ~dynamic.boundary(scores)
    mean = (s * rest).sum(dim=1, keepdim=True) / rest.sum(dim=1, keepdim=True)  # NaN without any
    found = dynamic.betas(scores)[scores.negatives & (s >= s[:, :1]) & (s >= mean)]
    assert len(found) > 500
    assert found.min() >= 1 - 0.5
    assert found.max() <= 1 - 0.5 * math.tanh(1)


def test_the_configuration_is_one():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(yaml.safe_load(block))
    assert config.align.objective == {"mult_dpo": 1.0, "sft": 0.1}


def test_links_within_the_page_lead_to_headings():
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors


def test_the_code_and_the_tests_of_papers_are_there():
    page = (ROOT / "docs" / "papers.md").read_text()
    places = re.findall(r"`((?:src|tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(places) > 20
    for path, name in places:
        text = (ROOT / path).read_text()
        found = re.search(rf"^(?:def|class) {name}\b|^{name}\b", text, re.MULTILINE)
        assert not name or found, f"{path} has no {name}"
