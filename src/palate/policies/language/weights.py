"""Weights of language models from elsewhere: in 32 bits or 4, and the files of their adapters."""

import copy
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import get_peft_model_state_dict, prepare_model_for_kbit_training
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, BitsAndBytesConfig

from palate.errors import CheckpointError, ConfigError, DataWarning
from palate.loading import DAMAGE, first_line, is_missing_folder, named
from palate.policies.language.base_models import base_of, last_line, whole_model
from palate.policies.language.from_scratch import SIZES

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""Where peft and the Trainer look for an adapter."""


def pretrained(name: str, tokenizer: str | None = None, quantize: bool = False) -> tuple[Any, Any]:
    """A causal language model and its tokenizer.

    Args:
        name: a folder or a hub name, of a model or of an adapter that peft wrote.
        tokenizer: where the tokenizer is, if elsewhere.
        quantize: hold the model's linear layers in 4 bits.

    Raises:
        CheckpointError: there is no such model or tokenizer, it is of another kind, or not whole.
        ConfigError: 4-bit weights cannot be had.
    """
    if Path(name).is_dir():
        name = str(Path(name).resolve())  # the model remembers where it is from
    try:
        tokens = read_tokenizer(tokenizer or name)
        if quantize:
            return _four_bit(name), tokens
        return whole_model(name, dtype=torch.float32), tokens
    except DAMAGE as error:
        why = "there is no such folder" if is_missing_folder(name) else first_line(error)
        raise CheckpointError(
            f"no causal language model could be loaded from '{name}' ({why}). "
            f"Expected {', '.join(SIZES)}, a folder with config.json and safetensors, or a hub "
            "name."
        ) from error


def read_tokenizer(name: str) -> Any:
    """The tokenizer in a folder or of a hub name; for an adapter without one, its base model's."""
    try:
        return AutoTokenizer.from_pretrained(name)
    except DAMAGE:
        if (base := base_of(name)) == name:
            raise
        return AutoTokenizer.from_pretrained(base)


def check_quantization(device: torch.device) -> None:
    """Whether 4-bit weights can be had on a device.

    Raises:
        ConfigError: it is no CUDA device, or bitsandbytes is not installed.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"policy.quantize needs a CUDA device, and this is {device.type}; leave it out, or run "
            "on a machine with one."
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "policy.quantize needs bitsandbytes; leave it out, or pip install 'palate[quant]'."
        )


def check_quantizable(base: str, has_adapter: bool) -> None:
    """Whether 4-bit weights make sense.

    Raises:
        ConfigError: nothing would train, or the weights are random.
    """
    if not has_adapter:
        raise ConfigError("policy.quantize: 4-bit weights cannot train; set policy.adapter too.")
    if base in SIZES:
        raise ConfigError(
            f"policy.quantize: '{base}' is made from scratch and has nothing to keep; leave it "
            "out, or set policy.base to a pretrained model."
        )


def write_adapter(
    model: Any, name: str, folder: Path, state_dict: dict[str, Tensor] | None = None
) -> None:
    """Write one adapter in peft's form.

    Args:
        model: a `PeftModel` that has the adapter.
        name: which one.
        folder: receives its weights and its configuration.
        state_dict: of the whole model, where only the caller can gather it.
    """
    weights = get_peft_model_state_dict(model, state_dict, name, save_embedding_layers=False)
    weights = {key: tensor.contiguous() for key, tensor in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = copy.copy(model.peft_config[name])
    config.inference_mode = True
    config.base_model_name_or_path = model.get_base_model().name_or_path
    config.save_pretrained(str(folder))


def read_adapter(model: Any, name: str, folder: Path) -> None:
    """Fill an adapter of a model with what `write_adapter` wrote.

    Raises:
        CheckpointError: it is missing, cut, or of another shape or model.
    """
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{folder} holds no {ADAPTER_WEIGHTS}; train or copy it again.")
    try:
        found = model.load_adapter(str(folder), name, torch_device="cpu")
    except DAMAGE as error:
        raise CheckpointError(
            f"{folder} does not fit its base model ({last_line(error)}). Train or copy both again."
        ) from error
    if found.missing_keys:
        raise CheckpointError(
            f"{folder} does not fit its base model: it lacks {named(found.missing_keys)}. Train or "
            "copy both again."
        )
    if found.unexpected_keys:
        warnings.warn(
            f"{folder}: its base model has no place for {len(found.unexpected_keys):,} of its "
            f"tensors ({named(sorted(found.unexpected_keys))}); they are left out.",
            DataWarning,
            stacklevel=2,
        )


def _four_bit(name: str) -> Any:
    """A model with 4-bit linear layers that adapters can train on (QLoRA, arXiv 2305.14314).

    NormalFloat weights with quantised constants, products in bf16 where the device has it, all
    else in fp32. In training, activations are computed again in the backward pass.
    """
    device = PartialState().device or torch.device("cpu")
    check_quantization(device)
    product = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=product,
    )
    model = whole_model(name, dtype=torch.float32, quantization_config=how, device_map={"": device})
    again = {"use_reentrant": False}
    return prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs=again)
