"""What a policy's scores depend on, as hashes: to know scores on disk for its own."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from palate.data.contexts import Context, Ids
from palate.policies.language.adapters import AdaptedModel, causal_lm
from palate.policies.policy import PADDING_ITEM, Policy

DIFFERING = {
    "weights": "other weights",
    "tokenizer": "another tokenizer",
    "prompts": "other prompts (policy.prompts, policy.max_history, policy.chat or seed)",
    "items": "another catalogue",
    "precision": "another align.precision",
}
"""Part of a fingerprint → how a refusal calls another one."""
SCORES_NOTHING = ("name_or_path", "transformers_version", "architectures", "dtype", "use_cache")
"""Keys of a model's configuration on which no score depends; nor on those that begin with _."""
SCALE = ("r", "lora_alpha")
"""Keys of an adapter's configuration by which its updates are scaled."""
READS_NOT = ("truncation", "padding", "post_processor")
"""Parts of a tokenizer that no policy reads."""


def fingerprint(policy: Policy, precision: str) -> dict[str, str]:
    """Hashes of all that a policy's scores of a context depend on, besides the context.

    An adapter in training is left out: it is the policy before it that is meant.

    Args:
        policy: as its alignment starts.
        precision: in which it computes.
    """
    of: Any = policy
    items = policy.items
    names = ("source_id", "title")
    columns = [] if items is None else [n for n in names if n in items.column_names]
    reads = ("prompts", "max_history", "seed", "chat", "reads", "made_by")
    prompts = [getattr(of, name, None) for name in reads]
    return {
        "weights": _weights(policy.model),
        "tokenizer": _tokenizer(getattr(of, "tokenizer", None)),
        "prompts": _json(prompts),
        "items": _json([] if items is None else [items[name].to_pylist() for name in columns]),
        "precision": precision,
    }


def context_names(policy: Policy, contexts: Sequence[Context], item_ids: Ids) -> Ids:
    """(B,) 64 bits that name all that a policy may read of each context.

    The moment's id (which chooses the template), the items that are read and their times, what was
    said and the candidates that the source shows are part of it; for moments read in one pass,
    whose and from where on (which choose the template); for a policy that shows the scored
    candidates themselves, all of those in their order.

    Args:
        policy: reads the contexts.
        contexts: B contexts.
        item_ids: (B, K) what is scored; −1 for no candidate.
    """
    longest = getattr(policy, "max_history", None) or 0
    names = np.zeros(len(contexts), np.int64)
    for row, (context, scored) in enumerate(zip(contexts, item_ids, strict=True)):
        shown = context.candidates
        if shown is None and policy.lists_candidates:
            shown = scored[scored != PADDING_ITEM]
        first, times = context.first_read, context.times
        moment = [context.context_id] if first is None else [context.user_id, first]
        since = -longest if first is None else first
        parts = [
            np.asarray(moment, np.int64),
            np.asarray(context.history[since:], np.int64),
            np.asarray([] if times is None else times[since:], np.int64),
            np.asarray([] if shown is None else shown, np.int64),
        ]
        name = hashlib.blake2b(digest_size=8)
        for part in (*(part.tobytes() for part in parts), (context.text or "").encode()):
            name.update(len(part).to_bytes(8, "little") + part)
        names[row] = np.frombuffer(name.digest(), np.int64)[0]
    return names


def _weights(model: nn.Module) -> str:
    training = getattr(model, "trainable", None)
    config: Any = getattr(causal_lm(model), "config", None)
    content = config.to_dict() if hasattr(config, "to_dict") else {}
    scored = {
        key: value
        for key, value in content.items()
        if not key.startswith("_") and key not in SCORES_NOTHING
    }
    scales = {}
    if isinstance(model, AdaptedModel):
        kept = {name: one for name, one in model.peft_config.items() if name != training}
        scales = {name: [getattr(one, key) for key in SCALE] for name, one in kept.items()}
    total = hashlib.sha256(json.dumps([scored, scales], sort_keys=True, default=str).encode())
    weights = {  # the same with and without an adapter around them
        key.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for key, tensor in model.state_dict().items()
        if training is None or f".{training}." not in key
    }
    for name, tensor in sorted(weights.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy())
    return total.hexdigest()


def _tokenizer(tokenizer: Any) -> str:
    if tokenizer is None:
        return "none"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    if backend is not None:
        # how batches are cut and padded changes with use, what is put around texts with saving: no
        # policy reads any of it, nor the chat template but as the chat that was made of it
        rules = {k: v for k, v in rules.items() if k not in READS_NOT}
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    made_by = type(tokenizer).__name__ if backend is None else ""  # the rules say it all
    return _json([made_by, rules, special])


def _json(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
