"""The folder of a language policy: weights, tokenizer, catalogue, prompts and settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from palate.files import write_json, write_text
from palate.policies.language.adapters import Adapter, load_model, save_model
from palate.policies.language.portable import save_tokenizer
from palate.policies.language.prompters import read_saved, saved_chat
from palate.policies.language.weights import pretrained
from palate.policies.settings import SETTINGS

if TYPE_CHECKING:
    from palate.policies.language.causal_lm import LanguagePolicy


def write_policy(policy: LanguagePolicy, folder: Path, apart: bool) -> None:
    """Write all that ranking and further training need; the policy stays as it is.

    Args:
        policy: what to write.
        folder: where.
        apart: keep adapters out of the written weights.
    """
    places = save_model(policy.model, folder, apart, policy.quantized)
    save_tokenizer(policy.tokenizer, policy.prompter.begin.tolist(), policy.chat, folder)
    write_text(policy.prompts, folder / "prompts.txt")
    if policy.items is not None:
        pq.write_table(policy.items, folder / "items.parquet")
    settings = {"kind": policy.kind, "max_history": policy.max_history, "seed": policy.seed}
    if policy.chat is not None:
        settings["chat"] = asdict(policy.chat)
    if policy.adapter is not None:
        settings |= {"adapter": asdict(policy.adapter), "stages": policy.stages, **places}
    write_json(settings, folder / SETTINGS)


def read_policy(folder: Path) -> dict[str, Any]:
    """The arguments of `LanguagePolicy` that a folder holds; its engine is not among them.

    Raises:
        CheckpointError: a file is missing, or cut.
    """
    settings, items, text = read_saved(folder)
    found = {
        "items": items,
        "prompts": text,
        "max_history": settings["max_history"],
        "seed": settings["seed"],
        "chat": saved_chat(settings),
    }
    if "adapter" not in settings:
        model, tokenizer = pretrained(str(folder))
        return {**found, "model": model, "tokenizer": tokenizer}
    adapter, quantized = Adapter(**settings["adapter"]), settings["quantized"]
    base, names = settings["base"], settings["adapters"]
    model, tokenizer = load_model(folder, base, adapter, names, quantized)
    return {
        **found,
        "model": model,
        "tokenizer": tokenizer,
        "adapter": adapter,
        "quantized": quantized,
        "stages": settings["stages"],
    }
