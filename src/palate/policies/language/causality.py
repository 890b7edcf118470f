"""Whether a model reads forward only: what it says at a place must not depend on later tokens.

A title's log-probability is read from one pass over prompt and title. A masked model (BERT without
`is_decoder`), XLNet or an embedding model with attention both ways sees there the very tokens that
it should foretell, so its numbers are no probabilities of titles.
"""

from typing import Any

import torch

from palate.errors import CheckpointError
from palate.loading import first_line
from palate.policies.language.adapters import causal_lm
from palate.policies.language.text_tokens import Tokens
from palate.policies.policy import inference

ROUNDING = 16
"""Least steps of the weights' precision, relative to the largest logit, by which an earlier logit
must move to be called moved. A model that reads forward moves none of them: its rows of matrix
products do not depend on one another, except where experts are filled together."""
FAULTS = (
    ValueError,
    TypeError,
    RuntimeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    ImportError,
)
"""What models raise that need more than text, or code that is not there."""


def check_reads_forward(model: Any, tokens: Tokens, other_end: int) -> None:
    """Raise a CheckpointError where a text's last token changes what the model says before it.

    Args:
        model: a causal language model, with adapters or without.
        tokens: of a text; those before the last one are looked at.
        other_end: a token for the last one's place; another where it is the same.
    """
    last = other_end if other_end != tokens[-1] else int(tokens[0])
    rows = torch.from_numpy(tokens).repeat(2, 1)
    rows[1, -1] = last
    own = causal_lm(model)
    kind, place = type(own).__name__, own.name_or_path
    rows = rows.to(next(model.parameters()).device)
    try:
        with inference(model):
            logits = model(
                input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False
            ).logits.float()
    except torch.OutOfMemoryError:  # says nothing about the model
        raise
    except FAULTS as error:
        raise CheckpointError(
            f"'{place}': {kind} does not read a text alone ({first_line(error)}). Expected a "
            "causal language model: set policy.base to one."
        ) from error
    if logits.ndim != 3 or logits.shape[:2] != rows.shape:
        raise CheckpointError(
            f"'{place}': {kind} gives logits of shape {tuple(logits.shape)} for {len(rows)} texts "
            f"of {rows.shape[1]} tokens. Expected a causal language model: set policy.base to one."
        )
    moved = float((logits[0] - logits[1])[:-1].abs().max())
    dtype = next(one.dtype for one in model.parameters() if one.is_floating_point())
    if moved > ROUNDING * torch.finfo(dtype).eps * float(logits.abs().max()):
        decoder = " with is_decoder false" if vars(own.config).get("is_decoder") is False else ""
        raise CheckpointError(
            f"'{place}': {kind}{decoder} looks at tokens that come later, as a masked model does "
            f"(the last token of a text moves what stands before it by {moved:.2g} nats), so it "
            "gives titles no probability. Expected a causal language model: set policy.base to "
            "one."
        )
