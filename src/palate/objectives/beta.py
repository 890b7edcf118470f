"""The inverse temperature β: checked, and in the shape in which it multiplies pairs."""

from torch import Tensor

from palate.errors import ConfigError
from palate.objectives.checks import is_finite_number
from palate.objectives.scores import CandidateScores


def scalar_beta(scores: CandidateScores, beta: float | Tensor) -> float | Tensor:
    """One inverse temperature for all pairs, checked.

    Args:
        beta: a number or a tensor of no dimensions. A tensor's value is checked only where
            `scores` are, since that synchronises.

    Raises:
        ConfigError: beta is not one finite number above 0.
    """
    if isinstance(beta, Tensor):
        if beta.ndim != 0:
            raise ConfigError(
                f"beta has shape {tuple(beta.shape)}, but one value for all candidates is "
                "expected here. Pass a number above 0, such as beta=1.0."
            )
        if scores.check:
            _checked(beta.item())
        return beta
    return _checked(beta)


def pair_beta(scores: CandidateScores, beta: float | Tensor) -> float | Tensor:
    """β in a form that multiplies `pair_margins()`: a scalar, or (B, 1, K) from (B, K).

    Args:
        beta: a scalar, or (B, K) with one value per negative; not read at other candidates.

    Raises:
        ConfigError: a value that is used is not a finite number above 0, or the shape is another.
    """
    if not isinstance(beta, Tensor) or beta.ndim == 0:
        return scalar_beta(scores, beta)
    if beta.shape != scores.levels.shape:
        raise ConfigError(
            f"beta has shape {tuple(beta.shape)}. Expected a number, such as beta=1.0, or one "
            f"value per candidate in shape {tuple(scores.levels.shape)}."
        )
    if scores.check:
        wrong = scores.negatives & ~((beta > 0) & beta.isfinite())
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            _checked(beta[row, column].item(), f" of context {row}, candidate {column}")
    used = beta.to(scores.log_ratios.dtype).masked_fill(~scores.negatives, 1.0)
    return used[:, None, :]


def set_beta(scores: CandidateScores, beta: float | Tensor) -> tuple[float | Tensor, Tensor | None]:
    """β for an objective on sets, and which of its pairs take part.

    Args:
        beta: a scalar, or (B, K, K) as [context, better, other], read at positives in the first
            and real candidates in the second place; 0 there leaves the pair out.

    Returns:
        (a scalar or (B, P, K); None for all pairs or (B, P, K) true at those that take part).

    Raises:
        ConfigError: a value that is used is negative or not finite, or the shape is another.
    """
    if not isinstance(beta, Tensor) or beta.ndim == 0:
        return scalar_beta(scores, beta), None
    rows, width = scores.levels.shape
    if beta.shape != (rows, width, width):
        raise ConfigError(
            f"beta has shape {tuple(beta.shape)}. Expected a number, such as beta=1.0, or one "
            f"value per pair (better, other) in shape {(rows, width, width)}."
        )
    used = scores.filled[:, :, None] & scores.real[:, None, :]
    betas = scores.of_positives(beta).to(scores.log_ratios.dtype).masked_fill(~used, 1.0)
    if scores.check:
        wrong = ~((betas >= 0) & betas.isfinite())
        if wrong.any():
            row, place, other = wrong.nonzero()[0].tolist()
            better = int(scores.places[row, place])
            _checked(
                betas[row, place, other].item(), f" of context {row}, pair ({better}, {other})"
            )
    return betas, betas > 0


def _checked(beta: object, where: str = "") -> float:
    if is_finite_number(beta) and beta > 0:
        return float(beta)
    raise ConfigError(
        f"beta{where} is {beta!r}, but it must be a finite number above 0. "
        "Type beta=1.0, or another positive value."
    )
