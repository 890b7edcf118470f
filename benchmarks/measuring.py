"""What the benchmarks share: flags, turns, the line that says where and how it was measured."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_MMAP_THRESHOLD_": str(2**34)}
"""Environment in which freed memory is kept."""


def flags(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags of every benchmark: --quick and --json."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns; under two minutes")
    parser.add_argument("--json", type=Path, help="where to write the figures of every turn")
    return parser


def keep_freed_memory() -> None:
    """Start the script again with an allocator that keeps freed memory, unless it has one.

    The default one gives large blocks back to the system and takes them anew, which costs sides
    with large tensors more than others.
    """
    if any(os.environ.get(name) != value for name, value in KEEPING.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEPING})


def in_turn(
    sides: Mapping[str, Callable[[], Any]], turns: int, calls: int = 1
) -> dict[str, list[float]]:
    """Seconds of a call of each side, turn by turn, so that a slow moment meets them all.

    Args:
        sides: name → what is measured; each is called once beforehand.
        turns: figures of each side.
        calls: calls that a figure is the mean of.
    """
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(turns):
        for name, side in sides.items():
            began = time.perf_counter()
            for _ in range(calls):
                side()
            measured[name].append((time.perf_counter() - began) / calls)
    return measured


def publish(text: str, figures: Any, given: argparse.Namespace, name: str) -> None:
    """Print a result; write the figures where asked, and the table unless the run was quick."""
    print(text)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    if not given.quick:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text, "utf-8")


def conditions(*packages: str) -> str:
    """Machine, versions, threads, load, command and date, as the last lines of a result."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("palate", "torch", *packages))
    command = " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *_typed()])
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{machine()}; Python {platform.python_version()}, {versions}; {threads} OpenMP threads; "
        f"load average {os.getloadavg()[1]:.1f} (above the number of cores, times are not to be "
        f"trusted).\n`{command}`, {datetime.now(UTC):%Y-%m-%d}.\n"
    )


def _typed() -> list[str]:
    """The flags of the command, those that name a place left out."""
    kept: list[str] = []
    for word in sys.argv[1:]:
        kept = kept[:-1] if "/" in word else [*kept, word]
    return kept


def machine() -> str:
    """Processor, cores and memory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"
