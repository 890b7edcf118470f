"""Alignment without noise, whatever makes it, and with all gradients."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions
from palate.errors import ConfigError
from palate.negatives import mixture
from palate.policies import LanguagePolicy, ModulePolicy
from palate.policies.language.adapters import Adapter
from palate.policies.reference import REFERENCES
from palate.training.align import align
from palate.training.noise import Silence, silence
from policies.small_modules import MeanOfItems

OPTIONS = {"log_every": 1, "warmup": 0.0, "schedule": "constant", "metric": "loss", "batch_size": 4}


class InCalls(MeanOfItems):
    """Dropout with a number that no attribute holds."""

    def forward(self, history, lengths):
        return F.dropout(super().forward(history, lengths), 0.4, self.training)


class Normalised(MeanOfItems):
    """Batch statistics in training, running ones in evaluation."""

    def __init__(self, n_items):
        super().__init__(n_items)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, history, lengths):
        mean = self.vectors(history).sum(dim=1) / lengths[:, None]
        return self.norm(3 * mean + 1) @ self.vectors.weight.T


class Recurrent(MeanOfItems):
    """Dropout between the layers of a GRU."""

    def __init__(self, n_items):
        super().__init__(n_items)
        self.gru = nn.GRU(8, 8, num_layers=2, dropout=0.4, batch_first=True)

    def forward(self, history, lengths):
        states, _ = self.gru(self.vectors(history))
        return states[torch.arange(len(history)), lengths - 1] @ self.vectors.weight.T


class KeepsItsItems(MeanOfItems):
    """Item vectors are made once in evaluation mode and cut from the graph."""

    def __init__(self, n_items):
        super().__init__(n_items, dropout=0.4)
        self.bias = nn.Parameter(torch.zeros(8))
        self.kept = None

    def forward(self, history, lengths):
        if self.training:
            self.kept = None
            items = self.vectors.weight + self.bias
        else:
            self.kept = (
                (self.vectors.weight + self.bias).detach() if self.kept is None else self.kept
            )
            items = self.kept
        mean = self.vectors(history).sum(dim=1) / lengths[:, None]
        return self.dropout(mean) @ items.T


class AlwaysDrops(MeanOfItems):
    """Dropout that no mode ends."""

    def forward(self, history, lengths):
        return F.dropout(super().forward(history, lengths), 0.4)


class DropsInOneRow(MeanOfItems):
    """The same in one row of a batch alone."""

    def forward(self, history, lengths):
        logits = super().forward(history, lengths)
        return torch.cat([F.dropout(logits[:1], 0.4), logits[1:]])


def aligned(policy, data, folder, reference="frozen", steps=2):
    """Losses of an alignment with three negatives, step by step."""
    align(
        policy,
        data,
        mixture({"uniform": 3}, data),
        chosen_objective(AlignConfig(objective="s_dpo", beta=1.0)),
        1.0,
        REFERENCES[reference](policy),
        lambda: {"loss": 1.0},
        TrainingOptions(**OPTIONS, max_steps=steps),
        folder,
        seed=5,
        trackers=(),
    )
    lines = map(json.loads, (folder / "train.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("made", [InCalls, Normalised, Recurrent, KeepsItsItems])
@pytest.mark.parametrize("reference", ["frozen", "cached"])
def test_the_first_loss_of_a_module_is_its_closed_form(made, reference, small_data, tmp_path):
    torch.manual_seed(0)
    policy = ModulePolicy(made(small_data.items.num_rows), small_data.items, 6)
    before = {name: one.clone() for name, one in policy.model.named_parameters()}
    losses = aligned(policy, small_data, tmp_path, reference)
    assert losses[0] == pytest.approx(math.log(4), abs=1e-5)
    assert all(not torch.equal(one, before[n]) for n, one in policy.model.named_parameters())


@pytest.mark.parametrize("made", [AlwaysDrops, DropsInOneRow])
def test_noise_that_no_mode_ends_is_refused(made, small_data, tmp_path):
    torch.manual_seed(0)
    policy = ModulePolicy(made(small_data.items.num_rows), small_data.items, 6)
    with pytest.raises(ConfigError, match=f"{made.__name__} scores the same batch differently"):
        aligned(policy, small_data, tmp_path)


@pytest.mark.parametrize("reference", ["frozen", "cached", "adapter_off"])
def test_an_adapters_dropout_is_off(reference, small_data, tmp_path):
    policy = LanguagePolicy.create(
        "tiny", small_data.items, "history", 4, 1, Adapter(rank=2, dropout=0.4)
    )
    policy.start_stage("align")
    losses = aligned(policy, small_data, tmp_path, reference)
    assert losses[0] == pytest.approx(math.log(4), abs=1e-5)


def test_layers_that_recompute_go_on_doing_so_without_noise(small_data, small_policy):
    """As 4-bit models are trained: activations are made again in the backward pass."""
    contexts = small_data.contexts("test")[:2]
    batch = small_policy.collate(contexts, [[0, 1], [2, 3]])
    layers = small_policy.model.model.layers
    for layer in layers:
        layer.self_attn.attention_dropout = 0.4  # in calls
    small_policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    passed = []
    layers[0].self_attn.register_forward_pre_hook(lambda *_: passed.append(1))
    gradients = []
    for _ in range(2):
        small_policy.model.train()
        Silence(small_policy).before(batch, small_policy.model)
        small_policy.model.zero_grad()
        passed.clear()
        small_policy.log_probs(batch).log_probs.sum().backward()
        gradients.append(small_policy.model.model.embed_tokens.weight.grad.clone())
    assert len(passed) == 2
    assert torch.equal(*gradients)


def test_a_layers_own_noise_is_off_where_it_recomputes():
    class Layer(nn.Module):
        gradient_checkpointing = True
        attn_pdrop = 0.5

        def __init__(self):
            super().__init__()
            self.layerdrop = 0.5
            self.scale = 0.5

    model = nn.Sequential(Layer(), nn.Dropout(0.5))
    silence(model.train())
    assert model[0].training
    assert not model[1].training
    assert (model[0].layerdrop, model[0].scale, model[1].p) == (0.0, 0.5, 0.5)
