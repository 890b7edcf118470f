"""What leaves Palate: lists for users, rows for other trainers."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from palate.cli.terminal import Flag, app, quiet, say
from palate.errors import ConfigError


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
    quiet()
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
    say(f"{len(set(lists['user_id'].to_pylist())):,} lists in {out}")


@app.command
def export(
    folder: Path,
    /,
    *,
    out: Path,
    split: Literal["train", "validation", "test"] = "train",
    epoch: int = 0,
    form: Literal["trl", "llamafactory"] = "trl",
    one_rejected: Flag = False,
    overwrite: Flag = False,
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
    quiet()
    from palate.preference_rows import export as write_rows

    done = write_rows(folder, out, split, epoch, form, one_rejected, overwrite)
    say(f"{done.rows:,} rows of {done.contexts:,} contexts in {out}")
