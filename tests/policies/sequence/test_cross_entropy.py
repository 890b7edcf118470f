"""Softmax by slices of the catalogue: the same numbers, in less memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from palate.policies.sequence import cross_entropy as module
from palate.policies.sequence.cross_entropy import cross_entropy, log_probs


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    states = torch.randn(7, 5, requires_grad=True)
    table = torch.randn(43, 5, requires_grad=True)
    return states, table


def gradients(value, tensors):
    weights = torch.linspace(-1, 2, value.numel()).view_as(value)
    return torch.autograd.grad((weights * value).sum(), tensors)


@pytest.mark.parametrize("held", [7, 7 * 6, 7 * 100, 1])
def test_slices_give_the_value_and_gradient_of_the_whole(tensors, held, monkeypatch):
    monkeypatch.setattr(module, "SLICE", held)
    targets = torch.tensor([0, 42, 3, 3, 41, 6, 7])
    whole, sliced = (cross_entropy(*tensors, targets, whole=n) for n in (10**6, 0))
    torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(sliced, tensors), gradients(whole, tensors), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_log_probs_of_some_items_and_none(tensors):
    item_ids = torch.tensor([[0, 42, -1], [5, 5, 5]] * 3 + [[-1, -1, -1]])
    whole, sliced = (log_probs(*tensors, item_ids, whole=n) for n in (10**6, 0))
    torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=1e-5)
    expected = (tensors[0] @ tensors[1].T).log_softmax(dim=1)
    torch.testing.assert_close(
        whole[:6], expected[:6].gather(1, item_ids[:6].clamp(min=0)) * (item_ids[:6] >= 0)
    )
    assert (sliced[6] == 0).all()
    for one, other in zip(gradients(sliced, tensors), gradients(whole, tensors), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_huge_logits_stay_finite(tensors):
    states, table = (tensor.detach() * 1e3 for tensor in tensors)
    targets = torch.arange(7)
    assert cross_entropy(states, table, targets, whole=0).isfinite().all()


def test_half_precision_sums_in_float32(tensors):
    targets = torch.arange(7)
    exact = cross_entropy(*tensors, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, sliced = (cross_entropy(*tensors, targets, whole=n) for n in (10**6, 0))
    assert whole.dtype == sliced.dtype == torch.float32
    torch.testing.assert_close(sliced, exact, atol=0.1, rtol=0.02)
    torch.testing.assert_close(sliced, whole, atol=0.05, rtol=0.01)
    for one, other in zip(gradients(sliced, tensors), gradients(exact, tensors), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)


class Largest(TorchDispatchMode):
    """Remembers the most entries of any tensor that an operation makes."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.entries = max(self.entries, made.numel())
        return made


@pytest.mark.parametrize(("whole", "most"), [(0, 4096 * 4), (10**6, 64 * 4096)])
def test_no_matrix_of_all_logits_is_made(whole, most, monkeypatch):
    monkeypatch.setattr(module, "SLICE", 64 * 128)
    states, table = torch.randn(64, 4, requires_grad=True), torch.randn(4096, 4, requires_grad=True)
    with Largest() as seen:
        cross_entropy(states, table, torch.arange(64), whole).mean().backward()
    assert seen.entries == most
