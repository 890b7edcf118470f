"""Low-rank adapters (LoRA): what trains on a language model whose own weights stay as they are.

As the base weights never change, the model before a stage is the model without that stage's
adapter: a reference that costs no second set of weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModelForCausalLM, TaskType
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from palate.errors import ConfigError, did_you_mean
from palate.policies.language.weights import pretrained, read_adapter, write_adapter

BASE, ADAPTERS = "base", "adapters"
"""Subfolders of a saved policy whose adapters stand apart from their base weights."""


@dataclass(frozen=True)
class Adapter:
    """Shape of the low-rank updates of a language model's linear layers (arXiv 2106.09685)."""

    rank: int = 16
    """Rank of an update; trained parameters grow with it."""
    alpha: int = 32
    """An update is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs left out while it imitates; alignment leaves none out."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the layers to update, such as [q_proj, v_proj]; all-linear takes every linear layer
    but the head."""
    after_sft: Literal["merge", "keep"] = "merge"
    """What becomes of a finished adapter when the next one starts: merged into the base weights,
    or kept beside the new one, frozen. 4-bit weights always keep, as merging would round."""


class AdaptedModel(PeftModelForCausalLM):
    """A causal language model with adapters, all of them at work and at most one in training.

    The Trainer saves and restores one adapter rightly and several wrongly (it would switch all but
    the first off). So it is shown the one in training alone, and its checkpoints hold just that;
    the frozen rest comes from the folder the stage started from.
    """

    trainable: str | None = None
    """Name of the adapter in training."""

    @property
    def active_adapters(self) -> list[str]:
        """The adapter in training; all adapters where none is."""
        return list(self.peft_config) if self.trainable is None else [self.trainable]

    def save_pretrained(self, save_directory: str, *arguments: Any, **options: Any) -> None:
        """Write the adapter in training where the Trainer looks for a single one."""
        if self.trainable is None:
            super().save_pretrained(save_directory, *arguments, **options)
        elif options.get("is_main_process", True):
            weights = options.get("state_dict")
            write_adapter(self, self.trainable, Path(save_directory), weights)


def add_adapter(model: Any, adapter: Adapter, name: str, seed: int) -> AdaptedModel:
    """The model with a new adapter, which alone trains; as it is now, it changes no score.

    Args:
        model: a causal language model, or one with adapters, which are frozen.
        adapter: its shape.
        name: its name, of which the model has none yet.
        seed: names its initial weights.

    Raises:
        ConfigError: a target names no linear layer of the model, or one that cannot be updated.
    """
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, AdaptedModel):
            freeze(model)
            model.add_adapter(name, config)
        else:
            _check_targets(model, adapter.targets)
            model = AdaptedModel(model, config, adapter_name=name)
    _put_all_to_work(model)
    model.set_requires_grad(name)
    model.trainable = name
    return model


def freeze(model: AdaptedModel) -> None:
    """Every adapter stays at work, without dropout, and none trains."""
    _put_all_to_work(model)
    model.trainable = None
    for layer in _layers(model).values():
        for name in layer.lora_dropout:
            layer.lora_dropout[name] = nn.Identity()


def merge(model: AdaptedModel) -> Any:
    """The causal language model itself, with the adapters added to its weights."""
    freeze(model)
    tuner: Any = model.base_model
    return tuner.merge_and_unload()


