"""Negative samplers by name; third parties add theirs by the entry points `palate.negatives`."""

from collections.abc import Callable, Mapping
from typing import Any

from palate.data.prepared import Prepared
from palate.errors import ConfigError, did_you_mean
from palate.negatives.fixed import Fixed, fixed
from palate.negatives.live import (
    Hard,
    InBatch,
    LiveSampler,
    SelfPlay,
    StochasticTopK,
    hard,
    in_batch,
    self_play,
    stochastic_topk,
)
from palate.negatives.popularity import Popularity, popularity
from palate.negatives.sampler import Mixture, NegativeSampler
from palate.negatives.static import Observed, Uniform, observed, uniform
from palate.options import read_options
from palate.plugins import plugins

__all__ = [
    "SAMPLERS",
    "Fixed",
    "Hard",
    "InBatch",
    "LiveSampler",
    "Mixture",
    "NegativeSampler",
    "Observed",
    "Popularity",
    "SamplerOf",
    "SelfPlay",
    "StochasticTopK",
    "Uniform",
    "check_sampler_options",
    "mixture",
    "samplers",
]

# (prepared data, options by keyword) → a sampler
SamplerOf = Callable[..., NegativeSampler | LiveSampler]

SAMPLERS: dict[str, SamplerOf] = {
    "uniform": uniform,
    "popularity": popularity,
    "observed": observed,
    "fixed": fixed,
    "in_batch": in_batch,
    "hard": hard,
    "stochastic_topk": stochastic_topk,
    "self_play": self_play,
}


def samplers() -> dict[str, SamplerOf]:
    """All samplers by name, each a function `(data, **options)`.

    The parameters after the prepared data are the sampler's options (`align.sampler_options`);
    they are checked against their annotations before it is called.
    """
    return {**plugins("palate.negatives"), **SAMPLERS}


def check_sampler_options(name: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options given to a sampler: one sentence each, empty if nothing."""
    return _read_options(name, options)[1]


def mixture(
    counts: Mapping[str, int],
    data: Prepared,
    exclude_history: bool = True,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Mixture:
    """A mixture such as `{"observed": 5, "popularity": 5}` over prepared data.

    Args:
        counts: sampler → negatives per context.
        data: what the samplers are made from.
        exclude_history: never draw an item of the context's history.
        options: sampler → its options, such as `{"popularity": {"alpha": 0.5}}`; see the functions
            in `SAMPLERS`. Only of samplers in `counts`.

    Raises:
        ConfigError: there is no sampler of a name, an option is unknown or of a wrong type, or
            more is wanted than the best `k` hold.
    """
    given, problems, known = dict(options or {}), [], samplers()
    problems += [
        f"align.negatives: there is no sampler '{name}'.{did_you_mean(name, known)}"
        for name in counts
        if name not in known
    ]
    problems += [
        f"align.sampler_options.{name}: align.negatives draws nothing from '{name}'."
        + did_you_mean(name, counts)
        for name in given
        if name not in counts
    ]
    read: dict[str, dict[str, Any]] = {}
    if not problems:
        for name in counts:
            read[name], wrong = _read_options(name, given.get(name, {}))
            problems += wrong
    if problems:
        raise ConfigError(" ".join(problems))
    parts = {name: (known[name](data, **read[name]), count) for name, count in counts.items()}
    for name, (sampler, count) in parts.items():
        if isinstance(sampler, StochasticTopK) and count > sampler.k:
            raise ConfigError(
                f"align.negatives.{name}: {count} negatives cannot be drawn from the best "
                f"{sampler.k}. Set align.sampler_options.{name}.k to more, or draw fewer."
            )
    return Mixture(parts, exclude_history)


def _read_options(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    known = samplers()
    key = f"align.sampler_options.{name}"
    if name not in known:
        return {}, [f"{key}: there is no sampler '{name}'.{did_you_mean(name, known)}"]
    if not isinstance(given, Mapping):
        return {}, [f"{key}: expected options such as {{alpha: 0.5}}; found {given!r}."]
    return read_options(
        known[name], given, f"sampler '{name}'", lambda option: f"{key}.{option}", first=1
    )
