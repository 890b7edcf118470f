"""Several objectives at once, each with its weight, and the term that keeps imitating."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from palate.objectives.scores import CandidateScores


def sft(scores: CandidateScores) -> Tensor:
    """Imitation of the positives: L = mean_p −s_p, the cross-entropy of SFT.

    Beside a preference objective it keeps the positives' own probability from falling, which a
    margin alone does not (arXiv 2404.19733, there per token).

    Args:
        scores: candidates (B, K) with levels; at least one positive and one negative per context.

    Returns:
        (B,) loss per context, in nats.

    Raises:
        DataError: a context has no positive or no negative.
    """
    scores.require_positive_and_negative()
    return scores.mean_over_positives(-scores.of_positives(scores.policy))


class Term(NamedTuple):
    """An objective of a sum: its weight, and candidate scores → (B,) losses."""

    weight: float
    objective: Callable[[CandidateScores], Tensor]


@dataclass(frozen=True)
class WeightedSum:
    """Σ weight · objective over named terms, such as {"mult_dpo": …, "sft": …}.

    Attributes:
        terms: name → weight and objective, with β and options already in it.
    """

    terms: Mapping[str, Term]

    def parts(self, scores: CandidateScores) -> dict[str, Tensor]:
        """(B,) losses of each term, before its weight."""
        return {name: term.objective(scores) for name, term in self.terms.items()}

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """(B,) the weighted sum of `parts`."""
        first, *others = (self.terms[name].weight * losses for name, losses in parts.items())
        return sum(others, start=first)

    def __call__(self, scores: CandidateScores) -> Tensor:
        """(B,) loss per context."""
        return self.total(self.parts(scores))

    def state_dict(self) -> dict[str, Any]:
        """The state of those terms that have one (β-DPO), for a checkpoint."""
        return {name: term.state_dict() for name, term in self._with_state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a former `state_dict`."""
        for name, term in self._with_state().items():
            term.load_state_dict(state[name])

    def _with_state(self) -> dict[str, Any]:
        return {
            name: term.objective
            for name, term in self.terms.items()
            if hasattr(term.objective, "state_dict")
        }
