"""Alignment without noise: policy and reference differ by their weights alone.

Dropout hides in many places: in layers of its own, in calls with a number from a configuration, in
layers that are skipped whole, in a router's jitter. Whatever it is, it is off in evaluation mode,
where gradients flow as in training. So a model is aligned in evaluation mode, and the first batch
proves that its scores stay what they are.
"""

import re
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from palate.errors import ConfigError
from palate.policies.language.adapters import causal_lm
from palate.policies.module_policy import ModulePolicy
from palate.policies.policy import Batch, Policy

DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
"""All kinds of it; what they have in common has no public name."""
NOISE = re.compile("drop|jitter")
"""What modules call the amount of their noise: attn_pdrop, layerdrop, router_jitter_noise, …"""
ROUNDING = {"fp32": 1e-4, "bf16": 1e-2}
"""Share of a score that two passes over the same batch may differ by, by the precision of products:
sums may come in another order on a GPU."""
ALIKE = 0.9
"""Share of a batch's scores that must be alike: an expert that wins by rounding may lose by it."""


class Silence:
    """Keeps noise out of the training of one policy.

    Most models are silent in evaluation mode. A module that cuts gradients there, because it keeps
    its item vectors from one call to the next, say, is put into training mode with its dropout at
    0 and its batch statistics fixed.

    Args:
        policy: about to be aligned.
        precision: of its products in training.
    """

    def __init__(self, policy: Policy, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        self._policy = policy
        self._rounding = ROUNDING["bf16" if getattr(policy, "quantized", False) else precision]
        self._cuts_gradients = False
        self._is_proven = False

    def before(self, batch: Batch, model: nn.Module) -> None:
        """Make the model ready for a pass over a batch; the first one is tried.

        Args:
            batch: on the model's device.
            model: the policy's, wrapped by a trainer or not.

        Raises:
            ConfigError: the model's scores of the batch change from one pass to the next, or it has
                no gradient in evaluation mode.
        """
        if not self._is_proven:
            self._cuts_gradients = self._loses_gradients(batch)
            self._prove(batch)
            self._is_proven = True
        self._silence(model)

    def _silence(self, model: nn.Module) -> None:
        silence_in_training_mode(model) if self._cuts_gradients else silence(model)

    def _loses_gradients(self, batch: Batch) -> bool:
        """Whether some weights of a user's own module have a gradient in training mode alone."""
        silence(self._policy.model)
        try:
            in_evaluation = self._reached(batch)
        except AssertionError as error:  # Reformer's backward pass insists on training mode
            raise ConfigError(
                f"{self._name} cannot be aligned: it has no gradient in evaluation mode, in which "
                f"alignment runs ({' '.join(str(error).split())}). Expected a model that "
                "has; set policy.base to another."
            ) from error
        if not isinstance(self._policy, ModulePolicy):
            return False
        silence_in_training_mode(self._policy.model)
        return not self._reached(batch) <= in_evaluation

    def _reached(self, batch: Batch) -> set[str]:
        """Names of the weights that a gradient of the scores reaches."""
        weights = {n: w for n, w in self._policy.model.named_parameters() if w.requires_grad}
        scores = self._policy.log_probs(batch).log_probs
        if not scores.requires_grad:
            return set()
        gradients = torch.autograd.grad(scores.sum(), list(weights.values()), allow_unused=True)
        return {name for name, one in zip(weights, gradients, strict=True) if one is not None}

    @property
    def _name(self) -> str:
        is_users_own = isinstance(self._policy, ModulePolicy)
        model: Any = self._policy.model
        return type(model.module if is_users_own else causal_lm(model)).__name__

    def _prove(self, batch: Batch) -> None:
        """The scores that are trained are those of evaluation mode, as references have them."""
        model: Any = self._policy.model
        self._silence(model)
        trained = self._policy.log_probs(batch).log_probs.detach()
        model.eval()
        evaluated = self._policy.log_probs(batch).log_probs.detach()
        apart = (trained - evaluated).abs()
        if float((apart / (1 + evaluated.abs())).quantile(ALIKE)) <= self._rounding:
            return
        raise ConfigError(
            f"{self._name} scores the same batch differently from one pass to the next (by "
            f"up to {float(apart.max()):.2g} nats), so its log-ratios to the reference would be "
            "noise. Expected a model whose noise (dropout, jitter, sampling) ends with "
            "model.eval()."
        )


def silence(model: nn.Module) -> None:
    """Evaluation mode, except for what needs training mode to train and makes no noise in it.

    Call it before each pass: a trainer calls `model.train()` in every step.

    Args:
        model: changed in place. Recurrent layers lose their dropout for good.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.RNNBase):  # on CUDA it has no gradient in evaluation mode
            module.training = True
            module.dropout = 0.0
        elif getattr(module, "gradient_checkpointing", False):  # only in training mode
            module.training = True
            _without_own_noise(module)


def silence_in_training_mode(model: nn.Module) -> None:
    """Training mode without dropout, batch statistics fixed; for noise that modules say they have.

    Args:
        model: changed in place, for good.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, (*DROPOUTS, _NormBase)):
            module.training = False
        else:
            _without_own_noise(module)


def _without_own_noise(module: Any) -> None:
    for name, value in vars(module).items():
        if isinstance(value, float) and NOISE.search(name):
            setattr(module, name, 0.0)
