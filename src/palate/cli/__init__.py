"""The command line: commands, flags and exit codes, nothing else.

Exit codes: 0 done, 1 a leak was found with --strict or runs of a sweep failed, 2 the input, a flag
or a disk is wrong (one sentence says what), 130 interrupted.
"""

import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any

COMMANDS = ("comparing", "evidence", "installed", "lists", "reporting", "stages", "sweeping")
"""Modules that have them."""
INTERRUPTED = (
    "palate: interrupted; palate run goes on with --resume, the other commands when given again"
)


def main() -> None:
    """Entry point: turns errors of the input into one sentence and exit code 2.

    Whatever is imported is imported in here, so that Ctrl-C is a sentence from the start.
    """
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    former: Any = signal.getsignal(signal.SIGINT)
    if former is signal.default_int_handler:  # else whoever started us wants no interrupts
        signal.signal(signal.SIGINT, interrupt)
    try:
        _run()
    except SystemExit:
        raise
    except BaseException as error:
        # libraries make other errors of an interrupt: DuckDB of a query, transformers of an import
        if not interrupts and not isinstance(error, KeyboardInterrupt):
            raise
        print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, former)


def _run() -> None:
    from cyclopts import CycloptsError

    for name in COMMANDS:
        import_module(f"palate.cli.{name}")
    from palate.cli.storage import storage_fault
    from palate.cli.terminal import app, fail
    from palate.errors import PalateError

    try:
        app(exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        fail(f"{error} See palate --help.")
    except PalateError as error:
        fail(str(error))
    except BrokenPipeError:  # palate sources | head: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if (said := storage_fault(error)) is None:
            raise
        fail(said)
