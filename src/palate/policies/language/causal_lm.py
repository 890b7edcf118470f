"""A Hugging Face causal language model as a policy: an item is its title."""

import inspect
import json
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from palate.data.contexts import Context, Ids
from palate.errors import CheckpointError, ConfigError, DataError, DataWarning
from palate.files import write_json, write_text
from palate.policies.language import packing
from palate.policies.language.catalogue import catalogue_log_probs
from palate.policies.language.from_scratch import SIZES, new_model, train_tokenizer
from palate.policies.language.prompts import Prompter, Tokens, parse_templates, read_templates
from palate.policies.policy import PADDING_ITEM, Batch, Ranking, Scored, top_items
from palate.randomness import permutation

PACKING_TOLERANCE = 1e-2
"""Largest difference in nats, per title, between packed and lone scoring on the first batch."""


class LanguagePolicy:
    """Scores an item by the log-probability of its title after a prompt with the history.

    Args:
        model: any Hugging Face causal language model.
        tokenizer: its tokenizer.
        items: the catalogue with a `title` column; None for a policy that scores texts only.
        prompts: text of a prompt file (see `prompts.py`).
        max_history: most recent items a prompt may hold.
        seed: names the choice of templates.
    """

    kind = "language"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        items: pa.Table | None,
        prompts: str,
        max_history: int = 20,
        seed: int = 0,
    ) -> None:
        self.model: nn.Module = model
        self.tokenizer = tokenizer
        self.items = items
        self.prompts = prompts
        self.max_history = max_history
        self.seed = seed
        titles = [] if items is None else [str(t) for t in items["title"].to_pylist()]
        limit = _longest_input(model.config)
        self.prompter = Prompter(
            tokenizer,
            parse_templates(prompts, "prompts"),
            titles,
            max_history,
            max_tokens=limit,
            seed=seed,
        )
        longest = max((len(tokens) for tokens in self.prompter.title_tokens), default=0)
        self.prompter.max_tokens = limit - longest
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.packs = self._packing_agrees()

    @classmethod
    def create(
        cls, base: str, items: pa.Table, prompts: str, max_history: int, seed: int
    ) -> "LanguagePolicy":
        """A policy before any training.

        Args:
            base: "tiny" or "small" (made from scratch), a folder, or a hub name.
            items: the catalogue.
            prompts: a built-in prompt file's name or a path.
            max_history: most recent items a prompt may hold.
            seed: names the initial weights and the choice of templates.
        """
        text, templates = read_templates(prompts)
        if base in SIZES:
            pieces = [piece for template in templates for piece in template.pieces]
            texts = [*(str(t) for t in items["title"].to_pylist()), *pieces]
            tokenizer = train_tokenizer(texts, SIZES[base].vocabulary)
            model: Any = new_model(base, tokenizer, seed)
        else:
            model, tokenizer = _pretrained(base)
        return cls(model, tokenizer, items, text, max_history, seed)

    @classmethod
    def bare(cls, base: str) -> "LanguagePolicy":
        """A policy without catalogue, from a folder or hub name; it scores texts only."""
        model, tokenizer = _pretrained(base)
        return cls(model, tokenizer, None, read_templates("history")[0])

    @classmethod
    def load(cls, folder: Path) -> "LanguagePolicy":
        """A policy from a folder that `save` wrote."""
        try:
            settings = json.loads((folder / "palate.json").read_text("utf-8"))
            items = pq.read_table(folder / "items.parquet")
            text = (folder / "prompts.txt").read_text("utf-8")
        except (OSError, ValueError) as error:  # a file is missing, or cut
            raise CheckpointError(
                f"{folder} holds no whole policy ({error}). Expected palate.json, items.parquet, "
                "prompts.txt, the tokenizer and the weights; train or copy it again."
            ) from error
        model, tokenizer = _pretrained(str(folder))
        return cls(model, tokenizer, items, text, settings["max_history"], settings["seed"])

    def save(self, folder: Path) -> None:
        """Write weights, tokenizer, prompts and items to a folder."""
        model: Any = self.model
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_text(self.prompts, folder / "prompts.txt")
        if self.items is not None:
            pq.write_table(self.items, folder / "items.parquet")
        settings = {"kind": self.kind, "max_history": self.max_history, "seed": self.seed}
        write_json(settings, folder / "palate.json")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def learns_whole_histories(self) -> bool:
        """Whether every template only grows at its end as the history does."""
        return all(template.grows_at_the_end for template in self.prompter.templates)

    @property
    def lists_candidates(self) -> bool:
        """Whether prompts show the candidates, so that a score depends on all of them."""
        return self.prompter.lists_candidates

    def prompt_tokens(self, context: Context, item_ids: Ids | None = None) -> Tokens:
        """Token ids of a context's prompt; a template with candidates shows those of the context,
        or else the scored ones in an order named by the context."""
        shown = context.candidates
        if shown is None and item_ids is not None and self.lists_candidates:
            present = item_ids[item_ids != PADDING_ITEM]
            order = permutation(len(present), self.seed, "candidates", context.context_id)
            shown = present[order]
        return self.prompter.prompt(context.history, context.context_id, shown)

    def collate(self, contexts: Sequence[Context], item_ids: Ids) -> Batch:
        """See `Policy.collate`."""
        titles = self.prompter.title_tokens
        prompts = [self.prompt_tokens(c, row) for c, row in zip(contexts, item_ids, strict=True)]
        answers = [[None if i == PADDING_ITEM else titles[i] for i in row] for row in item_ids]
        return self._lay(prompts, answers)

    def log_probs(self, batch: Batch, model: nn.Module | None = None) -> Scored:
        """See `Policy.log_probs`; sums over a title's tokens and its end token, in float32."""
        return Scored(*packing.log_probs_of(batch, self._logits(batch, model or self.model)))

    def collate_histories(self, histories: Sequence[Ids], first_targets: Sequence[int]) -> Batch:
        """See `Policy.collate_histories`; for prompts that only grow at their end."""
        prompter = self.prompter
        openings = [prompter.opening(history) for history in histories]
        kept, firsts = [], []
        for opening, history, first in zip(openings, histories, first_targets, strict=True):
            fitting = prompter.fitting(history, prompter.max_tokens - len(opening))
            kept.append([prompter.title_tokens[item] for item in fitting])
            firsts.append(max(0, first - (len(history) - len(fitting))))
        return packing.lay_histories(
            openings, kept, firsts, prompter.break_tokens, prompter.end, self.pad
        )

    def history_losses(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        """See `Policy.history_losses`."""
        return -self.log_probs(batch, model).log_probs.flatten()

    def score(self, contexts: Sequence[Context], item_ids: Ids) -> Scored:
        """See `Policy.score`.

        Args:
            contexts: B contexts.
            item_ids: (B, K) item ids; −1 for no candidate.

        Raises:
            DataError: an id is not in the catalogue.
        """
        self._need_catalogue()
        item_ids = np.asarray(item_ids)
        outside = (item_ids < PADDING_ITEM) | (item_ids >= len(self.prompter.title_tokens))
        if outside.any():
            raise DataError(
                f"item id {item_ids[outside][0]} is not in the catalogue; expected 0 to "
                f"{len(self.prompter.title_tokens) - 1} (row numbers of items.parquet)."
            )
        return self._score_batch(self.collate(contexts, item_ids))

    def score_texts(self, prompts: Sequence[str], titles: Sequence[Sequence[str]]) -> Scored:
        """(B, K) log-probabilities of titles after prompts, both as text.

        Args:
            prompts: B texts, each ending with the line break that titles follow; a begin token
                is put before each if the tokenizer has one.
            titles: for each prompt its candidates; shorter rows are padded with 0.
        """
        prompter = self.prompter
        tokens = [
            np.concatenate([prompter.begin, np.asarray(ids, np.int64)])
            for ids in self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        ]
        width = max(map(len, titles))
        answers: list[list[packing.Answer]] = [
            [*prompter.tokenize_titles(row), *[None] * (width - len(row))] for row in titles
        ]
        return self._score_batch(self._lay(tokens, answers))

    def catalogue_log_probs(self, contexts: Sequence[Context], pool: Ids | None = None) -> Tensor:
        """See `Policy.catalogue_log_probs`; each prompt is read once."""
        self._need_catalogue()
        if self.lists_candidates:
            raise ConfigError(
                "prompts that list candidates cannot rank the whole catalogue; use "
                "--set policy.prompts=history, or evaluation.protocols=[candidates]."
            )
        pool = np.arange(len(self.prompter.title_tokens)) if pool is None else np.asarray(pool)
        if not self.packs:
            ids = np.broadcast_to(pool, (len(contexts), len(pool)))
            blocks = [self.score(contexts, ids[:, i : i + 64]) for i in range(0, len(pool), 64)]
            return torch.cat([block.log_probs for block in blocks], dim=1)
        prompts = [self.prompt_tokens(context) for context in contexts]
        titles = [self.prompter.title_tokens[item] for item in pool]
        with self._inference():
            return catalogue_log_probs(
                self.model, prompts, titles, self.prompter.end, self.pad, self.device
            )

    def rank(self, contexts: Sequence[Context], top: int = 10) -> Ranking:
        """See `Policy.rank`."""
        return top_items(self.catalogue_log_probs(contexts), contexts, top)

    def _need_catalogue(self) -> None:
        if self.items is None:
            raise DataError(
                "this language model has no catalogue, so it scores texts only (score_texts). Load "
                "a policy that Palate saved, or make one with LanguagePolicy.create."
            )

    def _lay(self, prompts: Sequence[Tokens], answers: Sequence[Sequence[packing.Answer]]) -> Batch:
        lay = packing.pack if self.packs else packing.lay_alone
        return lay(prompts, answers, self.prompter.end, self.pad)

    def _score_batch(self, batch: Batch) -> Scored:
        on_device = {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        with self._inference():
            return self.log_probs(on_device)

    def _logits(self, batch: Batch, model: nn.Module) -> Tensor:
        inputs = {"input_ids": batch["input_ids"], "use_cache": False}
        if "subtree_end" in batch:
            width = batch["input_ids"].shape[1]
            dtype = next(model.parameters()).dtype
            inputs["attention_mask"] = packing.attention_mask(batch["subtree_end"], width, dtype)
            inputs["position_ids"] = batch["position_ids"]
        else:
            inputs["attention_mask"] = batch["attention_mask"]
        if self._keeps_logits:
            return model(**inputs, logits_to_keep=batch["kept"]).logits
        return model(**inputs).logits[:, -batch["kept"] :]

    def _packing_agrees(self) -> bool:
        """Whether packed scoring gives what scoring each title alone gives; says so if not."""
        config: Any = self.model.config
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
            self._say_alone("has attention windows, which packed titles would not see alike")
            return False
        vocabulary = int(config.vocab_size)
        tokens = (np.arange(24) * 7 + 3) % vocabulary
        prompts, answers = [tokens[:9], tokens[9:14]], [[tokens[14:17], tokens[17:18]]] * 2
        alone, packed = (
            lay(prompts, answers, self.prompter.end, self.pad)
            for lay in (packing.lay_alone, packing.pack)
        )
        expected = self._score_batch(alone).log_probs
        try:
            found = self._score_batch(packed).log_probs
        except (ValueError, TypeError, RuntimeError) as error:  # a mask of a shape it cannot take
            reason = f"does not take packed titles ({str(error).splitlines()[0]})"
        else:
            apart = float((found - expected).abs().max())
            if apart <= PACKING_TOLERANCE:
                return True
            reason = f"scores packed titles differently (by {apart:.2g} nats)"
        self._say_alone(reason)
        return False

    def _say_alone(self, reason: str) -> None:
        warnings.warn(
            f"{type(self.model).__name__} {reason}; each title is scored alone, which is slower.",
            DataWarning,
            stacklevel=4,
        )

    @contextmanager
    def _inference(self):
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(training)


def _pretrained(name: str) -> tuple[Any, Any]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"no causal language model could be loaded from '{name}' ({first_line}). Expected "
            f"{', '.join(SIZES)}, a folder with config.json and safetensors, or a hub name."
        ) from error
    return model, tokenizer


def _longest_input(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return 2048
