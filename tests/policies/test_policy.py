"""What policies share."""

import pytest
import torch

from palate.policies.policy import STRIPS, highest


@pytest.mark.parametrize("columns", [5, 10 * STRIPS * 5 - 1, 10 * STRIPS * 5, 4021])
@pytest.mark.parametrize("levels", [3, 10**6])  # many ties, and next to none
def test_the_highest_are_those_of_topk(columns, levels):
    random = torch.Generator().manual_seed(columns)
    scores = torch.randint(levels, (7, columns), generator=random).float()
    scores[torch.rand(scores.shape, generator=random) < 0.3] = -torch.inf
    values, chosen = highest(scores, 5)
    assert torch.equal(values, scores.topk(5, dim=1).values)
    assert torch.equal(values, scores.gather(1, chosen))
    assert all(len(set(row)) == 5 for row in chosen.tolist())
