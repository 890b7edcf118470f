"""A process that does the jobs of a sweep, one after another: python -m palate.sweep.worker THREADS

A job comes as a line of JSON by standard input and is answered by one on standard output. What it
prints goes to its log. The process ends when its input closes: with the sweep, or when that is
killed.
"""

import gc
import json
import os
import queue
import sys
import threading
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import IO, Any

from palate.errors import DataWarning, PalateError


def main() -> None:
    """Do jobs until the input closes."""
    given, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w")
    with open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(given, jobs), daemon=True).start()
    import torch  # after the thread: to load it takes seconds, in which the sweep may be killed

    import palate.sweep.stages  # noqa: F401

    gc.freeze()  # what is loaded is no garbage: a collection need not look at it each time
    torch.set_num_threads(int(sys.argv[1]))
    while True:
        answers.write(json.dumps(_answer(jobs.get())) + "\n")
        answers.flush()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # other processes may need it


def _listen(given: IO[str], jobs: "queue.SimpleQueue[dict[str, Any]]") -> None:
    for line in given:
        jobs.put(json.loads(line))
    os._exit(0)


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job; what went wrong, if anything, and what Palate warned of."""
    from palate.config import parse_config
    from palate.sweep.stages import do

    warned: list[str] = []

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, DataWarning):
            warned.append(str(message))
        print(f"{category.__name__}: {message}", flush=True)

    warnings.showwarning = show
    with Path(job["log"]).open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    source = None if job["source"] is None else Path(job["source"])
    error = None
    try:
        config = parse_config(job["config"])
        do(job["kind"], config, Path(job["folder"]), source, partial(print, flush=True))
    except PalateError as problem:
        error = str(problem)
    except Exception as problem:  # a bug, or the machine: told, and the other runs go on
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem}"
    return {"error": error, "warned": warned}


if __name__ == "__main__":
    main()
