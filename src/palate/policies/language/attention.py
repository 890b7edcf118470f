"""Which code a model computes attention with."""

import warnings
from typing import Any

from palate.errors import DataWarning
from palate.policies.language.adapters import causal_lm

FLEX = "flex_attention"


def leave_flex_on_cpu(model: Any) -> None:
    """Put another attention in the place of flex_attention, which may end the process on a CPU.

    Warns where that is done.

    Args:
        model: a causal language model, with adapters or without.
    """
    own = causal_lm(model)
    configs = (own.config, own.config.get_text_config())
    kinds = {getattr(config, "_attn_implementation", None) for config in configs}
    if FLEX not in kinds or next(own.parameters()).device.type != "cpu":
        return
    try:
        own.set_attn_implementation("sdpa")
    except ValueError:  # it has none
        own.set_attn_implementation("eager")
    warnings.warn(
        f"attn_implementation='{FLEX}' does not work on a CPU; {type(own).__name__} uses "
        f"'{own.config._attn_implementation}' in its place, which gives the same scores.",
        DataWarning,
        stacklevel=3,
    )