@contextmanager
def without_training_adapter(model: AdaptedModel) -> Iterator[None]:
    """The model as it was before the adapter in training, in evaluation mode.

    Afterwards everything is as it was before: which adapters are at work, which parameters take
    gradients, which modules train. What was computed before can still be differentiated.
    """
    layers = list(_layers(model).values())
    at_work = [list(layer.active_adapters) for layer in layers]
    gradients = [(weights, weights.requires_grad) for weights in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for layer, names in zip(layers, at_work, strict=True):
            kept = [name for name in names if name != model.trainable]
            layer.set_adapter(kept, inference_mode=True)
        yield
    finally:
        for layer, names in zip(layers, at_work, strict=True):
            layer.set_adapter(names)
        for weights, takes_gradient in gradients:
            weights.requires_grad_(takes_gradient)
        for module, training in modes:
            module.training = training


@torch.no_grad()
def plain_weights(model: AdaptedModel, merged: bool) -> dict[str, Tensor]:
    """The base model's weights under its own names; the model stays as it is.

    Args:
        model: over weights that are not quantised.
        merged: with the adapters added (to copies, which are on the CPU), or without them.
    """
    base = model.get_base_model()
    layers = {f"{name}.": layer for name, layer in _layers(base).items()}
    weights = {}
    for key, tensor in base.state_dict().items():
        layer_name, inside, rest = key.partition("base_layer.")
        if inside and layer_name in layers:
            weights[layer_name + rest] = tensor
        elif not key.startswith(tuple(layers)):
            weights[key] = tensor
    if merged:
        for name, layer in layers.items():
            total = layer.get_base_layer().weight
            for adapter in layer.lora_A:
                total = total + layer.get_delta_weight(adapter)
            weights[f"{name}weight"] = total.cpu()
    return weights


def save_model(model: Any, folder: Path, apart: bool, quantized: bool) -> dict[str, Any]:
    """Write a model; returns what `load_model` must know of it. The model stays as it is.

    Args:
        model: a causal language model, with adapters or without.
        folder: receives one whole model, the adapters added to its weights, unless
        apart: keeps the base weights in `base/` and the adapters in `adapters/`, or
        quantized: keeps the adapters only, and the name of their base.
    """
    base, place = causal_lm(model), "."
    names = list(model.peft_config) if isinstance(model, AdaptedModel) else []
    if quantized:
        place = base.name_or_path
    elif apart and names:
        place = BASE
        base.save_pretrained(folder / BASE, state_dict=plain_weights(model, merged=False))
    else:
        merged = plain_weights(model, merged=True) if names else None
        base.save_pretrained(folder, state_dict=merged)
        names = []
    for name in names:
        write_adapter(model, name, folder / ADAPTERS / name)
    return {"base": place, "adapters": names, "quantized": quantized}


def load_model(
    folder: Path, base: str, adapter: Adapter, names: list[str], quantized: bool
) -> tuple[Any, Any]:
    """A model that `save_model` wrote, its adapters frozen, and the tokenizer beside it.

    Raises:
        CheckpointError: weights are missing or do not fit each other.
        ConfigError: 4-bit weights cannot be had.
    """
    place = base if quantized else str(folder / base)
    model, tokenizer = pretrained(place, str(folder), quantized)
    for name in names:
        model = add_adapter(model, adapter, name, seed=0)
        read_adapter(model, name, folder / ADAPTERS / name)
        freeze(model)
    return model, tokenizer


def causal_lm(model: Any) -> Any:
    """The causal language model itself, without what carries its adapters."""
    return model.get_base_model() if isinstance(model, AdaptedModel) else model


def _put_all_to_work(model: AdaptedModel) -> None:
    """All adapters at work, none taking gradients."""
    names = list(model.peft_config)
    model.set_adapter(names[-1], inference_mode=True)  # peft's own record holds a single name
    tuner: Any = model.base_model
    tuner.set_adapter(names, inference_mode=True)


def _layers(model: nn.Module) -> dict[str, Any]:
    """The layers that carry adapters."""
    named = model.named_modules()
    return {name: module for name, module in named if isinstance(module, BaseTunerLayer)}


def _check_targets(model: Any, targets: str | list[str]) -> None:
    """Every target is a linear layer, and none shares its weights with the input embeddings."""
    if targets == "all-linear":
        return
    linear = [n for n, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    known = {name.rpartition(".")[2] for name in linear}
    for target in targets:
        found = [name for name in linear if f".{name}".endswith(f".{target}")]
        if not found:
            raise ConfigError(
                f"policy.adapter.targets: '{target}' is no linear layer of this model."
                f"{did_you_mean(target, known)}"
            )
        embeddings = model.get_input_embeddings().weight
        if any(model.get_submodule(name).weight is embeddings for name in found):
            raise ConfigError(
                f"policy.adapter.targets: '{target}' shares its weights with the input embeddings, "
                "so it cannot be updated alone; leave it out."
            )
