"""A sample stands for the catalogue: without bias, and the same sample for the same name."""

import numpy as np
import pytest
import torch

from palate.policies.sequence.sampled_softmax import Proposals, sampled_cross_entropy

COUNTS = np.array([0, 9, 1, 0, 4, 30, 2, 2])


@pytest.mark.parametrize("counts", [None, COUNTS])
def test_the_partition_function_is_estimated_without_bias(counts):
    torch.manual_seed(0)
    states, table = torch.randn(3, 4), torch.randn(8, 4)
    targets = torch.tensor([5, 0, 3])
    logits = states @ table.T
    proposals = Proposals(8, 6, 1, counts)
    found = []
    for _ in range(4000):
        drawn, log_q = proposals()
        losses = sampled_cross_entropy(
            states, table[targets], table[drawn], log_q, targets[:, None] == drawn
        )
        found.append((losses + logits[torch.arange(3), targets]).exp())
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 4000**0.5
    assert ((mean - logits.exp().sum(dim=1)).abs() < 4 * error).all()


def test_popular_items_are_drawn_in_proportion():
    proposals = Proposals(8, 20_000, 1, COUNTS)
    drawn, log_q = proposals()
    share = torch.tensor((COUNTS + 1) / (COUNTS + 1).sum(), dtype=torch.float32)
    torch.testing.assert_close(log_q.exp(), share[drawn])
    torch.testing.assert_close(drawn.bincount() / 20_000, share, atol=0.01, rtol=0)


def test_draws_are_named_by_seed_and_number():
    one, same, other = Proposals(100, 9, 1), Proposals(100, 9, 1), Proposals(100, 9, 2)
    first = one()[0]
    assert torch.equal(first, same()[0])
    assert not torch.equal(first, other()[0])
    second = one()[0]
    assert not torch.equal(first, second)
    goes_on = Proposals(100, 9, 1)
    one.load_state_dict(same.state_dict())
    goes_on.load_state_dict(same.state_dict())
    assert torch.equal(goes_on()[0], second)


def test_a_draw_that_hits_the_target_is_left_out():
    states, target = torch.ones(1, 2), torch.ones(1, 2)
    vectors, log_q = torch.ones(3, 2), torch.full((3,), -1.0)
    hit = torch.tensor([[True, True, True]])
    assert sampled_cross_entropy(states, target, vectors, log_q, hit).item() == 0
    hit[0, 1] = False
    # z = 2 everywhere: log(e^2 + e^2 / (3 e^-1)) - 2
    expected = np.log1p(np.e / 3)
    found = sampled_cross_entropy(states, target, vectors, log_q, hit).item()
    assert found == pytest.approx(expected, abs=1e-6)
