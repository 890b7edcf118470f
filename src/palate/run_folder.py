"""Who owns a run folder, and which of its stages may still be changed."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from palate.config import RunConfig, load_config
from palate.config.yaml_text import read_yaml, write_yaml
from palate.data.prepared import Prepared
from palate.errors import ConfigError
from palate.files import link_or_copy, replacing, write_text

VERSIONS = (
    "palate",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "numpy",
    "duckdb",
    "narwhals",
)
MARK = "# A run of Palate. "
"""First line of a run folder's `config.yaml`; nothing else is ever deleted."""
STAGES = ("prepare", "sft", "align", "evaluate")
RESULT = {"prepare": "data.json", "sft": "sft", "align": "aligned"}
"""What a finished stage leaves in the run folder."""
RESULTS = (
    "metrics.json",
    "ranks.parquet",
    "generations.parquet",
    "candidates.parquet",
    "audit.json",
    "examples.parquet",
    "table.md",
    "report.html",
)
"""What an evaluation leaves; without the first of them it is not finished."""
VALIDATION = ("evaluation.exclude_history", "evaluation.validation_contexts")
DEPENDS_ON = {
    "prepare": ("seed", "data."),
    "sft": ("policy.", "sft.", "align.holdout", *VALIDATION),
    "align": ("align.", *VALIDATION),
    "evaluate": ("evaluation.",),
}
"""Beginnings of the keys that a stage's result depends on."""
FREE_TO_CHANGE = {
    "device",
    "trackers",
    "sft.workers",
    "align.workers",
    "align.reference_cache",
    "align.reference_pairs",
    "align.reference_ahead",
}
"""Keys on which no number of a run depends."""


