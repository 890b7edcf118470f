"""Auxiliary losses, worked by hand."""

import math

import pytest
import torch

from palate.policies.sequence.auxiliary import category_losses, contrast, masked_places


def test_contrast_is_a_softmax_of_cosines():
    states = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    others = torch.tensor([[2.0, 0.0], [0.0, 9.0]])
    found = contrast(states, others, torch.tensor([0, 0]), temperature=0.5)
    # cosines 1 and 0 for the first, 0 and 1 for the second
    assert found[0].item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)
    assert found[1].item() == pytest.approx(math.log(1 + math.exp(2)), abs=1e-6)


def test_categories_of_an_item_count_alike():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 1.0, 1.0]]))
    categories = torch.tensor([[0, 1], [2, -1], [-1, -1]])
    expected = [(math.log(2) + math.log(4)) / 2, -math.log(0.8), 0]
    assert category_losses(logits, categories).tolist() == pytest.approx(expected)


def test_three_places_in_ten_are_masked():
    torch.manual_seed(0)
    assert masked_places(torch.Size([200, 50]), torch.device("cpu")).float().mean() == (
        pytest.approx(0.3, abs=0.02)
    )
