"""The few errors and warnings Palate raises on purpose.

A message says what was found, where, what was expected and what to type next.
The command line prints it as one sentence and exits with code 2.
"""

import difflib
from collections.abc import Iterable


class PalateError(Exception):
    """Base of every error that is the input's fault rather than a bug."""


class ConfigError(PalateError):
    """A configuration, flag or argument is wrong."""


class DataError(PalateError):
    """Interactions, items, candidates or scores are wrong."""


class CheckpointError(PalateError):
    """A saved policy is missing, incomplete or belongs to another catalogue."""


class DataWarning(UserWarning):
    """The input is usable, but something about it should be known."""


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """A hint with the nearest known word: `" Did you mean 'beta'?"`, or the whole choice."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(sorted(names))}." if names else ""
