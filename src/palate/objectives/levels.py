"""Pairs of levels: which candidates a positive outranks and which stand beside it."""

import math

import torch
from torch import Tensor

from palate.objectives.scores import CandidateScores


def outranked(scores: CandidateScores) -> Tensor:
    """(B, P, K) true at [b, p, e] where e is real and of a lower level than the positive p."""
    levels = scores.of_positives(scores.levels)[:, :, None]
    return scores.filled[:, :, None] & scores.real[:, None, :] & (levels > scores.levels[:, None])


def of_same_level(scores: CandidateScores) -> Tensor:
    """(B, P, K) true at [b, p, e] where e has the level of the positive p; e may be p."""
    levels = scores.of_positives(scores.levels)[:, :, None]
    return scores.filled[:, :, None] & (levels == scores.levels[:, None])


def level_weights(scores: CandidateScores) -> Tensor | None:
    """(B, K) weights, of positives divided by the mean over their level; None without weights."""
    if scores.weights is None:
        return None
    same = (scores.levels[:, :, None] == scores.levels[:, None, :]) & scores.real[:, None, :]
    total = (same * scores.weights[:, None, :]).sum(dim=2)
    normalised = scores.weights * same.sum(dim=2) / total.masked_fill(~scores.positives, 1.0)
    return torch.where(scores.positives, normalised, scores.weights)


def nan_without_pairs(losses: Tensor, scores: CandidateScores, pairs: Tensor) -> Tensor:
    """Losses (B,), NaN where a context has no pair (B, P, K), or lost one to `max_positives`.

    There is nothing to learn from it, and where values are not checked a number would hide that.
    """
    usable = pairs.any(dim=2).any(dim=1) & scores.all_in_places
    return losses.masked_fill(~usable, math.nan)
