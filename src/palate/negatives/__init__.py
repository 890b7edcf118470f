"""Negative samplers by name; third parties add theirs by the entry points `palate.negatives`."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from palate.data.contexts import Prepared
from palate.errors import ConfigError, did_you_mean
from palate.negatives.sampler import Mixture, NegativeSampler
from palate.negatives.static import Observed, Uniform

__all__ = ["SAMPLERS", "Mixture", "NegativeSampler", "Observed", "Uniform", "mixture", "samplers"]

SAMPLERS: dict[str, Callable[[Prepared], NegativeSampler]] = {
    "uniform": lambda data: Uniform(data.n_items),
    "observed": lambda data: Observed(data.observed_negatives),
}


def samplers() -> dict[str, Callable[[Prepared], NegativeSampler]]:
    """All samplers by name, each a function of the prepared data."""
    found = {entry.name: entry.load() for entry in entry_points(group="palate.negatives")}
    return {**found, **SAMPLERS}


def mixture(counts: Mapping[str, int], data: Prepared, exclude_history: bool = True) -> Mixture:
    """A mixture such as `{"observed": 5, "uniform": 5}` over prepared data.

    Raises:
        ConfigError: there is no sampler of a name.
    """
    known = samplers()
    for name in counts:
        if name not in known:
            raise ConfigError(
                f"align.negatives: there is no sampler '{name}'.{did_you_mean(name, known)}"
            )
    parts = {name: (known[name](data), count) for name, count in counts.items()}
    return Mixture(parts, exclude_history)
