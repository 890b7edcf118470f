"""The command line: commands, flags and exit codes, nothing else.

Exit codes: 0 done, 1 a leak was found with --strict or runs of a sweep failed, 2 the input or a
flag is wrong (one sentence says what), 130 interrupted.
"""

import sys

from cyclopts import CycloptsError
from rich.console import Console

from palate.cli import comparing, evidence, installed, lists, reporting, stages, sweeping
from palate.cli.terminal import app, fail
from palate.errors import PalateError

__all__ = [
    "comparing",
    "evidence",
    "installed",
    "lists",
    "main",
    "reporting",
    "stages",
    "sweeping",
]


def main() -> None:
    """Entry point: turns errors of the input into one sentence and exit code 2."""
    try:
        app(exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        fail(f"{error} See palate --help.")
    except PalateError as error:
        fail(str(error))
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; a run that had its data goes on with --resume")
        sys.exit(130)
