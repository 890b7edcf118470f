"""The prompts of a policy without its weights: from its folder, or before it is made."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoConfig

from palate.data.contexts import ContextSet
from palate.errors import CheckpointError, DataWarning
from palate.loading import DAMAGE, first_line
from palate.policies.language.base_models import base_of, check_kind
from palate.policies.language.chat import Chat, chat_of
from palate.policies.language.from_scratch import MAX_TOKENS, SIZES, train_tokenizer
from palate.policies.language.prompts import Prompter, Template, parse_templates, read_templates
from palate.policies.language.titles import (
    names_of,
    titles_of,
    warning_of_alike,
    warning_of_renamed,
)
from palate.policies.language.weights import read_tokenizer
from palate.policies.settings import read_settings

NO_LIMIT = 2**31


def prompter_for(
    tokenizer: Any,
    items: pa.Table | None,
    prompts: str,
    max_history: int,
    limit: int,
    seed: int,
    chat: Chat | None = None,
    vocabulary: int | None = None,
) -> Prompter:
    """A prompter that leaves room for the longest title behind every prompt.

    Args:
        tokenizer: a Hugging Face tokenizer with an end token.
        items: the catalogue with a `title` column; None for no titles.
        prompts: text of a prompt file.
        max_history: most recent items a prompt may hold.
        limit: tokens the model reads.
        seed: names the choice of templates.
        chat: what a chat template puts around prompts; None for none.
        vocabulary: tokens that the model has embeddings of; None where there is no model.

    Raises:
        DataError: titles are no texts, or become no tokens, or tokens that the model lacks.
        ConfigError: the model lacks the begin or the end token.
    """
    titles, names = ([], []) if items is None else (titles_of(items), names_of(items))
    templates = parse_templates(prompts, "prompts")
    prompter = Prompter(
        tokenizer,
        templates,
        titles,
        max_history,
        limit,
        seed=seed,
        chat=chat,
        names=names,
        vocabulary=vocabulary,
    )
    prompter.max_tokens -= max((len(tokens) for tokens in prompter.title_tokens), default=0)
    return prompter


def warn_of_titles(prompter: Prompter, items: pa.Table | None) -> None:
    """Say which items' titles became no token, and which became the same tokens."""
    if items is None:
        return
    titles, names = titles_of(items), names_of(items)
    said = [
        warning_of_renamed(prompter.renamed, titles, names),
        warning_of_alike(prompter.title_tokens, titles, names, prompter.max_title_tokens),
    ]
    for text in filter(None, said):
        warnings.warn(text, DataWarning, stacklevel=2)


def saved_prompter(folder: Path) -> Prompter:
    """The prompter of a language policy that Palate saved; its weights are not read.

    Raises:
        CheckpointError: something that prompts need is missing from the folder.
    """
    settings, items, text = read_saved(folder)
    base = settings.get("base", ".")
    place = base if settings.get("quantized", False) else str(folder / base)
    tokenizer, limit = _pretrained(place, str(folder))
    history, seed, chat = settings["max_history"], settings["seed"], saved_chat(settings)
    return prompter_for(tokenizer, items, text, history, limit, seed, chat)


def new_prompter(
    base: str,
    items: pa.Table,
    prompts: str,
    max_history: int,
    seed: int,
    chat: bool | None = None,
) -> Prompter:
    """The prompter that a policy made by `LanguagePolicy.create` will have.

    Args:
        base: "tiny" or "small", a folder, or a hub name.
        items: the catalogue.
        prompts: a built-in prompt file's name or a path.
        max_history: most recent items a prompt may hold.
        seed: names the choice of templates.
        chat: whether prompts go through the model's chat template; None where it has one.

    Raises:
        ConfigError: there is no such prompt file or chat template, or it is wrong.
        CheckpointError: there is no such base.
    """
    text, templates = read_templates(prompts)
    if base in SIZES:
        tokenizer, limit = tokenizer_of(base, items, templates), MAX_TOKENS
    else:
        tokenizer, limit = _pretrained(base, base)
    around = chat_of(tokenizer, chat, base, [one.sample for one in templates])
    return prompter_for(tokenizer, items, text, max_history, limit, seed, around)


def unlimited_prompter(items: pa.Table, prompts: str, max_history: int, seed: int) -> Prompter:
    """A prompter for no model in particular: no title is cut, and no prompt for want of room."""
    _, templates = read_templates(prompts)
    tokenizer = tokenizer_of("tiny", items, templates)
    titles, names = titles_of(items), names_of(items)
    return Prompter(
        tokenizer, templates, titles, max_history, NO_LIMIT, NO_LIMIT, seed, names=names
    )


def read_saved(folder: Path) -> tuple[dict[str, Any], pa.Table, str]:
    """Settings, catalogue and prompts of a language policy's folder.

    Raises:
        CheckpointError: one of their files is missing, or cut, or of another policy.
    """
    settings = read_settings(folder, "language")
    try:
        items = pq.read_table(folder / "items.parquet")
        text = (folder / "prompts.txt").read_text("utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds no whole policy ({error}). Expected palate.json, items.parquet, "
            "prompts.txt, the tokenizer and the weights; train or copy it again."
        ) from error
    return settings, items, text


def saved_chat(settings: dict[str, Any]) -> Chat | None:
    """The chat that a policy was saved with: as its template was rendered then."""
    chat = settings.get("chat")
    return None if chat is None else Chat(**chat)


def tokenizer_of(base: str, items: pa.Table, templates: Sequence[Template]) -> Any:
    """The tokenizer of a model made from scratch, trained on titles and templates."""
    pieces = [piece for template in templates for piece in template.pieces]
    texts = [*titles_of(items), *pieces]
    return train_tokenizer(texts, SIZES[base].vocabulary)


def longest_input(config: Any) -> int:
    """Tokens that a model reads, by its configuration, or that of its language part."""
    config = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return 2048


def shortened(prompter: Prompter, contexts: ContextSet) -> tuple[int, int]:
    """Contexts whose prompts lose recent items for want of room, and how many items they lose."""
    log = contexts.interactions
    lengths = np.array([len(tokens) for _, tokens in prompter.lines])
    ends = np.concatenate([[0], np.cumsum(lengths[log.items] + len(prompter.break_tokens))])
    first = np.maximum(log.first_row[contexts.users], contexts.begins - prompter.max_history)
    suspects = np.arange(len(contexts))
    if log.lists is None and not log.texts:
        longest = max(prompter.own_length(template) for template in prompter.templates)
        room = prompter.max_tokens - len(prompter.begin) - longest
        suspects = np.flatnonzero(ends[contexts.begins] - ends[first] > room)
    lost = [
        prompter.lost(one.history, one.context_id, one.candidates, one.text)
        for one in (contexts[int(index)] for index in suspects)
    ]
    return int(np.count_nonzero(lost)), sum(lost)


def _pretrained(model: str, tokenizer: str) -> tuple[Any, int]:
    """A tokenizer, and the tokens that its model reads."""
    try:
        config = AutoConfig.from_pretrained(base_of(model))
        check_kind(config, model)
        return read_tokenizer(tokenizer), longest_input(config)
    except DAMAGE as error:
        raise CheckpointError(
            f"no tokenizer and configuration could be loaded from '{model}' ({first_line(error)}). "
            f"Expected {', '.join(SIZES)}, a folder with config.json, or a hub name."
        ) from error
