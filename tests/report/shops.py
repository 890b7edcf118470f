"""Evaluated runs on a small shop whose titles try to break out of a page."""

from pathlib import Path
from typing import Any

import pyarrow.csv as pcsv

from palate.config import parse_config
from palate.data.simulator import Simulation
from palate.files import write_text
from palate.pipeline import run

HOSTILE = (
    "<script>window.broken = true</script>",
    "</script><!-- & the rest",
    "\"quoted\" 'twice' {{ 7 * 7 }}",
)
"""Titles of the first items, by popularity."""


def shop(folder: Path, **sections: dict[str, Any]) -> Path:
    """A run on two CSV files, with a sequence policy, made anew in a folder.

    Args:
        folder: its parent; the run is in `folder/run`.
        sections: parts of the configuration, laid over its sections.
    """
    world = Simulation(n_users=60, n_items=60, seed=4, visits=16)
    log, items = world.interactions(), world.items()
    counts = log["item_id"].value_counts().to_pylist()
    popular = [one["values"] for one in sorted(counts, key=lambda one: -one["counts"])]
    hostile = dict(zip(popular, HOSTILE, strict=False))
    titles = [
        hostile.get(item, title)
        for item, title in zip(
            items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True
        )
    ]
    folder.mkdir(parents=True, exist_ok=True)
    log = log.select(["user_id", "item_id", "timestamp", "rating"])
    pcsv.write_csv(log.filter(log["rating"].is_valid()), folder / "log.csv")
    rows = zip(items["item_id"].to_pylist(), titles, items["genre"].to_pylist(), strict=True)
    quoted = [
        f'{item},"{title.replace(chr(34), chr(34) * 2)}",{genre}' for item, title, genre in rows
    ]
    write_text("\n".join(["item_id,title,genre", *quoted]) + "\n", folder / "items.csv")
    content: dict[str, Any] = {
        "trackers": [],
        "data": {
            "source": "files",
            "path": str(folder / "log.csv"),
            "options": {"items": "items.csv"},
            "k_core": 2,
        },
        "policy": {"kind": "sequence", "sequence": {"hidden": 16, "inner": 16, "dropout": 0.1}},
        "sft": {"max_steps": 30, "batch_size": 8, "evaluations": 2, "learning_rate": 3e-3},
        "align": {
            "objective": "mult_dpo",
            "max_steps": 12,
            "batch_size": 8,
            "log_every": 2,
            "negatives": {"observed": 2, "uniform": 3},
        },
        "evaluation": {"validation_contexts": 20, "bootstrap": 100},
    }
    for name, section in sections.items():
        content[name] = {**content[name], **section}
    run(parse_config(content), folder / "run", say=lambda _line: None)
    return folder / "run"