@contextmanager
def claimed(config: RunConfig, folder: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make a run folder ours while its data is prepared; undo that if preparing fails.

    Raises:
        ConfigError: the folder holds something else, a run that neither flag allows to touch, or
            a run of another configuration.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a folder with --out.")
    ours = is_run(folder)
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ConfigError(
            f"{folder} is not empty and not a run folder, so it is left alone. Choose another "
            "with --out."
        )
    if ours and not (resume or overwrite):
        raise ConfigError(
            f"{folder} already holds a run. Add --resume to go on with it, --overwrite to start "
            "anew, or choose another folder with --out."
        )
    if ours and resume:
        _check_same(config, folder)
        for debris in folder.glob(".*.part"):
            shutil.rmtree(debris) if debris.is_dir() else debris.unlink()
        yield
        return
    here = Path.cwd()
    if ours and folder.resolve() in (here, *here.parents):
        raise ConfigError(
            f"--overwrite would delete {folder}, in which this command is run. Go to another "
            "folder first."
        )
    was_there = folder.is_dir()
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if ours:
        folder.rename(aside)
    try:
        write_config(config, folder)
        yield
    except BaseException:  # an interrupt too: put back what was there, then let it rise
        if was_there and not ours:  # an empty folder of the user's, perhaps the one they are in
            for made in folder.iterdir():
                shutil.rmtree(made) if made.is_dir() else made.unlink()
            raise
        shutil.rmtree(folder, ignore_errors=True)
        if ours:
            aside.rename(folder)
        raise
    if ours:
        shutil.rmtree(aside)


def write_config(config: RunConfig, folder: Path) -> None:
    """Write `config.yaml`: everything the run depends on, and the versions it is made with."""
    numbers = {name: version(name) for name in VERSIONS} | {"python": platform.python_version()}
    made_with = ", ".join(f"{name} {number}" for name, number in numbers.items())
    content = write_yaml(config.model_dump(mode="json"))
    write_text(f"{MARK}{made_with}\n{content}", folder / "config.yaml")


def changed_config(
    folder: Path, stage: str, changes: Sequence[str] = (), anew: bool = False
) -> tuple[RunConfig, bool]:
    """The configuration of a run folder, with changes that its finished stages allow.

    Args:
        folder: a run folder that holds the stage before.
        stage: "sft", "align" or "evaluate".
        changes: such as "align.beta=0.5".
        anew: whether the stage will run in another folder, and may so be changed though done.

    Returns:
        The configuration, and whether what the stage itself depends on has changed.

    Raises:
        ConfigError: no run, the stage before is missing, or a change comes too late.
    """
    if not is_run(folder):
        raise ConfigError(
            f"{folder} is not a run folder. Make one with: palate prepare CONFIG --out {folder}."
        )
    earlier = STAGES[STAGES.index(stage) - 1] if stage != "evaluate" else "sft"
    if not (folder / RESULT[earlier]).exists():
        command = "prepare CONFIG --out" if earlier == "prepare" else earlier
        raise ConfigError(f"{folder} has no {RESULT[earlier]}. First: palate {command} {folder}.")
    config = load_config(folder / "config.yaml", list(changes))
    before = load_config(folder / "config.yaml")
    changed = changed_keys(before.model_dump(mode="json"), config.model_dump(mode="json"))
    done = [name for name in STAGES if name in RESULT and (folder / RESULT[name]).exists()]
    if anew:
        done = [name for name in done if STAGES.index(name) < STAGES.index(stage)]
    for key in changed:
        if anew and stage == "evaluate" and key.startswith(DEPENDS_ON[stage]):
            continue  # the policies stay what they are, and are looked at in another way
        for finished in done:
            if key.startswith(DEPENDS_ON[finished]):
                again = stage if key.startswith("evaluation.") else finished
                raise ConfigError(
                    f"{key}: {folder}/{RESULT[finished]} was made with another value. Go on in a "
                    f"new folder: palate {again} {folder} --set {key}=… --out NEW."
                    if finished != "prepare"
                    else f"{key}: {folder}/data was made with another value. Prepare anew: palate "
                    "prepare CONFIG --out NEW."
                )
    return config, any(key.startswith(DEPENDS_ON[stage]) for key in changed)


def prepared(config: RunConfig, folder: Path) -> Prepared:
    """The prepared data of a run folder."""
    return Prepared(folder / "data", window_of(config), config.data.min_history)


def window_of(config: RunConfig) -> int:
    """Interactions among which a context's positives lie; 1 for the next item."""
    return 1 if config.data.positives == "next" else config.data.window


def branch(
    folder: Path, out: Path, stage: str, config: RunConfig | None = None, link: bool = False
) -> None:
    """Copy what the stages before `stage` left in a run folder to a new one.

    Args:
        folder: a run folder.
        out: the new one.
        stage: the first stage that is not copied.
        config: configuration of the new one; by default that of the other.
        link: give data and policies a second name instead of a copy; nothing in them is ever
            written in place.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another folder with --out.")
    names = ["config.yaml", "data", "data.json", "train.jsonl"]
    names += ["sft"] if stage != "sft" else []
    names += ["aligned", "sft_continued"] if stage == "evaluate" else []
    with replacing(out) as temporary:
        temporary.mkdir()
        for name in names:
            if (folder / name).is_dir():
                copy = link_or_copy if link else shutil.copy2
                shutil.copytree(folder / name, temporary / name, copy_function=copy)
            elif (folder / name).is_file():
                shutil.copy2(folder / name, temporary / name)
        if config is not None:
            write_config(config, temporary)


def forget_evaluation(folder: Path) -> None:
    """Remove the results of a finished evaluation, so that it is made anew."""
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    for name in ("ranks", "generations"):
        shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)


def is_run(folder: Path) -> bool:
    """Whether a folder is one that Palate made for a run."""
    written = folder / "config.yaml"
    if not written.is_file():
        return False
    with written.open("rb") as stream:  # somebody else's may be in any encoding
        return stream.read(len(MARK)) == MARK.encode()


def _check_same(config: RunConfig, folder: Path) -> None:
    before = read_yaml((folder / "config.yaml").read_text("utf-8"))
    if changed := changed_keys(before, config.model_dump(mode="json")):
        raise ConfigError(
            f"{folder} holds a run with another configuration ({', '.join(changed)}). Use "
            "--overwrite, or another folder with --out."
        )


def changed_keys(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Keys in which two configurations differ, those aside on which no number depends."""
    return [key for key in _changed(before, after) if key not in FREE_TO_CHANGE]


def _changed(before: Any, after: Any, prefix: str = "") -> list[str]:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [prefix]
    keys = [*before, *(key for key in after if key not in before)]
    return [
        name
        for key in keys
        for name in _changed(before.get(key), after.get(key), f"{prefix}.{key}".lstrip("."))
    ]
