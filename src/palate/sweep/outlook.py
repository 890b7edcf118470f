"""What a sweep would do and how long it would take, as far as what is done can tell."""

from collections.abc import Sequence

import torch

from palate.errors import ConfigError
from palate.sweep.plan import STAGES, Job, Plan
from palate.sweep.seconds import expected_seconds, seconds_of


def described(plan: Plan, jobs: int = 1) -> list[str]:
    """What a sweep would do, what is shared, what is done, and how long the rest takes."""
    threads = threads_of(jobs)
    left = plan.left()
    seeds = ", ".join(map(str, plan.seeds))
    lines = [
        f"{plan.folder}: {_counted(len(plan.settings), 'setting')} × "
        f"{_counted(len(plan.seeds), 'seed')} ({seeds}) = {_counted(len(plan.runs), 'run')}; "
        f"shared: {_counts(plan.jobs, ('prepare', 'sft'))}"
    ]
    for job in plan.jobs:
        is_begun = (plan.folder / job.name).exists()
        state = "to do" if job in left else "done" if plan.is_done(job) else "not needed"
        state = "begun" if state == "to do" and is_begun else state
        lines.append(f"  {state:<10} {job.name}{f'  from {job.needs}' if job.needs else ''}")
    if not left:
        return [*lines, "all is done"]
    lines.append(
        f"left: {_counts(left, ('prepare', 'sft', 'run'))}; {_time(plan, left, jobs, threads)}"
    )
    return lines


def threads_of(jobs: int) -> int:
    """How many threads each of some processes gets.

    Raises:
        ConfigError: there is no process.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs}: expected at least 1.")
    return max(1, torch.get_num_threads() // jobs)


def spoken(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _time(plan: Plan, left: Sequence[Job], jobs: int, threads: int) -> str:
    """How long the rest takes, as far as what is done can tell."""
    done = {job.name: seconds_of(plan.folder / job.name) for job in plan.jobs}
    ahead = [stage for job in left for stage in STAGES[job.kind] if stage not in done[job.name]]
    total, unknown = expected_seconds(ahead, done.values(), threads)
    if unknown:
        return (
            f"how long that takes can be said once each of {', '.join(sorted(unknown))} was "
            f"timed in this sweep with --jobs {jobs}"
        )
    at_once = min(jobs, len(left))
    return f"about {spoken(total / at_once)} with --jobs {jobs}, as long as those that are done"


def _counts(jobs: Sequence[Job], kinds: Sequence[str]) -> str:
    words = {"prepare": "preparation", "sft": "SFT", "run": "run"}
    numbers = {kind: sum(job.kind == kind for job in jobs) for kind in kinds}
    return ", ".join(_counted(number, words[kind]) for kind, number in numbers.items() if number)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
