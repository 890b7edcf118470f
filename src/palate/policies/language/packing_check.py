"""Whether a model may be given packed titles: it must score them as it scores each alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from palate.policies.language import packing
from palate.policies.policy import Batch, Scored

TOLERANCE = 1e-2
"""Largest difference in nats, per title, between packed and lone scoring."""


def reason_against_packing(
    model: Any, score: Callable[[Batch], Scored], end_token: int, pad_token: int
) -> str | None:
    """Why titles must be scored alone, to follow the model's name; None where they may be packed.

    Args:
        model: a causal language model, with adapters or without.
        score: log-probabilities of a laid-out batch, without gradient.
        end_token, pad_token: of its tokenizer.
    """
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        return "has attention windows, which packed titles would not see alike"
    tokens = (np.arange(24) * 7 + 3) % int(config.vocab_size)
    prompts, answers = [tokens[:9], tokens[9:14]], [[tokens[14:17], tokens[17:18]]] * 2
    alone, packed = (
        lay(prompts, answers, end_token, pad_token) for lay in (packing.lay_alone, packing.pack)
    )
    expected = score(alone).log_probs
    try:
        found = score(packed).log_probs
    except (ValueError, TypeError, RuntimeError) as error:  # a mask of a shape it cannot take
        return f"does not take packed titles ({str(error).splitlines()[0]})"
    apart = float((found - expected).abs().max())
    if apart <= TOLERANCE:
        return None
    return f"scores packed titles differently (by {apart:.2g} nats)"
