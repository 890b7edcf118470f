"""What installed packages add: sources, samplers and objectives, found by their entry points."""

import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from palate.errors import DataWarning

_told: set[EntryPoint] = set()


def plugins(group: str) -> dict[str, Callable[..., Any]]:
    """Name → function of the entry points of a group; one that is broken is named and left out.

    Args:
        group: "palate.sources", "palate.negatives" or "palate.objectives".

    Returns:
        What could be imported. Of each other one a DataWarning tells the reason, once.
    """
    found: dict[str, Callable[..., Any]] = {}
    for entry in entry_points(group=group):
        try:
            loaded = entry.load()
            if not callable(loaded):
                raise TypeError(f"it is of type {type(loaded).__name__}, not a function")
        except (Exception, SystemExit) as error:  # whatever somebody else's module does
            if entry not in _told:
                _told.add(entry)
                reason = " ".join(str(error).split()) or "no reason given"
                package = f" of {entry.dist.name}" if entry.dist else ""
                warnings.warn(
                    f"the plug-in '{entry.name}'{package} ({group}: {entry.value}) cannot be used: "
                    f"{type(error).__name__}: {reason:.200}. Everything else works without it.",
                    DataWarning,
                    stacklevel=2,
                )
            continue
        found[entry.name] = loaded
    return found
