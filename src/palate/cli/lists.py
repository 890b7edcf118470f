"""What leaves Palate: lists for users, rows for other trainers."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from palate.cli.terminal import Flag, app, quiet, say
from palate.errors import ConfigError, DataWarning


@app.command
def recommend(
    folder: Path,
    /,
    *,
    log: Path,
    out: Path,
    top: int = 10,
    columns: Annotated[list[str] | None, Parameter(negative="")] = None,
    stage: Literal["aligned", "sft", "sft_continued"] | None = None,
    allow: Annotated[list[str] | None, Parameter(negative="")] = None,
    block: Annotated[list[str] | None, Parameter(negative="")] = None,
    keep_seen: Flag = False,
    on_bad_rows: Literal["error", "drop"] = "error",
) -> None:
    """Rank the catalogue for everyone in a log, with a saved policy and no held-out answers.

    Somebody's list is the same whoever else is in the log. People of whom the policy knows no item
    get the most popular items of training; the column by says whose a list is.

    Examples:

      palate recommend runs/own-files --log examples/own-files/log.csv --out lists.csv
      --columns user_id=customer --columns item_id=sku --columns timestamp=when

      palate recommend runs/shop --log log.csv --out lists.csv --stage sft --block sold-out.txt

    Parameters
    ----------
    folder
        Run folder (its aligned policy, or sft where that is all), or a policy's own folder.
    log
        Interactions: .csv, .tsv or .parquet with user_id and item_id, in the ids of the data the
        policy was trained on; in order, or with a timestamp.
    out
        File for the lists, .csv or .parquet: user_id, rank, item_id, title, score (log π), by
        (policy or popularity).
    top
        Items in a list.
    columns
        Our name of a column and yours: --columns user_id=customer. May be given several times.
    stage
        Whose policy of a run folder. Default: aligned, or sft where that is all there is.
    allow
        Items that lists are made of: a file of item ids (one on each line, or .csv, .tsv or
        .parquet with a column item_id), or ids such as 12,15. May be given several times.
    block
        Items that no list holds; as allow.
    keep_seen
        Let lists hold what people have had.
    on_bad_rows
        drop leaves out rows of the log that cannot be read, and counts them.
    """
    quiet()
    import warnings

    from palate import recommend as serving

    serving.check_out(out, log)
    if top < 1:
        raise ConfigError(f"--top {top}: expected at least 1.")
    named: dict[str, str] = {}
    for pair in columns or []:
        ours, separator, theirs = pair.partition("=")
        if not separator:
            raise ConfigError(f"--columns {pair}: expected OURS=YOURS, such as user_id=customer.")
        named[ours] = theirs
    allowed = None if allow is None else serving.read_ids(allow, "--allow")
    blocked = serving.read_ids(block or [], "--block")
    served = serving.stage_of(folder, stage)
    policy = serving.policy_of(folder, served)
    if (against := serving.spoken_against(folder, served)) is not None:
        warnings.warn(against, DataWarning, stacklevel=2)
    lists = serving.recommend(
        policy,
        log,
        named,
        top,
        popularity=serving.popularity_of(folder, policy),
        allow=allowed,
        block=blocked,
        keep_seen=keep_seen,
        on_bad_rows=on_bad_rows,
        shown=serving.shown_events(folder),
    )
    serving.write_lists(lists, out)
    by = f" by {served}" if served else ""
    say(f"{lists['rank'].to_pylist().count(1):,} lists{by} in {out}")


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
