"""Scores of one context, written as lists."""

import torch

from palate.objectives import CandidateScores


def one_context(policy, levels, **more):
    """Scores in float64; `more` are further fields, lists of K numbers or plain options."""
    tensors = {
        name: torch.tensor([given], dtype=torch.float64) if isinstance(given, list) else given
        for name, given in more.items()
    }
    policy = torch.tensor([policy], dtype=torch.float64, requires_grad=True)
    return CandidateScores(policy, levels=torch.tensor([levels]), **tensors)


def from_weights(values, levels, **more):
    """Scores whose exp(h) are these weights."""
    logs = torch.tensor(values, dtype=torch.float64).log()
    return one_context(logs.tolist(), levels, **more)


def gradient(loss, scores):
    """∂ Σ loss / ∂ policy of one context, as a list."""
    (found,) = torch.autograd.grad(loss.sum(), scores.policy)
    return found[0].tolist()
