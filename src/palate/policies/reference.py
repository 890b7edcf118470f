"""References: the log-probabilities a policy is held to while it is aligned."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal, Protocol

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn

from palate.errors import ConfigError
from palate.policies.language.adapters import without_training_adapter
from palate.policies.policy import Batch, Policy

Precision = Literal["fp32", "bf16"]


class Reference(Protocol):
    """Log-probabilities of a batch's candidates before alignment."""

    def log_probs(self, batch: Batch) -> Tensor | None:
        """(B, K) without gradient, or None for a reference-free objective."""
        ...


class Frozen:
    """A copy of the policy as it is now, in evaluation mode and without gradients.

    Args:
        policy: copied; its layout of batches is shared.
        precision: arithmetic in which the policy is trained; the copy is scored in the same.

    Raises:
        ConfigError: the policy's base weights are quantised.
    """

    def __init__(self, policy: Policy, precision: Precision = "fp32") -> None:
        check_reference("frozen", quantized=getattr(policy, "quantized", False))
        self._policy = policy
        self._model = deepcopy(policy.model).eval().requires_grad_(False)
        if precision == "bf16":
            _compute_in_bf16(self._model)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """See `Reference.log_probs`."""
        return self._policy.log_probs(batch, self._model).log_probs


class AdapterOff:
    """The policy itself without the adapter in training: one set of base weights in memory.

    Adapters of earlier stages belong to the reference, merged or frozen: it is what the policy was
    when its stage started.

    Args:
        policy: a language policy with an adapter in training (see `LanguagePolicy.start_stage`).
        precision: taken for the other references' sake; the policy's own module, which is what
            runs, computes in its own.

    Raises:
        ConfigError: the policy has no adapter in training.
    """

    def __init__(self, policy: Policy, precision: Precision = "fp32") -> None:
        check_reference("adapter_off", has_adapter=getattr(policy, "adapter", None) is not None)
        if getattr(policy.model, "trainable", None) is None:
            raise ConfigError(
                "align.reference: adapter_off needs an adapter in training; call "
                "policy.start_stage('align') first, or use frozen."
            )
        self._policy = policy

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """See `Reference.log_probs`."""
        model: Any = self._policy.model
        with without_training_adapter(model):
            return self._policy.log_probs(batch, model).log_probs


class NoReference:
    """None: the objective takes the policy's log-probabilities for log-ratios.

    Args:
        policy: taken, like `precision`, for the other references' sake.
    """

    def __init__(self, policy: Policy, precision: Precision = "fp32") -> None:
        pass

    def log_probs(self, batch: Batch) -> None:
        """See `Reference.log_probs`."""
        return


REFERENCES: dict[str, Callable[..., Reference]] = {
    "frozen": Frozen,
    "adapter_off": AdapterOff,
    "none": NoReference,
}
"""Name → what makes the reference of (policy, precision)."""


def check_reference(name: str, has_adapter: bool = True, quantized: bool = False) -> None:
    """Whether a reference makes sense, which is known before any training.

    Args:
        name: one of `REFERENCES`.
        has_adapter: whether the policy trains an adapter.
        quantized: whether its base weights have 4 bits.

    Raises:
        ConfigError: it does not; says what to set instead.
    """
    if name == "adapter_off" and not has_adapter:
        raise ConfigError(
            "align.reference: adapter_off needs a policy with an adapter; set policy.adapter, or "
            "use --set align.reference=frozen."
        )
    if name == "frozen" and quantized:
        raise ConfigError(
            "align.reference: frozen would hold the base weights twice, which policy.quantize is "
            "there to avoid; use --set align.reference=adapter_off."
        )


def _compute_in_bf16(model: nn.Module) -> None:
    """Let a module compute as accelerate lets the one in training: in place, under autocast."""
    device = next(model.parameters()).device.type
    under_autocast = torch.autocast(device, dtype=torch.bfloat16)(model.forward)
    model.forward = convert_outputs_to_fp32(under_autocast)
