"""Whether weights are numbers at all: a policy with NaN in it ranks nothing, and says nothing."""

from math import isfinite, isnan

from torch import nn


def not_finite(model: nn.Module) -> str | None:
    """The name of the first weight with NaN or infinity in it; None where all are finite.

    Infinity in a weight that never trains may be meant, as a mask is; NaN never is. Weights of
    8 bits or less have neither.
    """
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.itemsize == 1 or weight.numel() == 0:
            continue
        low, high = weight.detach().aminmax()  # NaN where there is one, and no copy of the weight
        ends = float(low), float(high)
        if isnan(ends[0]) or (weight.requires_grad and not all(map(isfinite, ends))):
            return name
    return None
