"""Jobs divided among processes, each begun when what it needs is done."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

from palate.sweep.plan import Job

Told = Callable[[Job, str | None, list[str]], None]
"""Receives each finished job, what went wrong with it, and what it warned of."""


class Worker:
    """A process that does one job at a time.

    Args:
        threads: how many it computes with.
        held: a descriptor it keeps open as long as it lives.

    Attributes:
        ready: a descriptor that is readable when it has answered, or ended.
    """

    def __init__(self, threads: int, held: int) -> None:
        count = str(threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "palate.sweep.worker", count],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            pass_fds=(held,),
            start_new_session=True,  # an interrupt from the keyboard is the sweep's to handle
            env={
                **os.environ,
                "OMP_NUM_THREADS": count,
                "MKL_NUM_THREADS": count,
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        pipes: Any = self._process
        self._jobs: IO[str] = pipes.stdin
        self._answers: IO[str] = pipes.stdout
        self.ready = self._answers.fileno()

    def send(self, job: dict[str, Any]) -> None:
        """Give it a job."""
        with suppress(BrokenPipeError):  # it has died: its answer will say so
            self._jobs.write(json.dumps(job) + "\n")
            self._jobs.flush()

    def answer(self) -> dict[str, Any] | None:
        """Wait for what it says of its job; None if it has ended instead."""
        line = self._answers.readline()
        return json.loads(line) if line else None

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._close()

    def end(self) -> str:
        """How it ended by itself, in words."""
        code = self._close()
        if code == -signal.SIGKILL:
            return "by SIGKILL: the machine may have run out of memory; try fewer --jobs"
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"

    def _close(self) -> int:
        code = self._process.wait()
        for pipe in (self._jobs, self._answers):
            with suppress(BrokenPipeError):
                pipe.close()
        return code


def work_off(
    jobs: Sequence[Job], folder: Path, limit: int, threads: int, held: int, told: Told
) -> dict[str, str]:
    """Do jobs in processes of their own; one that fails holds up only those that need it.

    Args:
        jobs: what is to be done, each behind the one it needs; what is not among them is done.
        folder: of the sweep.
        limit: processes at a time.
        threads: of each process.
        held: a descriptor each process keeps open as long as it lives.
        told: hears of each job that is done or has failed.

    Returns:
        Name of a job → why it failed, or was not begun.
    """
    waiting, failed = list(jobs), {}
    undone = {job.name for job in jobs}
    running: dict[Worker, Job] = {}
    idle: list[Worker] = []
    try:
        while waiting or running:
            for job in list(waiting):
                if job.needs in failed:
                    failed[job.name] = f"not begun, as {job.needs} failed."
                    waiting.remove(job)
                    told(job, failed[job.name], [])
            ready = [job for job in waiting if job.needs not in undone]
            for job in ready[: limit - len(running)]:
                worker = idle.pop() if idle else Worker(threads, held)
                worker.send(_message(job, folder))
                running[worker] = job
                waiting.remove(job)
            answered = wait([worker.ready for worker in running]) if running else []
            for worker in [worker for worker in running if worker.ready in answered]:
                job, answer = running.pop(worker), worker.answer()
                undone.discard(job.name)
                if answer is None:
                    answer = {"error": f"its process ended {worker.end()}.", "warned": []}
                else:
                    idle.append(worker)
                if answer["error"] is not None:
                    failed[job.name] = answer["error"]
                told(job, answer["error"], answer["warned"])
    finally:
        for worker in (*running, *idle):
            worker.stop()
    return failed


def log_of(job: Job, folder: Path) -> Path:
    """What a job prints."""
    return folder / "logs" / f"{Path(job.name).name}.log"


def _message(job: Job, folder: Path) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "folder": str(folder / job.name),
        "source": str(folder / job.needs) if job.needs else None,
        "config": job.config.model_dump(mode="json"),
        "log": str(log_of(job, folder)),
    }
