"""Experts over streams, against their formulas."""

import torch

from palate.policies.sequence.experts import InteractionExperts, TimeExperts


def test_interaction_experts_by_their_formula():
    torch.manual_seed(0)
    layer = InteractionExperts([0.0, 1.0, 1.0], hidden=4, experts=5)
    layer.weights.data = torch.tensor([0.0, 0.5, 2.0])
    streams = torch.randn(2, 3, 3, 4)
    found = layer(streams)
    joint = torch.cat([streams[:, :, s] for s in range(3)], dim=-1)
    said = layer.experts(joint).view(2, 3, 5, 4)
    for s, weight in enumerate([0.0, 0.5, 2.0]):
        logits = joint @ layer.gates.weight[5 * s : 5 * s + 5].T
        gate = (logits + layer.gates.bias[5 * s : 5 * s + 5]).softmax(dim=-1)
        mixed = sum(gate[..., k, None] * said[..., k, :] for k in range(5))
        torch.testing.assert_close(found[:, :, s], streams[:, :, s] + weight * mixed)
    assert torch.equal(found[:, :, 0], streams[:, :, 0])


def test_time_experts_by_their_formula():
    torch.manual_seed(0)
    layer = TimeExperts(number=2, hidden=4, experts=3)
    streams, times = torch.randn(2, 5, 2, 4), torch.randn(2, 5, 4)
    gate = layer.gate(times).softmax(dim=-1)
    for s in range(2):
        scale = sum(gate[..., k, None] * layer.scales[k, s] for k in range(3))
        torch.testing.assert_close(layer(streams, times)[:, :, s], streams[:, :, s] * scale)


def test_time_experts_learn_and_are_saved():
    """HM4SR's released code keeps them in a plain list, so they do neither."""
    layer = TimeExperts(number=2, hidden=4, experts=3)
    layer(torch.randn(1, 2, 2, 4), torch.randn(1, 2, 4)).square().sum().backward()
    assert (layer.scales.grad.abs().sum(dim=-1) > 0).all()
    assert "scales" in layer.state_dict()
