"""A side of a benchmark in a process of its own, asked line by line; needs Python alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Worker:
    """Starts a script and asks it for work.

    Args:
        python: the interpreter, which decides what is installed.
        script: calls `serve`.
        arguments: of the script.
        environment: variables to set besides this process's own.
    """

    def __init__(
        self,
        python: Path | str,
        script: Path,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = script.name
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore::FutureWarning", str(script), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.ready: dict[str, Any] = self._answer()

    def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        """What the script answers, with the `seconds` and the `memory` that it took."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._name} ended with code {self._process.wait()}; see what it said above")
        return json.loads(line)


def serve(make: Callable[[dict[str, Any]], Mapping[str, Callable[..., Any]]]) -> None:
    """Answer a `Worker` until it hangs up.

    Args:
        make: the script's arguments → name → what to do; may take its time.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to standard error
    given = json.loads(sys.argv.pop())  # libraries read the command line too

    def answer(work: Callable[[], Any]) -> Any:
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        said = result if isinstance(result, dict) else {}
        memory = {"before": before, "peak": resident("VmHWM")}
        print(json.dumps({"seconds": seconds, "memory": memory, **said}), file=answers, flush=True)
        return result

    actions: dict[str, Callable[..., Any]] = {}
    answer(lambda: actions.update(make(given)))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer(lambda action=actions[name], of=arguments: action(**of))


def resident(name: str) -> float:
    """MiB of this process: VmRSS now, or VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))
