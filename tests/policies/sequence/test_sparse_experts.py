"""Experts in the feed-forward layer: what a loop over tokens gives, and how they are loaded."""

import math

import pytest
import torch
import torch.nn.functional as F

from palate.policies.sequence.encoder import CausalEncoder, FeedForward
from palate.policies.sequence.sparse_experts import (
    SparseFeedForward,
    balance_loss,
    load_counts,
    parameter_counts,
    router_z_loss,
)


def token_by_token(layer, state, real):
    """The definition: each token through each of its experts."""
    rows = []
    for token, is_real in zip(state.flatten(0, 1), real.flatten(), strict=True):
        answer = torch.zeros_like(token)
        if is_real:
            best, chosen = layer.router(token).topk(layer.per_item)
            for gate, expert in zip(best.softmax(dim=0), chosen, strict=True):
                between = F.gelu(token @ layer.inner[expert] + layer.inner_bias[expert])
                answer = answer + gate * (between @ layer.outer[expert] + layer.outer_bias[expert])
        rows.append(answer)
    return torch.stack(rows).view_as(state)


@pytest.mark.parametrize(("experts", "per_item"), [(8, 2), (4, 1), (3, 3)])
@pytest.mark.parametrize("is_crowded", [False, True])
def test_it_equals_a_loop_over_tokens(experts, per_item, is_crowded):
    torch.manual_seed(1)
    layer = SparseFeedForward(6, 10, 0.0, experts, per_item)
    for weights in layer.parameters():
        torch.nn.init.normal_(weights)
    state = torch.randn(4, 7, 6, requires_grad=True)
    if is_crowded:  # every token wants the same experts first, and none is dropped
        state = (state.detach().abs() + 0.1).requires_grad_()
        layer.router.weight.data = torch.arange(experts, 0.0, -1)[:, None].expand(-1, 6).clone()
    real = torch.rand(4, 7) < 0.8
    found, logits = layer(state, real)
    expected = token_by_token(layer, state, real)
    assert logits.shape == (int(real.sum()), experts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(found)
    of = [state, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad((weights * found).sum(), of, materialize_grads=True),
        torch.autograd.grad((weights * expected).sum(), of, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_one_expert_is_a_plain_layer():
    torch.manual_seed(2)
    plain, sparse = FeedForward(6, 10, 0.0), SparseFeedForward(6, 10, 0.0, 1, 1)
    sparse.inner.data[0], sparse.inner_bias.data[0] = plain.inner.weight.T, plain.inner.bias
    sparse.outer.data[0], sparse.outer_bias.data[0] = plain.outer.weight.T, plain.outer.bias
    state, real = torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(sparse(state, real)[0], plain(state)[0])


def test_an_even_load_costs_one_and_a_single_expert_their_number():
    even = torch.eye(4) * 50
    assert balance_loss(even, 1).item() == pytest.approx(1, abs=1e-5)
    alone = torch.eye(4)[torch.zeros(5, dtype=torch.long)] * 50
    assert balance_loss(alone, 1).item() == pytest.approx(4, abs=1e-5)
    assert load_counts(alone, 1).tolist() == [5, 0, 0, 0]
    assert load_counts(torch.tensor([[3.0, 2, 1], [3, 1, 2]]), 2).tolist() == [2, 1, 1]


def test_the_balance_loss_moves_the_router_off_a_crowded_expert():
    logits = torch.tensor([[2.0, 0, 0], [1, 0, 0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(balance_loss(logits, 1), logits)
    assert (gradient[:, 0] > 0).all()
    assert (gradient[:, 1:] < 0).all()


def test_the_z_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    expected = (math.log(2) ** 2 + math.log(4) ** 2) / 2
    assert router_z_loss(logits).item() == pytest.approx(expected)


def test_parameters_in_all_and_in_use():
    dense = CausalEncoder(8, 2, 2, 16, 0.0, 5)
    assert parameter_counts(dense) == (sum(p.numel() for p in dense.parameters()),) * 2
    sparse = CausalEncoder(8, 2, 2, 16, 0.0, 5, experts=4, experts_per_item=1)
    expert = 8 * 16 + 16 + 16 * 8 + 8
    total, active = parameter_counts(sparse)
    assert total - active == 2 * 3 * expert
    assert active == parameter_counts(dense)[0] + 2 * 8 * 4  # the routers


def test_what_is_not_real_changes_nothing():
    torch.manual_seed(3)
    encoder = CausalEncoder(8, 2, 2, 16, 0.0, 5, experts=4).eval()
    vectors = torch.randn(2, 5, 8)
    real = torch.tensor([[True, True, True, False, False], [True] * 5])
    places = real.nonzero(as_tuple=True)
    state, routed = encoder(vectors, places, real)
    vectors[0, 3:] = 7
    other, again = encoder(vectors, places, real)
    torch.testing.assert_close(state, other)
    assert [logits.shape for logits in routed] == [(8, 4), (8, 4)]
    torch.testing.assert_close(routed[1], again[1])
