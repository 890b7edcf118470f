"""References: the SFT model and no other, the same numbers by either way, and at what price."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions
from palate.errors import ConfigError
from palate.negatives import mixture
from palate.objectives import CandidateScores, s_dpo
from palate.policies import LanguagePolicy, load_policy
from palate.policies.language.adapters import Adapter, without_training_adapter
from palate.policies.reference import (
    REFERENCES,
    AdapterOff,
    Frozen,
    NoReference,
    check_reference,
)
from palate.training.align import align
from palate.training.sft import imitate

SHAPE = Adapter(rank=4, alpha=8, dropout=0.1)
QUICK = {"log_every": 1, "warmup": 0.0, "schedule": "constant", "metric": "loss", "patience": 99}
AFTER_SFT = pytest.mark.parametrize("after_sft", ["merge", "keep"])
IDS = np.arange(16).reshape(4, 4)
LEVELS = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, -1], [1, 0, 0, 0]])


@pytest.fixture(scope="session")
def sft(small_data, tmp_path_factory):
    """Folders of policies after a real SFT by adapter, and the weights before it."""
    folders = {}
    for after_sft in ("merge", "keep"):
        folder = tmp_path_factory.mktemp(after_sft)
        adapter = replace(SHAPE, after_sft=after_sft)
        policy = LanguagePolicy.create("tiny", small_data.items, "history", 6, 1, adapter)
        policy.save(folder / "before")
        policy.start_stage("sft")
        options = TrainingOptions(max_steps=8, batch_size=16, learning_rate=1e-2, **QUICK)
        worst = iter([2.0, 1.0, 0.5])
        imitate(
            "sft",
            policy,
            small_data,
            lambda worst=worst: {"loss": next(worst)},
            options,
            folder=folder,
            seed=0,
            trackers=(),
        )
        policy.save(folder / "sft")
        folders[after_sft] = folder
    return folders


@pytest.fixture
def started(sft):
    """Loads the policy of an SFT folder and starts its alignment."""

    def start(after_sft):
        policy = load_policy(sft[after_sft] / "sft")
        policy.start_stage("align")
        return policy

    return start


def move(policy, name="lora_B.align"):
    """Move the policy away from its reference without training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter, weights in policy.model.named_parameters():
            if name in parameter:
                weights.add_(torch.randn(weights.shape, generator=generator) * 0.3)


def batch_of(policy, data):
    return {**policy.collate(data.contexts("test")[:4], IDS), "levels": LEVELS}


def step(policy, batch, reference, reference_first=False):
    """Loss of an alignment step and the gradients it leaves."""
    policy.model.zero_grad()
    policy.model.train()
    before = reference.log_probs(batch) if reference_first else None
    scored = policy.log_probs(batch, policy.model).log_probs
    before = before if reference_first else reference.log_probs(batch)
    levels = batch["levels"]
    scores = CandidateScores(policy=scored, reference=before, levels=levels, check=False)
    loss = s_dpo(scores, beta=1.0).mean()
    loss.backward()
    gradients = {
        n: w.grad.clone() for n, w in policy.model.named_parameters() if w.grad is not None
    }
    return float(loss.detach()), gradients


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# The same numbers


@AFTER_SFT
def test_adapter_off_is_frozen_in_log_probs_loss_and_gradient(after_sft, small_data, started):
    policy = started(after_sft)
    for module in policy.model.modules():  # dropout off, as alignment has it
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    frozen = Frozen(policy)
    off = AdapterOff(policy)
    batch = batch_of(policy, small_data)
    close(off.log_probs(batch), frozen.log_probs(batch))
    move(policy)
    close(off.log_probs(batch), frozen.log_probs(batch))
    apart = policy.score(small_data.contexts("test")[:4], IDS).log_probs - off.log_probs(batch)
    assert apart.abs().max() > 0.1
    expected, gradients = step(policy, batch, frozen)
    assert {name.split(".")[-2] for name in gradients} == {"align"}
    for reference_first in (False, True):
        loss, found = step(policy, batch, off, reference_first)
        assert loss == pytest.approx(expected, abs=1e-5)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)


@AFTER_SFT
def test_the_reference_is_the_sft_model_and_not_the_one_before_it(
    after_sft, small_data, sft, started
):
    contexts = small_data.contexts("test")[:4]
    policy = started(after_sft)
    move(policy)
    found = AdapterOff(policy).log_probs(batch_of(policy, small_data))
    close(found, load_policy(sft[after_sft] / "sft").score(contexts, IDS).log_probs)
    before = load_policy(sft[after_sft] / "before").score(contexts, IDS).log_probs
    assert (found - before).abs().min() > 0.1


@AFTER_SFT
def test_training_is_the_same_with_either(after_sft, small_data, started, tmp_path):
    found, logs = [], []
    for name in ("frozen", "adapter_off"):
        policy = started(after_sft)
        trained(policy, small_data, REFERENCES[name](policy), tmp_path / name)
        found.append({n: w.detach() for n, w in policy.model.named_parameters()})
        logs.append(logged(tmp_path / name))
    assert logs[0][0]["loss"] == pytest.approx(np.log(5), abs=1e-4)
    assert logs[0][-1]["kl"] > 1e-5
    for one, other in zip(*logs, strict=True):
        for key in ("loss", "kl", "grad_norm", "rewards/margins"):
            assert one[key] == pytest.approx(other[key], abs=1e-4, rel=1e-3)
    for name, weights in found[0].items():
        torch.testing.assert_close(found[1][name], weights, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["frozen", "adapter_off"])
