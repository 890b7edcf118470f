"""Palate aligns recommender systems with what people prefer.

Names of the public API are loaded when they are first used: `import palate` itself loads neither
torch nor transformers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "CandidateScores": "palate.objectives",
    "OBJECTIVES": "palate.objectives",
    "RunConfig": "palate.config",
    "Simulation": "palate.data.simulator",
    "load_config": "palate.config",
    "load_policy": "palate.policies",
    "run": "palate.pipeline",
}

__all__ = sorted([*_PUBLIC, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'palate' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
