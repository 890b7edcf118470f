"""What the sequence benchmark needs beside Palate: RecBole in an environment, data in its form."""

import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources.amazon import amazon

CACHE = Path("~/.cache/palate/benchmarks").expanduser()
PACKAGES = ("torch==2.13.0", "recbole==1.2.1", "numpy<2", "pandas<3")
NAME = "beauty"


def recbole_python(folder: Path) -> Path:
    """The interpreter of an environment with RecBole, made where there is none."""
    python = folder / "bin" / "python"
    asks = [str(python), "-c", "import recbole.trainer, torch; print(torch.__version__)"]
    if not python.is_file():
        print(f"making an environment with RecBole in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    found = subprocess.run(asks, capture_output=True, text=True, check=False)
    if found.returncode or not found.stdout.startswith("2.13.0"):
        sys.exit(
            f"{folder} is no environment with {' '.join(PACKAGES)} ({found.stdout.strip()} "
            f"{found.stderr.strip()[-300:]}). Remove it; it is made anew."
        )
    return python


def beauty(source: Path, folder: Path, users: int | None) -> Prepared:
    """Amazon Beauty as Palate has it, with the item before the test item held out for everyone,
    and beside it, in `beauty/beauty.inter`, the same log as RecBole has it.

    Args:
        source: the folder of amazon-beauty.
        folder: where to write.
        users: only the first so many; None for all.
    """
    tables = amazon(source)
    if users is not None:  # numbered from 1
        log = tables.interactions
        log = log.filter(log["user_id"].to_numpy() <= users)
        tables = replace(tables, interactions=log)
    prepare(tables, folder / "data", Preparation(k_core=1), seed=0)
    data = Prepared(folder / "data", window=1)
    _atomic_file(data, folder / NAME / f"{NAME}.inter")
    return data


def _atomic_file(data: Prepared, path: Path) -> None:
    """The prepared log in RecBole's form, in the ids of the source; places stand for times."""
    log = data.interactions
    user_ids, item_ids = data.truth_ids()
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as lines:
        lines.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for row, (user, item) in enumerate(zip(log.users, log.items, strict=True)):
            place = row - log.first_row[user]
            lines.write(f"{user_ids[user]}\t{item_ids[item]}\t{place}\n")
