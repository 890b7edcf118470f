"""Whether a run can start at all: devices, trackers, prompts and base models, known beforehand."""

from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.integrations.integration_utils import get_available_reporting_integrations

from palate.config import RunConfig
from palate.data.prepared import Prepared
from palate.errors import CheckpointError, ConfigError, did_you_mean
from palate.loading import is_missing_folder
from palate.negatives import mixture
from palate.policies import SequencePolicy
from palate.policies.language.from_scratch import SIZES
from palate.policies.language.prompts import CANDIDATES, DIALOGUE, read_templates
from palate.policies.language.weights import check_quantizable, check_quantization
from palate.policies.policy_factory import find_code, named_factory
from palate.policies.reference import check_reference
from palate.training.scored_pools import check_pool, check_pool_size


def check_environment(config: RunConfig, starts_anew: bool = True) -> torch.device:
    """The device to use, after all that can be known before a run to fail in it.

    Args:
        config: what will be run.
        starts_anew: whether the policy is still to be made from its base and prompts.

    Raises:
        ConfigError, CheckpointError: the device, a tracker, the prompts or the base model is not
            to be had, or the prompts cannot be evaluated under a protocol asked for.
    """
    known = ["tensorboard", *get_available_reporting_integrations()]
    for tracker in config.trackers:
        if tracker not in known:
            raise ConfigError(
                f"trackers: '{tracker}' is not installed.{did_you_mean(tracker, set(known))}"
            )
    device = device_of(config.device)
    has_adapter, quantize = config.policy.adapter is not None, config.policy.quantize
    if config.policy.kind == "sequence" and (has_adapter or quantize):
        raise ConfigError(
            "policy.adapter and policy.quantize are for language models; a sequence policy is "
            "small enough to train whole. Leave them out."
        )
    if config.policy.kind == "sequence" and config.policy.chat:
        raise ConfigError(
            "policy.chat is for language models; a sequence policy reads no prompts. Leave it out."
        )
    if quantize:
        check_quantizable(config.policy.base or "tiny", has_adapter)
        check_quantization(device)
    check_reference(config.align.reference, has_adapter, quantize)
    if config.policy.factory is not None:
        if starts_anew:
            named_factory(config.policy.factory, config.policy.options)
        else:
            find_code(config.policy.factory)
    if config.policy.kind == "language":
        if starts_anew:
            _check_language(config)
    elif "generation" in config.evaluation.protocols:
        raise ConfigError(
            "evaluation.protocols: only a language policy can write; leave 'generation' out, or "
            "use --set policy.kind=language."
        )
    elif (
        starts_anew
        and config.policy.base is not None
        and not (Path(config.policy.base) / "palate.json").exists()
    ):
        raise CheckpointError(
            f"policy.base: '{config.policy.base}' is no folder of a saved policy. Give one, such "
            "as runs/sasrec/sft, or use --set policy.base=null for new weights."
        )
    return device


def check_data(config: RunConfig, data: Prepared, starts_anew: bool = True) -> None:
    """Raise a PalateError where policy or negatives and prepared data do not fit."""
    options = config.align
    negatives = mixture(options.negatives, data, options.exclude_history, options.sampler_options)
    if negatives.asks_policy:
        reads = starts_anew and config.policy.kind == "language"
        shows = reads and CANDIDATES in read_templates(config.policy.prompts)[1][0].pieces
        check_pool(options.pool, config.policy.kind, shows, data.lists is not None)
        check_pool_size(options.pool, config.policy.kind, negatives.chooses_among)
    if config.policy.kind != "language":
        if data.has_texts:
            raise ConfigError(
                "policy.kind: this source gives dialogues, which only a language policy can read. "
                "Use --set policy.kind=language --set policy.prompts=dialogue."
            )
        shape = config.policy.sequence
        if (
            config.policy.kind == "sequence"
            and shape.time_experts
            and data.interactions.times is None
        ):
            raise ConfigError(
                f"policy.sequence.time_experts is {shape.time_experts}, but source "
                f"'{config.data.source}' gives no timestamps to choose them by. Give it a column "
                "of times, or leave time_experts out."
            )
        if starts_anew and config.policy.base is not None:
            SequencePolicy.load(Path(config.policy.base)).check_catalogue(data.items)
        return
    if not starts_anew:
        return
    _, templates = read_templates(config.policy.prompts)
    asks_for_text = DIALOGUE in templates[0].pieces
    if asks_for_text and not data.has_texts:
        raise ConfigError(
            f"policy.prompts: '{config.policy.prompts}' has the slot {DIALOGUE}, but source "
            f"'{config.data.source}' gives no dialogues. Use --set policy.prompts=history."
        )
    if data.has_texts and not asks_for_text:
        raise ConfigError(
            f"policy.prompts: source '{config.data.source}' gives dialogues, but "
            f"'{config.policy.prompts}' has no slot {DIALOGUE}. Use --set policy.prompts=dialogue, "
            "or prompt for texts that are whole prompts already."
        )


def device_of(name: str) -> torch.device:
    """The device for a name; "auto" takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ConfigError(
            f"device: '{name}' is not one of auto, cpu, cuda. Among several GPUs choose with "
            "CUDA_VISIBLE_DEVICES."
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: this machine has no CUDA device; use --device cpu.")
    return torch.device(name)


def _check_language(config: RunConfig) -> None:
    _, templates = read_templates(config.policy.prompts)
    together = config.align.moments_together or 1
    if together > 1 and not all(template.grows_at_the_end for template in templates):
        raise ConfigError(
            f"align.moments_together is {together}, but the prompts of '{config.policy.prompts}' "
            "have more behind the history, so that each moment needs a prompt of its own. Use "
            "--set policy.prompts=history, or leave moments_together out."
        )
    if CANDIDATES in templates[0].pieces and "catalogue" in config.evaluation.protocols:
        raise ConfigError(
            f"policy.prompts: '{config.policy.prompts}' lists candidates, so it cannot rank the "
            "whole catalogue. Use --set 'evaluation.protocols=[candidates]', or prompts=history."
        )
    base = config.policy.base
    if config.policy.chat and base in (None, *SIZES):
        raise ConfigError(
            f"policy.chat: '{base or 'tiny'}' is made from scratch and has no chat template. Leave "
            "policy.chat out, or set policy.base to a chat model."
        )
    if base is not None and base not in SIZES:
        if is_missing_folder(base):
            raise CheckpointError(
                f"policy.base: there is no such folder: '{base}'. Expected {', '.join(SIZES)}, a "
                "folder with config.json and safetensors, or a hub name."
            )
        try:
            AutoConfig.from_pretrained(base)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"policy.base: '{base}' is neither {' nor '.join(SIZES)}, nor a model's folder or "
                f"name ({str(error).strip().splitlines()[0]}).{did_you_mean(base, SIZES)}"
            ) from error
