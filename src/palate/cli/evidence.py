"""Whether data and results can be trusted."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from palate.cli.terminal import Changes, Flag, app, console, quiet


@app.command
def audit(
    path: Path,
    /,
    *,
    source: str | None = None,
    option: Annotated[list[str] | None, Parameter(negative="")] = None,
    changes: Changes = None,
    json: Path | None = None,
    strict: Flag = False,
    seed: int = 0,
) -> None:
    """Probe data or candidate lists for leaks and shortcuts, without a model.

    Examples:

      palate audit runs/a

      palate audit lastfm --json audit.json

      palate audit test.jsonl --option items=items.tsv --strict

      palate audit log.csv --source files --set data.split=by_user

    Parameters
    ----------
    path
        Run folder, prepared data, candidate files, or with --source what a source reads.
    source
        Source that reads the path; palate sources lists them. Default: told from the path.
    option
        An option of the source: --option windows=llara. May be given several times.
    changes
        Key of the data section of a configuration, where files are not prepared yet:
        --set data.split=by_user. May be given several times; --option windows=llara is short for
        --set data.options.windows=llara.
    json
        File for all findings.
    strict
        Exit with code 1 if anything leaks.
    seed
        Names the lists drawn for comparison.
    """
    quiet()
    from palate.audit import audit as probe
    from palate.audit import read_assignments, rich_report
    from palate.files import write_json

    found = probe(path, source, read_assignments(option or []), seed, changes or [])
    if json is not None:
        write_json(found.to_json(), json)
    console.print(rich_report(found))
    if strict and found.verdict == "leak":
        sys.exit(1)
