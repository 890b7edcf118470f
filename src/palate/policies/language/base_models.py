"""Language models from elsewhere, whole: of a causal kind, every tensor from their files.

transformers loads a model of another kind, or one without a language head, just as gladly and fills
what is missing with random numbers; scores would then be noise, another at each load.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftConfig, PeftModelForCausalLM
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.utils.peft_utils import find_adapter_config_file

from palate.errors import CheckpointError, ConfigError, DataWarning
from palate.loading import DAMAGE, Loaded, loaded, named

EXPECTED = "Expected a causal language model, which continues a text: set policy.base to one."
OTHER_HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "RewardModel",
)
"""Ends of the names of models whose head says something of a text instead of continuing it."""
WITHOUT_ADAPTER = {"subfolder": "no-adapter-here"}
"""Where transformers is to look for an adapter when the model below one is wanted alone."""


def base_of(name: str) -> str:
    """Where the model itself is: of an adapter's folder or hub name the base it was trained on.

    Raises:
        DAMAGE: the adapter's configuration cannot be read.
    """
    if find_adapter_config_file(name) is None or (Path(name) / "config.json").is_file():
        return name
    base = PeftConfig.from_pretrained(name).base_model_name_or_path
    if not base:
        raise CheckpointError(
            f"'{name}' holds an adapter that does not say of which model. Put the model's folder "
            "or hub name into base_model_name_or_path of its adapter_config.json."
        )
    return base


def whole_model(name: str, **options: Any) -> Any:
    """A causal language model, with what an adapter at the same place learnt merged into it.

    Args:
        name: a folder or a hub name, of a model or of an adapter that peft wrote.
        options: of `from_pretrained`.

    Raises:
        CheckpointError: it is of another kind, or its files are not whole.
        ConfigError: an adapter cannot be merged.
        DAMAGE: as `from_pretrained` raises.
    """
    if find_adapter_config_file(name) is None:
        return _checked(name, options)
    base = base_of(name)
    if "quantization_config" in options:
        raise ConfigError(
            f"policy.quantize: '{name}' is an adapter over '{base}', and merging it into 4-bit "
            "weights would round it. Merge it into the model, save that, and give its folder; or "
            "leave quantize out."
        )
    return _merged(_checked(base, {**options, "adapter_kwargs": WITHOUT_ADAPTER}), name, base)


def check_kind(config: Any, name: str) -> None:
    """Refuse a model that continues no text.

    Args:
        config: its configuration.
        name: what errors call it.

    Raises:
        CheckpointError: it is an encoder-decoder, a classifier or the like.
    """
    architecture = _architecture(config)
    if getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(f"'{name}' is an encoder-decoder ({architecture}). {EXPECTED}")
    if architecture.endswith(OTHER_HEADS):
        raise CheckpointError(
            f"'{name}' is a {architecture}, which has another head than a language model's. "
            f"{EXPECTED}"
        )


def check_whole(found: Loaded, name: str) -> None:
    """Refuse a language model whose files lack something; warn where they hold too much.

    Raises:
        CheckpointError: a tensor is missing, or of another shape.
    """
    model = found.model
    kind, architecture = type(model).__name__, _architecture(model.config)
    if head := _head_of(model) & set(found.missing):
        raise CheckpointError(
            f"'{name}' has no language head: its files lack {named(sorted(head))} (they are those "
            f"of a {architecture}), which transformers would fill at random. {EXPECTED}"
        )
    if found.fault is not None:
        raise CheckpointError(
            f"'{name}' is no whole {kind}: its files {found.fault}, which transformers would fill "
            "at random. Copy or save it again with all its files, or fix its config.json."
        )
    if architecture in _models_without_head():
        warnings.warn(
            f"'{name}' is a {architecture}, a model without a language head; its input embeddings, "
            "to which its head is tied, serve as one. Where it was trained to embed texts, its "
            "scores mean little.",
            DataWarning,
            stacklevel=2,
        )
    if found.extra:
        warnings.warn(
            f"'{name}': {kind} has no place for {len(found.extra):,} of the tensors in its files "
            f"({named(found.extra)}); they are left out.",
            DataWarning,
            stacklevel=2,
        )


def _checked(name: str, options: dict[str, Any]) -> Any:
    config = AutoConfig.from_pretrained(name)
    check_kind(config, name)
    found = loaded(_reader_for(config), name, **options)
    check_whole(found, name)
    if getattr(found.model.config, "rescale_every", 0):
        # RWKV divides weights in place for evaluation, for 16 bits' sake: saved then, they are lost
        found.model.config.rescale_every = 0
    return found.model


def _reader_for(config: Any) -> Any:
    """What reads a model: transformers' choice; for the language part of a larger model, saved by
    itself, which that choice does not know (Mllama's), the class that its files name."""
    named_class = getattr(transformers, _architecture(config), None)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or named_class is None:
        return AutoModelForCausalLM.from_pretrained
    is_language = named_class.__name__.endswith("ForCausalLM")
    return (named_class if is_language else AutoModelForCausalLM).from_pretrained


def _merged(model: Any, name: str, base: str) -> Any:
    """A model with an adapter from elsewhere added to its weights."""
    config = PeftConfig.from_pretrained(name)
    task = getattr(config.task_type, "value", config.task_type)
    if task not in (None, "CAUSAL_LM"):
        raise CheckpointError(
            f"'{name}' is an adapter for another task ({task}). Expected one of a causal language "
            "model (CAUSAL_LM)."
        )
    if config.is_prompt_learning:
        raise ConfigError(
            f"policy.base: '{name}' holds learnt prompts ({config.peft_type}), which cannot be "
            "merged into weights. Expected an adapter such as LoRA, or a whole model."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            adapted: Any = PeftModelForCausalLM(model, config)
        found = adapted.load_adapter(name, "default", torch_device="cpu")
    except DAMAGE as error:
        raise CheckpointError(
            f"the adapter in '{name}' does not fit its base model '{base}' "
            f"({last_line(error)}). Copy both again."
        ) from error
    if found.missing_keys:
        raise CheckpointError(
            f"the adapter in '{name}' is not whole: its files lack {named(found.missing_keys)}. "
            "Copy or train it again."
        )
    if found.unexpected_keys:
        warnings.warn(
            f"'{name}': its base model '{base}' has no place for {len(found.unexpected_keys):,} of "
            f"the tensors in the adapter ({named(sorted(found.unexpected_keys))}); they are left "
            "out.",
            DataWarning,
            stacklevel=2,
        )
    return adapted.merge_and_unload()


def last_line(error: BaseException) -> str:
    """What an error says last: torch lists there what does not fit."""
    return str(error).strip().splitlines()[-1].strip().rstrip(".") if str(error).strip() else ""


def _architecture(config: Any) -> str:
    """The class that a configuration says its files were saved from."""
    named_ones = getattr(config, "architectures", None)
    return str(named_ones[0]) if named_ones else type(config).__name__.removesuffix("Config")


def _head_of(model: nn.Module) -> set[str]:
    """Names of the weights of a model's language head."""
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if not isinstance(head, nn.Module):
        return set()
    weights = {id(one) for one in head.parameters()}
    return {name for name, one in model.named_parameters() if id(one) in weights}


def _models_without_head() -> set[str]:
    """Classes that transformers loads where no head is asked for."""
    names = MODEL_MAPPING_NAMES.values()
    return {one for name in names for one in ([name] if isinstance(name, str) else name)}
