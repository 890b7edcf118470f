"""Walk the families of language models from a shell.

PYTHONPATH=src:tests .venv/bin/python -m models.families llama gemma3   # some kinds
PYTHONPATH=src:tests .venv/bin/python -m models.families                # all of them
"""

import logging
import sys
import time

from transformers.utils import logging as transformers_logging

from models.tiny import KINDS
from models.walk import walk


def main(kinds: list[str]) -> int:
    """Print what each kind comes to; 1 where one is neither right nor refused."""
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    wrong = 0
    for kind in kinds or KINDS:
        began = time.monotonic()
        found = walk(kind)
        wrong += found.status in ("wrong", "crash")
        seconds = time.monotonic() - began
        print(f"{found.status:8} {kind:25} {seconds:5.1f} s  {found.reason[:200]}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
