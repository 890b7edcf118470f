"""Who owns a run folder, and whether a run can start at all."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig
from transformers.integrations.integration_utils import get_available_reporting_integrations

from palate.config import RunConfig
from palate.errors import CheckpointError, ConfigError, did_you_mean
from palate.files import write_text
from palate.policies.language.from_scratch import SIZES
from palate.policies.language.prompts import CANDIDATES, read_templates

VERSIONS = ("palate", "torch", "transformers", "tokenizers", "numpy", "duckdb", "narwhals")
MARK = "# A run of Palate. "
"""First line of a run folder's `config.yaml`; nothing else is ever deleted."""
FREE_TO_CHANGE = {"device", "trackers", "sft.workers", "align.workers"}
"""Keys on which no number of a run depends."""


def check_environment(config: RunConfig) -> torch.device:
    """The device to use, after all that can be known before a run to fail in it.

    Raises:
        ConfigError, CheckpointError: the device, a tracker, the prompts or the base model is not
            to be had, or the prompts cannot be evaluated under a protocol asked for.
    """
    _, templates = read_templates(config.policy.prompts)
    if CANDIDATES in templates[0].pieces and "catalogue" in config.evaluation.protocols:
        raise ConfigError(
            f"policy.prompts: '{config.policy.prompts}' lists candidates, so it cannot rank the "
            "whole catalogue. Use --set 'evaluation.protocols=[candidates]', or prompts=history."
        )
    known = ["tensorboard", *get_available_reporting_integrations()]
    for tracker in config.trackers:
        if tracker not in known:
            raise ConfigError(
                f"trackers: '{tracker}' is not installed.{did_you_mean(tracker, set(known))}"
            )
    if config.policy.base not in SIZES:
        try:
            AutoConfig.from_pretrained(config.policy.base)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"policy.base: '{config.policy.base}' is neither {' nor '.join(SIZES)}, nor a "
                f"model's folder or name ({str(error).strip().splitlines()[0]})."
                f"{did_you_mean(config.policy.base, SIZES)}"
            ) from error
    return device_of(config.device)


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


@contextmanager
def claimed(config: RunConfig, folder: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make a run folder ours while its data is prepared; undo that if preparing fails.

    Raises:
        ConfigError: the folder holds something else, a run that neither flag allows to touch, or
            a run of another configuration.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a folder with --out.")
    ours = _is_run(folder)
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ConfigError(
            f"{folder} is not empty and not a run folder, so it is left alone. Choose another "
            "with --out."
        )
    if ours and not (resume or overwrite):
        raise ConfigError(
            f"{folder} already holds a run. Add --resume to go on with it, --overwrite to start "
            "anew, or choose another folder with --out."
        )
    if ours and resume:
        _check_same(config, folder)
        for debris in folder.glob(".*.part"):
            shutil.rmtree(debris) if debris.is_dir() else debris.unlink()
        yield
        return
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if ours:
        folder.rename(aside)
    try:
        versions = {name: version(name) for name in VERSIONS} | {
            "python": platform.python_version()
        }
        made_with = ", ".join(f"{name} {number}" for name, number in versions.items())
        content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_text(f"{MARK}{made_with}\n{content}", folder / "config.yaml")
        yield
    except BaseException:  # an interrupt too: put back what was there, then let it rise
        shutil.rmtree(folder, ignore_errors=True)
        if ours:
            aside.rename(folder)
        raise
    if ours:
        shutil.rmtree(aside)


def _is_run(folder: Path) -> bool:
    written = folder / "config.yaml"
    return written.is_file() and written.read_text("utf-8").startswith(MARK)


def _check_same(config: RunConfig, folder: Path) -> None:
    before = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    changed = [
        key for key in _changed(before, config.model_dump(mode="json")) if key not in FREE_TO_CHANGE
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds a run with another configuration ({', '.join(changed)}). Use "
            "--overwrite, or another folder with --out."
        )


def _changed(before: Any, after: Any, prefix: str = "") -> list[str]:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [prefix]
    keys = [*before, *(key for key in after if key not in before)]
    return [
        name
        for key in keys
        for name in _changed(before.get(key), after.get(key), f"{prefix}.{key}".lstrip("."))
    ]
