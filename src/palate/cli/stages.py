"""The road from log to table, whole or a stage at a time."""

from pathlib import Path
from typing import Any, Literal

from palate.cli.terminal import Changes, Flag, app, console, quiet, say
from palate.errors import PalateError


@app.command
def run(
    config: Path,
    /,
    *,
    out: Path | None = None,
    changes: Changes = None,
    seed: int | None = None,
    device: str | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    print_config: Flag = False,
) -> None:
    """Run the whole road: prepare, sft, align, evaluate; ends with a table.

    Examples:

      palate run examples/demo.yaml

      palate run examples/demo.yaml --set align.objective=mult_dpo --set align.beta=0.5 --out runs/b

      palate run examples/movielens.yaml --resume

    Parameters
    ----------
    config
        YAML file; every key is optional. See --print-config for all keys and their values.
    out
        Run folder. Default: runs/NAME, after the configuration's file name.
    changes
        Change one key: --set align.beta=0.5. May be given several times.
    seed
        Short for --set seed=N.
    device
        Short for --set device=…: auto, cpu or cuda.
    resume
        Go on with a run that was stopped.
    overwrite
        Delete the run folder and start anew.
    print_config
        Print the whole configuration and stop.
    """
    from palate.config import load_config

    shorthand = {"seed": seed, "device": device}
    short = [f"{key}={value}" for key, value in shorthand.items() if value is not None]
    checked = load_config(config, [*(changes or []), *short])
    if print_config:
        from palate.config.yaml_text import write_yaml

        console.out(write_yaml(checked.model_dump(mode="json")), end="")
        return
    if resume and overwrite:
        raise PalateError("--resume and --overwrite contradict each other; choose one.")
    quiet()
    from palate.pipeline import run as run_road

    folder = out or Path("runs") / config.stem
    _show(run_road(checked, folder, resume, overwrite, say=say), folder)


@app.command
def prepare(
    config: Path,
    /,
    *,
    out: Path | None = None,
    changes: Changes = None,
    resume: Flag = False,
    overwrite: Flag = False,
) -> None:
    """Make a run folder with prepared data: the first stage of a run.

    Example:

      palate prepare examples/demo.yaml --out runs/a

    Parameters
    ----------
    config
        YAML file; every key is optional.
    out
        Run folder. Default: runs/NAME, after the configuration's file name.
    changes
        Change one key: --set data.k_core=10. May be given several times.
    resume
        Go on in a folder whose preparation was stopped.
    overwrite
        Delete the run folder and start anew.
    """
    from palate.config import load_config

    checked = load_config(config, changes)
    quiet()
    from palate.pipeline import run as run_road

    folder = out or Path("runs") / config.stem
    run_road(checked, folder, resume, overwrite, say=say, until="prepare")
    say(f"run folder: {folder}; next: palate sft {folder}")


@app.command
def sft(folder: Path, /, *, out: Path | None = None, changes: Changes = None) -> None:
    """Imitate the log, in a run folder that holds prepared data.

    Examples:

      palate sft runs/a

      palate sft runs/a --set policy.kind=sequence --out runs/sequence

    Parameters
    ----------
    folder
        Run folder. A stage that was stopped goes on where it was.
    out
        Leave the folder as it is and go on in this new one.
    changes
        Change one key on which no finished stage depends. May be given several times.
    """
    _stage("sft", folder, out, changes, "palate align {0} or palate evaluate {0}")


@app.command
def align(folder: Path, /, *, out: Path | None = None, changes: Changes = None) -> None:
    """Align the imitating policy of a run folder, and imitate on for comparison.

    Examples:

      palate align runs/a

      palate align runs/a --set align.objective=mult_dpo --set align.beta=0.5 --out runs/b

    Parameters
    ----------
    folder
        Run folder with a policy in sft/. A stage that was stopped goes on where it was.
    out
        Leave the folder as it is and go on in this new one.
    changes
        Change one key on which no finished stage depends. May be given several times.
    """
    _stage("align", folder, out, changes, "palate evaluate {0}")


@app.command
def evaluate(folder: Path, /, *, out: Path | None = None, changes: Changes = None) -> None:
    """Rank the test contexts with every policy of a run folder; ends with a table.

    Examples:

      palate evaluate runs/a

      palate evaluate runs/a --set evaluation.exclude_history=false --out runs/seen

    Parameters
    ----------
    folder
        Run folder with a policy in sft/, and in aligned/ unless imitation is all there is.
    out
        Leave the folder as it is and write the results to this new one.
    changes
        Change one key on which no finished stage depends. May be given several times.
    """
    _stage("evaluate", folder, out, changes, "")


def _stage(
    stage: Literal["sft", "align", "evaluate"],
    folder: Path,
    out: Path | None,
    changes: list[str] | None,
    following: str,
) -> None:
    quiet()
    from palate.pipeline import go_on

    metrics = go_on(folder, stage, changes or [], out, say)
    folder = out or folder
    if metrics:
        _show(metrics, folder)
    else:
        say(f"run folder: {folder}; next: {following.format(folder)}")


def _show(metrics: dict[str, Any], folder: Path) -> None:
    """What people read of a finished run: its table, what leaks beside it, and its report."""
    from palate.audit import beside_results, read_audit
    from palate.config import load_config
    from palate.files import write_text
    from palate.report.page import write_report
    from palate.report.table import markdown_table, rich_table

    size = load_config(folder / "config.yaml").evaluation.candidates
    audited = read_audit(folder)
    leaks = beside_results(audited) if audited else ""
    write_text(markdown_table(metrics, size) + (leaks and f"\n{leaks}\n"), folder / "table.md")
    console.print(rich_table(metrics, size))
    if leaks:
        say(leaks)
    say(f"run folder: {folder}")
    say(f"report: {write_report(folder)}")
