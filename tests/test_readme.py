"""What the README says to type works when pasted."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_objective_in_ones_own_trainer():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "CandidateScores" in block]
    scope: dict = {}
    exec(block, scope)
    assert scope["loss"].isfinite()
    assert scope["policy"].grad.abs().sum() > 0


def test_the_objective_of_the_contributing_page_keeps_the_contract():
    import torch

    from palate.objectives import CandidateScores

    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    scope: dict = {"CandidateScores": CandidateScores, "Tensor": torch.Tensor}
    exec(block, scope)
    scores = CandidateScores(
        torch.tensor([[0.0, 0.5, -9.0, 7.0]]), levels=torch.tensor([[1, 0, 0, -1]])
    )
    # margins −0.5 and 9: max(0, 1.5) and max(0, −8), their mean 0.75
    assert float(scope["hinge"](scores)) == 0.75


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"):
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", prose):
            assert (page.parent / target).exists(), f"{page.name} → {target}"
