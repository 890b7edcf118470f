"""What the study of samplers sees of an alignment: what is drawn, and where its gradient goes."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from palate.evaluation.false_negatives import Known
from palate.objectives import CandidateScores
from palate.objectives.weighted_sum import WeightedSum
from palate.policies.policy import Batch
from palate.policies.reference import Frozen


class Watched:
    """A frozen reference and the objective, which meet all that is drawn and tell what it was.

    `align` asks the reference for a batch's candidates, then the objective for its loss.

    Args:
        reference: gives the log-probabilities.
        objective: gives the losses.
        known: name → which of (B, K) items the user likes after all.
    """

    def __init__(
        self, reference: Frozen, objective: WeightedSum, known: Mapping[str, Callable[..., Known]]
    ) -> None:
        self._reference = reference
        self._objective = objective
        self._known = known
        self._batch: Batch = {}
        self._pairs: set[tuple[int, int]] = set()
        self._items: Counter[int] = Counter()
        self._drawn, self._gradient = 0, 0.0
        self._of: dict[str, list[float]] = {name: [0, 0.0] for name in known}

    def log_probs(self, batch: Batch) -> Tensor:
        """See `Reference.log_probs`."""
        self._batch = batch
        return self._reference.log_probs(batch)

    def losses(self, scores: CandidateScores) -> Tensor:
        """(B,) losses; adds the batch's negatives and their gradient to the count."""
        policy = scores.policy.detach().requires_grad_()
        with torch.enable_grad():
            total = self._objective(replace(scores, policy=policy)).sum()
        (gradient,) = torch.autograd.grad(total, policy)
        contexts, item_ids = self._batch["asked"].contexts, self._batch["asked"].item_ids
        negative = scores.levels.numpy() == 0
        size = np.where(negative, gradient.abs().numpy(), 0.0)
        users = np.array([context.user_id for context in contexts])[:, None]
        pairs = np.broadcast_to(users, negative.shape)[negative], item_ids[negative]
        self._pairs.update(zip(*(column.tolist() for column in pairs), strict=True))
        self._items.update(pairs[1].tolist())
        self._drawn += int(negative.sum())
        self._gradient += float(size.sum())
        for name, is_known in self._known.items():
            false = is_known(contexts, item_ids) & negative
            self._of[name][0] += int(false.sum())
            self._of[name][1] += float(size[false].sum())
        return self._objective(scores)

    def found(self) -> dict[str, float]:
        """Over all that was drawn: the share of it, and of Σ|∂L/∂s|, that is known to be liked;
        how often an item was drawn for a user again; what falls on the ten items drawn most; mean
        |∂L/∂s|."""
        shares = {}
        for name, (count, size) in self._of.items():
            shares |= {f"{name}/rate": count / self._drawn, f"{name}/share": size / self._gradient}
        return shares | {
            "drawn": self._drawn,
            "repeated": 1 - len(self._pairs) / self._drawn,
            "on ten": sum(count for _, count in self._items.most_common(10)) / self._drawn,
            "gradient": self._gradient / self._drawn,
        }
