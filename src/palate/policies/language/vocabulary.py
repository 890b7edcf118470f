"""Which tokens a language model knows: its tokenizer may have been widened without it."""

import warnings
from typing import Any

from palate.errors import DataWarning
from palate.policies.language.adapters import causal_lm


def embedded_tokens(model: Any) -> int | None:
    """How many tokens a model can read and foretell: rows of its smaller table of embeddings.

    None where it keeps no such tables.
    """
    own = causal_lm(model)
    tables = [own.get_input_embeddings(), own.get_output_embeddings()]
    weights = [getattr(table, "weight", None) for table in tables]
    rows = [len(one) for one in weights if one is not None and one.ndim == 2]
    return min(rows, default=None)


def padding_token(tokenizer: Any, vocabulary: int | None, end: int) -> int:
    """The token that fills up rows, and is never looked at; 0 where the tokenizer has none.

    Warns where the model has no embedding of it, and takes the `end` token: `[PAD]` added to a
    tokenizer alone is common.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        return 0
    if vocabulary is None or pad < vocabulary:
        return int(pad)
    warnings.warn(
        f"policy.base: the tokenizer's padding token is {pad:,} ({tokenizer.pad_token!r}), but the "
        f"model has embeddings of {vocabulary:,} tokens; rows are filled up with token {end:,} "
        f"({tokenizer.convert_ids_to_tokens(end)!r}) instead, which changes no score.",
        DataWarning,
        stacklevel=2,
    )
    return end