def test_in_bf16_policy_and_reference_start_alike(name, small_data, started, tmp_path):
    """One is computed under accelerate's autocast, so the other must be."""
    policy = started("keep")
    reference = REFERENCES[name](policy, "bf16")
    trained(policy, small_data, reference, tmp_path, max_steps=2, precision="bf16")
    first = logged(tmp_path)[0]
    assert first["kl"] == 0
    assert first["rewards/margins"] == 0
    assert first["loss"] == pytest.approx(np.log(5), abs=1e-6)


def trained(policy, data, reference, folder, **options):
    chosen = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-2, **QUICK, **options}
    align(
        policy,
        data,
        mixture({"uniform": 4}, data),
        chosen_objective(AlignConfig(objective="s_dpo")),
        beta=1.0,
        reference=reference,
        validation=lambda: {"loss": 1.0},
        options=TrainingOptions(**chosen),
        folder=folder,
        seed=5,
        trackers=(),
    )


def logged(folder):
    lines = [json.loads(line) for line in (folder / "train.jsonl").open()]
    return [line for line in lines if "kl" in line]


# What it leaves behind


def test_switching_an_adapter_off_leaves_no_trace(small_data, started):
    policy = started("keep")
    move(policy)
    model = policy.model.train()
    model.get_base_model().model.layers[1].eval()  # a mode of its own
    frozen_by_hand = next(w for n, w in model.named_parameters() if "lora_A.align" in n)
    frozen_by_hand.requires_grad_(False)

    def state():
        layers = [m for m in model.modules() if hasattr(m, "lora_A")]
        return (
            [(name, module.training) for name, module in model.named_modules()],
            [(name, weights.requires_grad) for name, weights in model.named_parameters()],
            [list(layer.active_adapters) for layer in layers],
            [layer.disable_adapters for layer in layers],
            (model.active_adapters, model.active_adapter, model.trainable),
        )

    before = state()
    assert {tuple(names) for names in before[2]} == {("sft", "align")}
    AdapterOff(policy).log_probs(batch_of(policy, small_data))
    assert state() == before
    with pytest.raises(RuntimeError), without_training_adapter(model):
        model(torch.zeros(1, 1))  # no token ids: an error while it is off
    assert state() == before


def test_a_reference_takes_no_gradient_and_no_dropout(small_data, started):
    policy = started("keep")
    move(policy)
    base = policy.model.get_base_model()
    base.enable_input_require_grads()  # as recomputing activations has it
    for layer in base.model.layers:
        layer.self_attn.attention_dropout = 0.5
    policy.model.train()
    batch = batch_of(policy, small_data)
    for reference in (Frozen(policy), AdapterOff(policy)):
        first, second = reference.log_probs(batch), reference.log_probs(batch)
        assert torch.equal(first, second)
        assert not first.requires_grad
    once, twice = (policy.log_probs(batch).log_probs for _ in range(2))
    assert not torch.equal(once, twice)  # the policy itself does drop


def test_frozen_stays_as_the_policy_was(small_data, started):
    policy = started("merge")
    batch, frozen = batch_of(policy, small_data), Frozen(policy)
    before = frozen.log_probs(batch)
    move(policy)
    assert torch.equal(frozen.log_probs(batch), before)


# At what price


def held_bytes(*modules):
    """Bytes of the distinct tensors that modules hold."""
    storages = {}
    for module in modules:
        for tensor in [*module.parameters(), *module.buffers()]:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


@AFTER_SFT
def test_adapter_off_holds_no_second_base_model(after_sft, started):
    policy = started(after_sft)
    alone = held_bytes(policy.model)
    base = held_bytes(*(w for n, w in named_base(policy)))
    assert held_bytes(policy.model, *reachable(AdapterOff(policy))) == alone
    assert held_bytes(policy.model, *reachable(Frozen(policy))) == 2 * alone
    assert base > 0.8 * alone


def named_base(policy):
    """Each weight of the base model as a module of its own."""
    for name, weights in policy.model.named_parameters():
        if ".lora_" not in name:
            yield name, nn.ParameterList([weights])


def reachable(reference):
    """Modules that a reference holds, its policy's among them."""
    for value in vars(reference).values():
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(getattr(value, "model", None), nn.Module):
            yield value.model


# What is refused


def test_combinations_without_sense_are_refused(small_data, small_policy):
    check_reference("frozen", has_adapter=False)
    check_reference("adapter_off", has_adapter=True, quantized=True)
    check_reference("none", has_adapter=True, quantized=True)
    with pytest.raises(ConfigError, match="adapter_off needs a policy with an adapter"):
        check_reference("adapter_off", has_adapter=False)
    with pytest.raises(ConfigError, match=r"set policy\.adapter, or use --set align\.reference=fr"):
        AdapterOff(small_policy)
    adapted = LanguagePolicy.create("tiny", small_data.items, "history", 6, 1, SHAPE)
    with pytest.raises(ConfigError, match=r"call policy\.start_stage\('align'\) first"):
        AdapterOff(adapted)
    small_policy.quantized = True
    with pytest.raises(ConfigError, match=r"use --set align\.reference=adapter_off"):
        Frozen(small_policy)


def test_none_is_none(small_data, small_policy, tmp_path):
    assert REFERENCES.keys() == {"frozen", "adapter_off", "cached", "none"}
    batch = batch_of(small_policy, small_data)
    assert NoReference(small_policy).log_probs(batch) is None
    trained(small_policy, small_data, NoReference(small_policy), tmp_path, max_steps=1)
    # the first loss is of the policy's own log-probabilities, not of ratios, which would be 0
    assert abs(logged(tmp_path)[0]["loss"] - np.log(5)) > 0.1
