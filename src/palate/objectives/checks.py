"""What is wrong with a batch of candidates, in a sentence that names the place."""

import math
from numbers import Real
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from palate.errors import DataError

if TYPE_CHECKING:
    from palate.objectives.scores import CandidateScores

SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)


def is_finite_number(value: object) -> TypeGuard[float]:
    """Whether an option is a number that can be computed with; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))


def check_tensors(scores: "CandidateScores") -> None:
    """Raise a DataError where shapes, devices or dtypes do not fit together; reads no values."""
    policy = scores.policy
    for name, tensor in _given(scores).items():
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise DataError(f"{name} is a {kind}. Expected a (B, K) tensor: torch.tensor(…).")
        if tensor.shape != policy.shape or tensor.device != policy.device:
            raise DataError(
                f"{name} has shape {tuple(tensor.shape)} on {tensor.device}, but policy has "
                f"{tuple(policy.shape)} on {policy.device}. "
                "Pass one (B, K) tensor for each, on one device."
            )
        if name not in ("levels", "lengths") and not tensor.is_floating_point():
            what = "log-probabilities" if name != "weights" else "weights"
            raise DataError(
                f"{name} has dtype {tensor.dtype}. Expected {what} in floating "
                f"point: pass {name}.float()."
            )
    if policy.ndim != 2 or policy.numel() == 0:
        raise DataError(
            f"policy has shape {tuple(policy.shape)}. Expected (B, K): at least one "
            "context by its candidates; for a single context pass policy[None]."
        )
    if scores.levels.dtype not in SIGNED:
        raise DataError(
            f"levels has dtype {scores.levels.dtype}. Expected signed integers, -1 for padding, "
            "0 for a negative, 1 and more for a positive: pass levels.long()."
        )


def check_values(scores: "CandidateScores") -> None:
    """Raise a DataError for the first value that is wrong; one synchronisation if none is."""
    levels, real = scores.levels, scores.real
    unknown = levels < -1
    highest = levels.amax(dim=1)
    lowest = torch.where(real, levels, highest[:, None]).amin(dim=1)
    one_level = highest <= lowest
    given = _given(scores)
    wrong = {
        name: real & ~given[name].isfinite() for name in ("policy", "reference") if name in given
    }
    if scores.log_q is not None:
        wrong["log_q"] = scores.negatives & ~scores.log_q.isfinite()
    if scores.lengths is not None:
        wrong["lengths"] = real & ~((scores.lengths > 0) & scores.lengths.isfinite())
    if scores.weights is not None:
        wrong["weights"] = real & ~((scores.weights > 0) & scores.weights.isfinite())
    most = scores.max_positives
    crowded = scores.positives.sum(dim=1) > (levels.shape[1] if most is None else most)
    flags = [unknown.any(), one_level.any(), crowded.any(), *(m.any() for m in wrong.values())]
    if not torch.stack(flags).any():  # the one synchronisation
        return

    if unknown.any():
        row, column = unknown.nonzero()[0].tolist()
        raise DataError(
            f"Level {int(levels[row, column])} of context {row}, candidate {column} has no "
            "meaning. Use -1 for padding, 0 for a negative, 1 and more for a positive."
        )
    for name, mask in wrong.items():
        if mask.any():
            row, column = mask.nonzero()[0].tolist()
            raise _wrong_value(name, row, column, float(given[name][row, column]))
    if one_level.any():
        raise lacking(levels, int(one_level.nonzero()[0]))
    row = int(crowded.nonzero()[0])
    raise DataError(
        f"Context {row} has {int(scores.positives[row].sum())} positives, but max_positives is "
        f"{most}. Pass the most positives of any context, or leave max_positives out."
    )


def lacking(levels: Tensor, row: int) -> DataError:
    """The error for a context that has nothing to prefer, or nothing to prefer it to."""
    found = sorted(set(levels[row][levels[row] >= 0].tolist()))
    if not found:
        return DataError(
            f"Context {row} has no candidates: all of its levels are -1 (padding) or its weights "
            "0. Leave it out, or give it at least one positive and one negative."
        )
    lack, wanted = ("negative", "level 0") if found[0] > 0 else ("positive", "level 1 or more")
    told = ("levels " if len(found) > 1 else "level ") + ", ".join(map(str, found))
    return DataError(
        f"Context {row} has no {lack}: its candidates have {told}. "
        f"Add a candidate of {wanted}, or leave the context out."
    )


def _given(scores: "CandidateScores") -> dict[str, Tensor]:
    names = ("policy", "reference", "levels", "lengths", "weights", "log_q")
    return {name: t for name in names if (t := getattr(scores, name)) is not None}


def _wrong_value(name: str, row: int, column: int, value: float) -> DataError:
    place = f"of context {row}, candidate {column} is {value}."
    if name == "lengths":
        return DataError(f"The length {place} Expected its number of tokens, above 0.")
    if name == "weights":
        return DataError(
            f"The weight {place} Expected a finite number of at least 0; 0 leaves the candidate "
            "out."
        )
    what = "log_q" if name == "log_q" else f"{name} score"
    return DataError(
        f"The {what} {place} Expected a finite log-probability. "
        "Find out where it arose, or give the candidate level -1 to leave it out."
    )
