"""References: the log-probabilities a policy is held to while it is aligned."""

from copy import deepcopy
from typing import Protocol

import torch
from torch import Tensor

from palate.policies.policy import Batch, Policy


class Reference(Protocol):
    """Log-probabilities of a batch's candidates before alignment."""

    def log_probs(self, batch: Batch) -> Tensor | None:
        """(B, K) without gradient, or None for a reference-free objective."""
        ...


class Frozen:
    """A copy of the policy as it is now, in evaluation mode and without gradients.

    Args:
        policy: copied; its layout of batches is shared.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._model = deepcopy(policy.model).eval().requires_grad_(False)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """See `Reference.log_probs`."""
        return self._policy.log_probs(batch, self._model).log_probs


REFERENCES = {"frozen": Frozen}
