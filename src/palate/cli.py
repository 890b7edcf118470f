"""The command line: commands, flags and exit codes, nothing else.

Exit codes: 0 done, 1 a leak was found with --strict, 2 the input or a flag is wrong (one sentence
says what), 130 interrupted.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

import palate
from palate.errors import ConfigError, DataWarning, PalateError

Changes = Annotated[list[str] | None, Parameter(name="--set", negative="")]
console = Console()
app = App(
    name="palate",
    help="Align a recommender with what people prefer, and prove user by user what got better.",
    help_epilogue="Start with: palate run examples/demo.yaml",
    version=palate.__version__,
    help_format="plaintext",
)


@app.command
def run(
    config: Path,
    /,
    *,
    out: Path | None = None,
    changes: Changes = None,
    seed: int | None = None,
    device: str | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    print_config: Annotated[bool, Parameter(negative="")] = False,
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
        import yaml

        console.out(yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False), end="")
        return
    if resume and overwrite:
        raise PalateError("--resume and --overwrite contradict each other; choose one.")
    _quiet()
    from palate.pipeline import run as run_road

    folder = out or Path("runs") / config.stem
    _show(run_road(checked, folder, resume, overwrite, say=_say), folder)


@app.command
def prepare(
    config: Path,
    /,
    *,
    out: Path | None = None,
    changes: Changes = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
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
    _quiet()
    from palate.pipeline import run as run_road

    folder = out or Path("runs") / config.stem
    run_road(checked, folder, resume, overwrite, say=_say, until="prepare")
    _say(f"run folder: {folder}; next: palate sft {folder}")


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


@app.command
def recommend(
    folder: Path,
    /,
    *,
    log: Path,
    out: Path,
    top: int = 10,
    columns: Annotated[list[str] | None, Parameter(negative="")] = None,
) -> None:
    """Rank the catalogue for everyone in a log, with a saved policy and no held-out answers.

    Example:

      palate recommend runs/own-files --log examples/own-files/log.csv --out lists.csv
      --columns user_id=customer --columns item_id=sku --columns timestamp=when

    Parameters
    ----------
    folder
        Run folder (its aligned policy, or sft where that is all), or a policy's own folder.
    log
        Interactions: .csv, .tsv or .parquet with user_id and item_id, in the ids of the data the
        policy was trained on; in order, or with a timestamp.
    out
        File for the lists, .csv or .parquet: user_id, rank, item_id, title, score.
    top
        Items in a list.
    columns
        Our name of a column and yours: --columns user_id=customer. May be given several times.
    """
    _quiet()
    from palate.recommend import check_out, policy_of, write_lists
    from palate.recommend import recommend as lists_for

    check_out(out)
    if top < 1:
        raise ConfigError(f"--top {top}: expected at least 1.")
    named: dict[str, str] = {}
    for pair in columns or []:
        ours, separator, theirs = pair.partition("=")
        if not separator:
            raise ConfigError(f"--columns {pair}: expected OURS=YOURS, such as user_id=customer.")
        named[ours] = theirs
    lists = lists_for(policy_of(folder), log, named, top)
    write_lists(lists, out)
    _say(f"{len(set(lists['user_id'].to_pylist())):,} lists in {out}")


@app.command
def export(
    folder: Path,
    /,
    *,
    out: Path,
    split: Literal["train", "validation", "test"] = "train",
    epoch: int = 0,
    form: Literal["trl", "llamafactory"] = "trl",
    one_rejected: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write what a run aligns on as rows for other trainers: prompt, chosen, rejected.

    Examples:

      palate export runs/a --out rows.jsonl

      palate export runs/a --out pairs.jsonl --one-rejected --form llamafactory

      palate export runs/a --out test.jsonl --split test

    Parameters
    ----------
    folder
        Run folder that holds prepared data, trained or not.
    out
        File for the rows, .jsonl.
    split
        Whose contexts to write.
    epoch
        Which pass of alignment the negatives are drawn for; 0 is the first.
    form
        Names of the keys: prompt for TRL, instruction and input for LLaMA-Factory.
    one_rejected
        A row for each rejected title, as both read them; otherwise rejected is a list.
    overwrite
        Replace the file.
    """
    _quiet()
    from palate.preference_rows import export as write_rows

    done = write_rows(folder, out, split, epoch, form, one_rejected, overwrite)
    _say(f"{done.rows:,} rows of {done.contexts:,} contexts in {out}")


