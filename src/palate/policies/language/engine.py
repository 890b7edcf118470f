"""Which engine a model may use: the tree must score titles as each alone is scored."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from palate.errors import ConfigError, DataWarning
from palate.policies.language import layouts
from palate.policies.language.adapters import causal_lm
from palate.policies.policy import Batch, Scored

Engine = Literal["tree", "plain"]
DEEPEST = 1024
"""Tokens that the check reads at most, to look past a model's window."""
TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference in nats, per title, between tree and lone scoring, by the weights' dtype."""
COARSE = 0.5
"""The same for 16 and 4 bits, whose matrix products alone move a title by a third of a nat."""


def engine_for(
    model: Any,
    asked: Engine | None,
    score: Callable[[Batch], Scored],
    end_token: int,
    pad_token: int,
) -> Engine:
    """The engine asked for; without a wish the tree where the model scores alike in it.

    Warns where that is not so. Arguments are those of `reason_against_trees`.

    Raises:
        ConfigError: the tree is asked for and the model scores differently in it.
    """
    if asked == "plain":
        return "plain"
    reason = reason_against_trees(model, score, end_token, pad_token)
    if reason is None:
        return "tree"
    name = type(causal_lm(model)).__name__
    if asked == "tree":
        raise ConfigError(f"engine='tree': {name} {reason}. Leave engine out, or use 'plain'.")
    warnings.warn(
        f"{name} {reason}; each title is scored alone, which is slower.", DataWarning, stacklevel=4
    )
    return "plain"


def reason_against_trees(
    model: Any, score: Callable[[Batch], Scored], end_token: int, pad_token: int
) -> str | None:
    """Why titles must be scored alone, to follow the model's name; None where trees do.

    Args:
        model: a causal language model, with adapters or without.
        score: log-probabilities of a laid-out batch, without gradient.
        end_token, pad_token: of its tokenizer.
    """
    window = getattr(model.config, "sliding_window", None) or 0
    limit = getattr(model.config, "max_position_embeddings", None) or DEEPEST
    deep = min(max(16, window + 8), limit - 8, DEEPEST)
    tokens = (np.arange(deep + 24) * 7 + 3) % int(model.config.vocab_size)
    prompts = [tokens[:deep], tokens[deep : deep + 5]]
    first, second = tokens[deep + 5 : deep + 8], tokens[deep + 8 : deep + 9]
    branch = np.concatenate([first[:2], second])
    answers: list[list[layouts.Answer]] = [[first, second, branch, first[:1]]] * 2
    alone, tree = (
        lay(prompts, answers, end_token, pad_token)
        for lay in (layouts.lay_alone, layouts.lay_trees)
    )
    expected = score(alone).log_probs
    try:
        found = score(tree).log_probs
    except torch.OutOfMemoryError:  # says nothing about trees
        raise
    except (ValueError, TypeError, RuntimeError, KeyError) as error:  # a mask it cannot take
        return f"does not take trees of titles ({str(error).splitlines()[0]})"
    apart = float((found - expected).abs().max())
    if apart <= TOLERANCES.get(next(model.parameters()).dtype, COARSE):
        return None
    return f"scores titles in a tree differently (by {apart:.2g} nats)"
