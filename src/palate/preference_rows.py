"""What a run aligns on, as rows for other trainers: prompt, chosen and rejected titles."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from palate.config import RunConfig
from palate.data.contexts import Context, ContextSet
from palate.data.prepared import Prepared
from palate.errors import ConfigError, DataError, DataWarning
from palate.evaluation.ranking import steps
from palate.files import replacing
from palate.negatives import Mixture, mixture
from palate.policies.language.prompters import new_prompter, saved_prompter, unlimited_prompter
from palate.policies.language.prompts import Prompter
from palate.run_folder import changed_config, prepared
from palate.training.holdout import split_training

Form = Literal["trl", "llamafactory"]
PROMPTS = "history"
"""What the rows of a run ask whose own policy reads no prompts."""
BLOCK = 256
"""Contexts between two steps of the progress bar."""


@dataclass(frozen=True)
class PreferenceRow:
    """One liked item of one context, by titles.

    Attributes:
        prompt: the text that the policy reads before a title, with its last line break; of a chat
            the user's message alone, without.
        chosen: the liked item.
        rejected: the drawn negatives, at least one, each once, none with the title of a liked one.
        level: preference level of the liked item.
    """

    prompt: str
    chosen: str
    rejected: list[str]
    level: int


@dataclass(frozen=True)
class Exported:
    """How much was written, and how many contexts were left out for want of a negative."""

    rows: int
    contexts: int
    left_out: int


def export(
    folder: Path,
    out: Path,
    split: str = "train",
    epoch: int = 0,
    form: Form = "trl",
    one_rejected: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write the preference rows of a run folder, one JSON object a line, whole or not at all.

    Args:
        folder: a run folder with prepared data; trained or not.
        out: the file, .jsonl.
        split: whose contexts: "train", "validation" or "test".
        epoch: whose draws: 0 gives the negatives of the first pass of alignment.
        form: the names of the keys: "trl" (prompt) or "llamafactory" (instruction, input).
        one_rejected: a row for each rejected title rather than a list of them.
        overwrite: replace a file.

    Raises:
        ConfigError: it is no run folder, or `out` is not to be written.
        DataError: no context of the split gets a negative.
    """
    check_out(out, overwrite)
    if epoch < 0:
        raise ConfigError(f"--epoch {epoch}: expected 0 for the first pass, or more.")
    config, _ = changed_config(folder, "sft")
    data = prepared(config, folder)
    options = config.align
    negatives = mixture(options.negatives, data, options.exclude_history, options.sampler_options)
    if negatives.live:
        raise ConfigError(
            f"align.negatives: of {', '.join(options.negatives)} some are drawn in training, from "
            "what the policy or the batch is then, and cannot be exported. Choose among uniform, "
            "popularity, observed and fixed."
        )
    prompter = prompter_of(folder, config, data)
    is_chat = prompter.chat is not None
    contexts = split_training(data, options.holdout)[1].contexts(split)
    graded = len(config.data.levels or ()) > 1 or bool((data.interactions.levels > 1).any())
    titles = [title.strip() for title in data.titles()]
    n_rows = n_contexts = 0
    try:
        with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for index in _all(contexts):
                found = rows_of(contexts[index], titles, prompter, negatives, (config.seed, epoch))
                n_contexts += bool(found)
                for row in found:
                    for record in records(row, form, one_rejected, graded, is_chat):
                        stream.write(json.dumps(record, ensure_ascii=False) + "\n")
                        n_rows += 1
            if n_rows == 0:
                raise DataError(
                    f"align.negatives: none of the {len(contexts)} contexts of the {split} split "
                    f"gets a negative from {', '.join(negatives.parts)}. Add uniform: 5, say, with "
                    "palate prepare CONFIG --set 'align.negatives={uniform: 5}' --out NEW."
                )
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror}).") from error
    left_out = len(contexts) - n_contexts
    if left_out:
        warnings.warn(
            DataWarning(
                f"align.negatives: {left_out:,} of {len(contexts):,} contexts get no negative and "
                "are left out."
            ),
            stacklevel=2,
        )
    return Exported(n_rows, n_contexts, left_out)


def rows_of(
    context: Context,
    titles: list[str],
    prompter: Prompter,
    negatives: Mixture,
    key: tuple[int, int],
) -> list[PreferenceRow]:
    """A row for each positive of a context, or none where it gets no negative.

    Args:
        context: the moment.
        titles: of each item.
        prompter: renders its prompt.
        negatives: what alignment draws from.
        key: (seed, epoch), as in alignment.
    """
    drawn = negatives.draw(context, key)
    item_ids = np.concatenate([context.positives, drawn])
    liked = [titles[item] for item in context.positives]
    # two items of one title are one to whoever reads titles
    named = dict.fromkeys(titles[item] for item in drawn)
    rejected = [title for title in named if title not in liked]
    if not rejected:
        return []
    shown = prompter.shown(context, item_ids)
    prompt = prompter.prompt_text(context.history, context.context_id, shown, context.text)
    levels = context.levels.tolist()
    return [
        PreferenceRow(prompt, title, rejected, level)
        for title, level in zip(liked, levels, strict=True)
    ]


def records(
    row: PreferenceRow, form: Form, one_rejected: bool, graded: bool, is_chat: bool = False
) -> Iterator[dict[str, Any]]:
    """A row as JSON objects: one, or one for each rejected title.

    Of a chat, TRL gets messages, around which it puts the model's chat template itself, as
    LLaMA-Factory does around any text.
    """
    says = _message if is_chat and form == "trl" else _text
    prompt: dict[str, Any] = {"instruction": row.prompt, "input": ""}
    if form == "trl":
        prompt = {"prompt": says("user", row.prompt)}
    level = {"level": row.level} if graded else {}
    chosen, every = says("assistant", row.chosen), [says("assistant", t) for t in row.rejected]
    for rejected in every if one_rejected else [every]:
        yield {**prompt, "chosen": chosen, "rejected": rejected, **level}


def _text(_role: str, words: str) -> str:
    return words


def _message(role: str, words: str) -> list[dict[str, str]]:
    return [{"role": role, "content": words}]


def prompter_of(folder: Path, config: RunConfig, data: Prepared) -> Prompter:
    """What renders the prompts of a run.

    That of the trained policy where there is one, else that of the policy it will start with. A
    sequence policy reads no prompts: its histories become titles under the prompts `history`,
    none of them cut.
    """
    chosen = config.policy
    if chosen.kind == "language":
        for stage in ("aligned", "sft"):
            if (folder / stage / "palate.json").is_file():
                return saved_prompter(folder / stage)
        base = chosen.base or "tiny"
        prompts, history = chosen.prompts, chosen.history
        return new_prompter(base, data.items, prompts, history, config.seed, chosen.chat)
    return unlimited_prompter(data.items, PROMPTS, chosen.history, config.seed)


def check_out(out: Path, overwrite: bool) -> None:
    """Raise a ConfigError for a name without .jsonl, a folder, or a file not to be replaced."""
    if out.suffix != ".jsonl":
        raise ConfigError(f"--out {out}: expected a name that ends in .jsonl.")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; choose another name.")
    if out.exists() and not overwrite:
        raise ConfigError(
            f"--out {out} exists already. Add --overwrite to replace it, or choose another name."
        )


def _all(contexts: ContextSet) -> Iterator[int]:
    """Indices of all contexts, under a progress bar."""
    for start in steps(len(contexts), BLOCK, "export"):
        yield from range(start, min(start + BLOCK, len(contexts)))
