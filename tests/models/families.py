"""Walk the families of language models from a shell.

PYTHONPATH=src:tests .venv/bin/python -m models.families llama gemma3   # some kinds
PYTHONPATH=src:tests .venv/bin/python -m models.families                # all of them
make model-families                                                     # and write the table
"""

import logging
import sys
import time

from transformers.utils import logging as transformers_logging

from models.table import PATH, written
from models.tiny import EVERY
from models.walk import TOLERANCE, walk


def main(arguments: list[str]) -> int:
    """Print what each kind comes to; 1 where one is neither right nor refused."""
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    kinds = [one for one in arguments if one != "--write"]
    found = []
    for kind in kinds or EVERY:
        began = time.monotonic()
        found.append(walk(kind))
        last, seconds = found[-1], time.monotonic() - began
        print(f"{last.status:8} {kind:25} {seconds:5.1f} s  {last.reason[:200]}", flush=True)
    if "--write" in arguments:
        PATH.write_text(written(found, TOLERANCE), "utf-8")
    return int(any(one.status in ("wrong", "crash") for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
