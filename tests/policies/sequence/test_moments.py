"""A batch read in parts of like length gives what it gives as a whole."""

import pytest
import torch

from palate.policies.sequence import moments as moments_module
from palate.policies.sequence.model import SequenceConfig, SequenceModel
from palate.policies.sequence.moments import Moments

LENGTHS = torch.tensor([3, 6, 1, 2, 6, 4, 2])


def moments(few):
    """Items up to each length; asked after each of them, or after the last of some histories."""
    random = torch.Generator().manual_seed(2)
    shape = (len(LENGTHS), 6)
    rows, columns = (torch.arange(6) < LENGTHS[:, None]).nonzero(as_tuple=True)
    if few:  # a history of which nothing is asked among them
        rows = torch.tensor([4, 0, 5, 1, 2, 6])
        columns = LENGTHS[rows] - 1
    return Moments(
        torch.randint(9, shape, generator=random),
        rows,
        columns,
        torch.randint(30, shape, generator=random),
        torch.rand(shape, generator=random) * 100,
    )


def test_parts_hold_every_place_once_and_no_more_items_than_asked(monkeypatch):
    monkeypatch.setattr(moments_module, "PLACES_OF_A_PART", 14)
    whole = moments(few=False)
    parts = list(whole.parts(whole.parts_worth()))
    assert [part.moments.history.shape for part in parts] == [(3, 2), (3, 6), (1, 6)]
    assert sorted(torch.cat([part.asked for part in parts]).tolist()) == list(range(24))
    for part in parts:
        of = part.histories[part.moments.rows]
        assert torch.equal(of, whole.rows[part.asked])
        for name in ("history", "intervals", "days"):
            read = getattr(part.moments, name)[part.moments.rows, part.moments.columns]
            asked = (whole.rows[part.asked], whole.columns[part.asked])
            assert torch.equal(read, getattr(whole, name)[asked])


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("experts", [0, 4])
def test_in_parts_the_answers_and_gradients_are_those_of_the_whole(few, experts, monkeypatch):
    torch.manual_seed(5)
    config = SequenceConfig(
        n_items=9,
        max_history=6,
        hidden=8,
        inner=12,
        streams=["id", "text"],
        vector_sizes={"text": 5},
        experts=experts,
        time_experts=2,
        placeholder_weight=1.0,
    )
    model = SequenceModel(config).eval()
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    asked = moments(few)
    hidden = torch.rand(asked.history.shape) < 0.3
    found = []
    for places in (12, 10**6):
        monkeypatch.setattr(moments_module, "PLACES_OF_A_PART", places)
        read = model.read(asked, hidden)
        weighted = (read.states * torch.arange(8.0)).sum()
        weighted = weighted + sum(one.square().sum() for one in read.routed)
        gradients = torch.autograd.grad(weighted, list(model.parameters()), allow_unused=True)
        load = [one.sort(dim=0).values for one in read.routed]
        found.append([read.states, *load, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
