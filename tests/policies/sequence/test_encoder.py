"""The backbone answers alike, however many places are asked."""

import pytest
import torch

from palate.policies.sequence.encoder import CausalEncoder


@pytest.mark.parametrize("experts", [0, 4])
@pytest.mark.parametrize("layers", [1, 2])
def test_few_places_get_the_answers_and_gradients_of_all(layers, experts):
    torch.manual_seed(5)
    encoder = CausalEncoder(8, layers, 2, 16, 0.0, 5, experts=experts)
    vectors = torch.randn(3, 5, 8, requires_grad=True)
    real = torch.arange(5) < torch.tensor([[5], [2], [4]])
    every = real.nonzero(as_tuple=True)
    some = [9, 4, 7]
    few = (every[0][some], every[1][some])
    answers, gradients = [], []
    for places in (every, few):
        state, _ = encoder(vectors, places, real)
        answers.append(state[some] if places is every else state)
        parameters = [vectors, *encoder.parameters()]
        weighted = (answers[-1] * torch.arange(24.0).view(3, 8)).sum()
        gradients.append(torch.autograd.grad(weighted, parameters, allow_unused=True))
    torch.testing.assert_close(*answers)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
