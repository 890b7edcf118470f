"""Grids of runs."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from palate.cli.terminal import Changes, Flag, app, console, quiet, say


@app.command
def sweep(
    config: Path,
    /,
    *,
    over: Annotated[list[str] | None, Parameter(negative="")] = None,
    seeds: int = 1,
    out: Path | None = None,
    jobs: int = 1,
    changes: Changes = None,
    metric: Annotated[list[str] | None, Parameter(negative="")] = None,
    plan: Flag = False,
) -> None:
    """Run a grid of configurations with several seeds; ends with one table.

    Runs that agree on it share a preparation and an SFT. The same command goes on where a sweep
    was stopped; with further values or seeds it runs only what is new. Exit code 1 if runs failed.

    Examples:

      palate sweep examples/demo.yaml --over align.objective=dpo,s_dpo,mult_dpo --seeds 3 --plan

      palate sweep examples/demo.yaml --over align.objective=dpo,s_dpo,mult_dpo --seeds 3 --jobs 2

      palate sweep examples/demo.yaml --over 'align.negatives={uniform: 9},{observed: 9}'

    Parameters
    ----------
    config
        YAML file; every key is optional.
    over
        A key and its values: --over align.beta=0.5,1. May be given several times: all combinations
        are run. Commas within brackets or quotes separate nothing.
    seeds
        How many seeds each combination is run with, from that of the configuration on.
    out
        Folder of the sweep. Default: sweeps/NAME, after the configuration's file name.
    jobs
        Runs at a time, each in a process of its own; they divide the threads among them.
    changes
        Change one key in all runs: --set align.max_steps=100. May be given several times.
    metric
        Of a ranking, for the table: --metric hr@1. May be given several times. Default: ndcg@10.
    plan
        Print what would run, what is shared, what is done and how long the rest takes; then stop.
    """
    quiet()
    from palate.report.sweeping import write_sweep
    from palate.sweep import described, folder_of, plan_sweep, read_over, rich_tables
    from palate.sweep import sweep as run_sweep

    grid = read_over(over or [])
    if plan:
        planned = plan_sweep(config, grid, seeds, folder_of(config, out), changes or [])
        for line in described(planned, jobs):
            say(line)
        return
    metrics = [name.lower() for name in metric or ["ndcg@10"]]
    above_the_bar = partial(print, flush=True)  # where rich puts what is printed, but not say's
    try:
        swept = run_sweep(config, grid, seeds, out, jobs, changes or [], metrics, above_the_bar)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
    for table in rich_tables(swept.table):
        console.print(table)
    if swept.table["runs"]:
        say(f"report: {write_sweep(swept.folder)}")
    say(f"sweep: {swept.folder}; its table: {swept.folder}/table.md, table.csv, table.json")
    if swept.failed:
        runs = sum(name.startswith("runs/") for name in swept.failed)
        say(f"failed or not begun: {runs} of the runs; the same command tries them again")
        sys.exit(1)
