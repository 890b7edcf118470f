"""Golden cases as scores, and how their numbers are compared."""

import pytest
import torch

from palate.objectives import CandidateScores

TOLERANCE = {
    torch.float64: {"rel": 1e-9, "abs": 1e-12},
    torch.float32: {"rel": 2e-4, "abs": 1e-6},
}


def with_chosen(values, name, dtype):
    """(B, 1 + N): what is told of the chosen item, then of the rejected ones."""
    chosen = torch.tensor(values[f"{name}_chosen"], dtype=dtype)[:, None]
    return torch.cat([chosen, torch.tensor(values[f"{name}_rejected"], dtype=dtype)], dim=1)


def chosen_and_rejected(case, dtype):
    """Scores of a case with one chosen item per context, in the first column."""
    policy = with_chosen(case, "policy", dtype).requires_grad_()
    reference = None if case["reference_chosen"] is None else with_chosen(case, "reference", dtype)
    levels = torch.zeros(policy.shape, dtype=torch.long)
    levels[:, 0] = 1
    return CandidateScores(policy, reference, levels=levels)


def in_groups(case):
    """Scores of a case of one context in groups, the best of which is 0."""
    policy = torch.tensor([case["logratio"]], dtype=torch.float64, requires_grad=True)
    return CandidateScores(policy, levels=max(case["group"]) - torch.tensor([case["group"]]))


def assert_chosen_and_rejected(objective, case, golden, dtype):
    """Losses and gradients of all contexts of a case."""
    scores = chosen_and_rejected(case, dtype)
    loss = objective(scores, beta=case["beta"])
    (gradient,) = torch.autograd.grad(loss.sum(), scores.policy)
    expected = with_chosen(golden, "grad", dtype).flatten().tolist()
    assert loss.tolist() == pytest.approx(golden["losses"], **TOLERANCE[dtype])
    assert gradient.flatten().tolist() == pytest.approx(expected, **TOLERANCE[dtype])


def assert_in_groups(objective, case, golden, rel=1e-9, absolute=1e-12):
    """Loss and gradient of a case in groups."""
    scores = in_groups(case)
    loss = objective(scores, beta=case["beta"])
    (gradient,) = torch.autograd.grad(loss.sum(), scores.policy)
    assert loss.item() == pytest.approx(golden["value"], rel=rel, abs=absolute)
    assert gradient[0].tolist() == pytest.approx(golden["grad"], rel=rel, abs=absolute)
