"""Runs against each other."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from palate.cli.terminal import app, console, quiet, say


@app.command
def compare(
    runs: list[Path],
    /,
    *,
    metric: Annotated[list[str] | None, Parameter(negative="")] = None,
    protocol: Annotated[list[str] | None, Parameter(negative="")] = None,
    stage: Annotated[list[str] | None, Parameter(negative="")] = None,
    baseline: Path | None = None,
    json: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> None:
    """Compare evaluated runs, or stages of one: differences by user, by slice, over seeds.

    Runs that differ by the seed alone are pooled. p-values are corrected for all comparisons of
    the call (Holm).

    Examples:

      palate compare runs/a runs/b

      palate compare runs/dpo-1 runs/dpo-2 runs/s_dpo-1 runs/s_dpo-2 --metric ndcg@10 --metric hr@1

      palate compare runs/a --stage sft --stage aligned --protocol candidates --out compare.html

    Parameters
    ----------
    runs
        Evaluated run folders.
    metric
        hr, recall, ndcg, ndcg_graded, mrr or map @K. Default: ndcg@10. May be given several times.
    protocol
        catalogue or candidates. Default: the first that all runs have. May be given several times.
    stage
        Default: aligned. May be given several times; of one run, the others are compared with the
        first.
    baseline
        Run that the others are compared with. Default: the first.
    json
        File for everything found.
    out
        File for a page with charts, .html.
    seed
        Names the draws of intervals and tests.
    """
    quiet()
    from palate.comparison import compare as compare_runs
    from palate.comparison import rich_report
    from palate.files import write_json

    found = compare_runs(
        runs, metric, baseline, protocol, stage or ["aligned"], seed=seed, show_progress=True
    )
    if json is not None:
        write_json(found.to_json(), json)
    console.print(rich_report(found))
    if out is not None:
        from palate.report.comparing import comparison_page
        from palate.report.page import write_page

        write_page(comparison_page(found), out)
        say(f"page: {out}")