@app.command
def audit(
    path: Path,
    /,
    *,
    source: str | None = None,
    option: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: Path | None = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
) -> None:
    """Probe data or candidate lists for leaks and shortcuts, without a model.

    Examples:

      palate audit runs/a

      palate audit lastfm --json audit.json

      palate audit test.jsonl --option items=items.tsv --strict

      palate audit log.csv --source files

    Parameters
    ----------
    path
        Run folder, prepared data, candidate files, or with --source what a source reads.
    source
        Source that reads the path; palate sources lists them. Default: told from the path.
    option
        An option of the source: --option windows=llara. May be given several times.
    json
        File for all findings.
    strict
        Exit with code 1 if anything leaks.
    seed
        Names the lists drawn for comparison.
    """
    _quiet()
    from palate.audit import audit as probe
    from palate.audit import read_assignments, rich_report
    from palate.files import write_json

    found = probe(path, source, read_assignments(option or []), seed)
    if json is not None:
        write_json(found.to_json(), json)
    console.print(rich_report(found))
    if strict and found.verdict == "leak":
        sys.exit(1)


@app.command
def sources() -> None:
    """List the sources of data and their options.

    Example:

      palate sources
    """
    import inspect

    from palate.data.sources import key_of, source_options
    from palate.data.sources import sources as all_sources

    for name, source in sorted(all_sources().items()):
        first_line = (inspect.getdoc(source) or "").split("\n")[0]
        console.out(f"{name}: {first_line}")
        for option, parameter in source_options(name).items():
            needed = parameter.default is inspect.Parameter.empty
            where = key_of(option)
            console.out(f"  {where} {'(needed)' if needed else f'= {parameter.default}'}")


@app.command
def doctor() -> None:
    """Say what is installed, which devices there are, and what will be used.

    Example:

      palate doctor
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from palate.environment import device_of
    from palate.run_folder import VERSIONS

    console.out(f"python {platform.python_version()} on {platform.platform()}")
    for name in (*VERSIONS, "accelerate", "tensorboard"):
        try:
            console.out(f"{name} {version(name)}")
        except PackageNotFoundError:
            console.out(f"{name} MISSING; reinstall with: pip install palate")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    console.out(f"cpu: {cores} cores, torch uses {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        console.out(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    console.out(f"device auto means {device_of('auto')}")


def main() -> None:
    """Entry point: turns errors of the input into one sentence and exit code 2."""
    try:
        app(exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(f"{error} See palate --help.")
    except PalateError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; a run that had its data goes on with --resume")
        sys.exit(130)


def _stage(
    stage: Literal["sft", "align", "evaluate"],
    folder: Path,
    out: Path | None,
    changes: list[str] | None,
    following: str,
) -> None:
    _quiet()
    from palate.pipeline import go_on

    metrics = go_on(folder, stage, changes or [], out, _say)
    folder = out or folder
    if metrics:
        _show(metrics, folder)
    else:
        _say(f"run folder: {folder}; next: {following.format(folder)}")


def _show(metrics: dict[str, Any], folder: Path) -> None:
    """The table of a finished run, on the terminal and in the folder."""
    from palate.config import load_config
    from palate.files import write_text
    from palate.report.table import markdown_table, rich_table

    size = load_config(folder / "config.yaml").evaluation.candidates
    write_text(markdown_table(metrics, size), folder / "table.md")
    console.print(rich_table(metrics, size))
    _say(f"run folder: {folder}")


def _fail(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"palate: {message}", markup=False)
    sys.exit(2)


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _quiet() -> None:
    """Keep the libraries' own bars and notices out of ours."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import warnings

    from huggingface_hub.utils.logging import set_verbosity_error
    from transformers.utils import logging

    set_verbosity_error()
    warnings.showwarning = _show_warning

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Palate's own warnings as one line; the libraries' go to their developers, not to users."""
    if issubclass(category, DataWarning):
        Console(stderr=True, soft_wrap=True).print(f"warning: {message}", markup=False)


if __name__ == "__main__":
    main()
