"""Pages for people."""

from pathlib import Path

from palate.cli.terminal import app, quiet, say


@app.command
def report(folder: Path, /, *, out: Path | None = None) -> None:
    """Write the page of an evaluated run or of a sweep anew, from its files alone.

    palate run and palate evaluate write that of a run themselves.

    Examples:

      palate report runs/a

      palate report runs/a --out a.html

    Parameters
    ----------
    folder
        Run folder that is evaluated, or folder of a sweep.
    out
        The page. Default: report.html in the folder.
    """
    quiet()
    from palate.report.page import write_report
    from palate.report.sweeping import write_sweep

    is_sweep = (folder / "sweep.json").is_file()
    say(f"report: {write_sweep(folder, out) if is_sweep else write_report(folder, out)}")
