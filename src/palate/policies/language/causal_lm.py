"""A Hugging Face causal language model as a policy: an item is its title."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from palate.data.contexts import Context, ContextSet, History, Ids
from palate.errors import ConfigError, DataError
from palate.policies.language import layouts
from palate.policies.language.adapters import (
    AdaptedModel,
    Adapter,
    add_adapter,
    merge,
)
from palate.policies.language.attention import leave_flex_on_cpu
from palate.policies.language.beam import beam_search
from palate.policies.language.catalogue import READ_TOGETHER, catalogue_log_probs
from palate.policies.language.causality import check_reads_forward
from palate.policies.language.chat import Chat, chat_of
from palate.policies.language.engine import Engine, Readings
from palate.policies.language.folder import read_policy, write_policy
from palate.policies.language.from_scratch import SIZES, new_model
from palate.policies.language.item_trie import KeptTrie
from palate.policies.language.prompters import (
    longest_input,
    prompter_for,
    shortened,
    tokenizer_of,
    warn_of_titles,
)
from palate.policies.language.prompts import Tokens, need_tokens, read_templates
from palate.policies.language.ranking import (
    ENOUGH_BEAMS,
    Allowed,
    Method,
    best_items,
    best_titles,
    check_search,
    legal_items,
)
from palate.policies.language.reading import token_log_probs
from palate.policies.language.titles import check_texts
from palate.policies.language.vocabulary import embedded_tokens, padding_token
from palate.policies.language.weights import (
    check_quantizable,
    check_quantization,
    pretrained,
)
from palate.policies.policy import (
    PADDING_ITEM,
    Batch,
    Ranking,
    Scored,
    check_items,
    first_reads,
    inference,
    on_device,
    windows,
)
from palate.randomness import random_bits


class LanguagePolicy:
    """Scores an item by the log-probability of its title after a prompt with the history.

    Args:
        model: any Hugging Face causal language model.
        tokenizer: its tokenizer.
        items: the catalogue with a `title` column; None for a policy that scores texts only.
        prompts: text of a prompt file (see `prompts.py`).
        max_history: most recent items a prompt may hold.
        seed: names the choice of templates.
        adapter: what trains in place of all weights (see `start_stage`); None for all weights.
        quantized: whether the base weights have 4 bits.
        stages: the stages that adapters were added for, oldest first.
        engine: "tree" reads what candidates share once, "plain" each title alone; None takes the
            tree where the model scores alike in it, and else says why not.
        chat: what a chat template puts around prompts; None for none.

    Raises:
        ConfigError: engine is "tree" and the model scores differently in it; or the model is none
            whose scores tell what comes next (see `engine.py`).
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
        adapter: Adapter | None = None,
        quantized: bool = False,
        stages: Sequence[str] = (),
        engine: Engine | None = None,
        chat: Chat | None = None,
    ) -> None:
        self.model: nn.Module = model
        self.tokenizer = tokenizer
        self.items = items
        self.prompts = prompts
        self.max_history = max_history
        self.seed = seed
        self.adapter = adapter
        self.quantized = quantized
        self.stages = tuple(stages)
        self.chat = chat
        limit = longest_input(model.config)
        known = embedded_tokens(model)
        self.prompter = prompter_for(
            tokenizer, items, prompts, max_history, limit, seed, chat, known
        )
        self.pad = padding_token(tokenizer, known, self.prompter.end)
        warn_of_titles(self.prompter, items)
        self._tries = KeptTrie()
        leave_flex_on_cpu(model)
        check_reads_forward(model, self.prompter.sample_text, self.prompter.end)
        fixed = (self.prompter.end, self.pad)
        self.readings = Readings(model, engine, tokenizer, *fixed, limit)

    @classmethod
    def create(
        cls,
        base: str,
        items: pa.Table,
        prompts: str,
        max_history: int,
        seed: int,
        adapter: Adapter | None = None,
        quantize: bool = False,
        chat: bool | None = None,
    ) -> "LanguagePolicy":
        """A policy before any training.

        Args:
            base: "tiny" or "small" (made from scratch), a folder, or a hub name.
            items: the catalogue.
            prompts: a built-in prompt file's name or a path.
            max_history: most recent items a prompt may hold.
            seed: names the initial weights and the choice of templates.
            adapter: train low-rank adapters of this shape, which `start_stage` adds.
            quantize: hold the base weights in 4 bits; needs CUDA, bitsandbytes, an adapter and a
                pretrained base.
            chat: whether prompts go through the model's chat template; None where it has one.

        Raises:
            ConfigError: the prompts, a chat template, or what `quantize` needs, are not to be had.
            CheckpointError: no model could be loaded from `base`.
        """
        if quantize:
            check_quantizable(base, has_adapter=adapter is not None)
            check_quantization(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        text, templates = read_templates(prompts)
        if base in SIZES:
            tokenizer = tokenizer_of(base, items, templates)
            model: Any = new_model(base, tokenizer, seed)
        else:
            model, tokenizer = pretrained(base, quantize=quantize)
        around = chat_of(tokenizer, chat, base, [one.sample for one in templates])
        return cls(model, tokenizer, items, text, max_history, seed, adapter, quantize, chat=around)

    @classmethod
    def bare(
        cls, base: str, engine: Engine | None = None, chat: bool | None = None
    ) -> "LanguagePolicy":
        """A policy without catalogue, from a folder or hub name; it scores texts only. `chat` is
        that of `create`."""
        model, tokenizer = pretrained(base)
        text, templates = read_templates("history")
        around = chat_of(tokenizer, chat, base, [one.sample for one in templates])
        return cls(model, tokenizer, None, text, engine=engine, chat=around)

    @classmethod
    def load(cls, folder: Path, engine: Engine | None = None) -> "LanguagePolicy":
        """A policy from a folder that `save` wrote."""
        return cls(**read_policy(folder), engine=engine)

    def save(self, folder: Path) -> None:
        """Write all that ranking and further training need to a folder; the policy stays as it is.

        Adapters are added to the written weights, so that the folder holds one whole model, which
        transformers reads too. Two kinds of folder keep them apart: that of an SFT whose adapter is
        kept (base weights in `base/`, adapters in `adapters/`), and any over 4-bit weights
        (adapters, and the name of their base).
        """
        write_policy(self, folder, apart=self._keeps_adapters and self.stages == ("sft",))

    def start_stage(self, stage: Literal["sft", "align"]) -> None:
        """Make ready to train: where there is an `adapter`, a new one is all that will train.

        What the adapters of earlier stages learnt is merged into the base weights, or kept beside
        the new one, frozen (`adapter.after_sft`). Either way scores stay as they are, and a stage
        that is started again, to continue imitation, say, trains as freely as any other. Adapters
        are named after their stage; the second of one stage is `sft_2`. Initial weights depend on
        the seed and on how many stages went before.
        """
        if self.adapter is None:
            return
        if isinstance(self.model, AdaptedModel) and not self._keeps_adapters:
            self.model = merge(self.model)
        repeated = self.stages.count(stage)
        name = f"{stage}_{repeated + 1}" if repeated else stage
        seed = int(random_bits(self.seed, "adapter", len(self.stages)) >> 1)
        self.model = add_adapter(self.model, self.adapter, name, seed)
        self.stages = (*self.stages, stage)

    @property
    def engine(self) -> Engine:
        """What reads titles: "tree", or "plain" where each is scored alone; a model that turns out
        to score longer texts otherwise in a tree goes over to plain, saying so."""
        return self.readings.engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self.readings.engine = engine

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def learns_whole_histories(self) -> bool:
        """Whether every template only grows at its end as the history does."""
        return all(template.grows_at_the_end for template in self.prompter.templates)

    def history_windows(self, history: History) -> list[History]:
        """See `Policy.history_windows`; a window holds three times what a prompt does, so that
        later targets see at least a prompt's worth, and no more than the model can read."""
        if not self.prompter.always_opens:  # nothing foretells the first item
            history = history._replace(first_target=max(history.first_target, 1))
        return windows(
            history, 3 * self.max_history, self.max_history, self.prompter.fitting_after_opening
        )

    @property
    def moments_together(self) -> int:
        """One: each moment is asked with the prompt that ranking uses."""
        return 1

    def first_reads(self, history: Ids, moments: Ids, together: int) -> Ids:
        """See `Policy.first_reads`; a pass holds what a window of imitation does, so that later
        moments see more of the history than `max_history`.

        Raises:
            ConfigError: a prompt does not merely grow at its end with the history.
        """
        if not self.learns_whole_histories:
            raise ConfigError(
                "align.moments_together: these prompts have more behind the history, so each "
                "moment needs a prompt of its own. Set it to 1, or use prompts that end with the "
                "history: --set policy.prompts=history."
            )
        longest, fits = 3 * self.max_history, self.prompter.fitting_after_opening
        return first_reads(history, moments, together, longest, self.max_history, fits)

    @property
    def lists_candidates(self) -> bool:
        """Whether prompts show the candidates, so that a score depends on all of them."""
        return self.prompter.lists_candidates

    def prompt_tokens(self, context: Context, item_ids: Ids | None = None) -> Tokens:
        """Token ids of a context's prompt; a template with candidates shows those of the context,
        or else the scored ones in an order named by the context."""
        if context.first_read is not None:
            found = self.prompter.prompt_from(context.history, context.first_read, context.user_id)
        else:
            shown = self.prompter.shown(context, item_ids)
            found = self.prompter.prompt(context.history, context.context_id, shown, context.text)
        return need_tokens(found, f"the prompt of context {context.context_id}")

    def shortened(self, contexts: ContextSet) -> tuple[int, int]:
        """How many contexts' prompts lose items because the model reads no more, and how many
        items; what `max_history` leaves out is not counted."""
        return shortened(self.prompter, contexts)

    def collate(self, contexts: Sequence[Context], item_ids: Ids) -> Batch:
        """See `Policy.collate`."""
        titles = self.prompter.title_tokens
        prompts = [self.prompt_tokens(c, row) for c, row in zip(contexts, item_ids, strict=True)]
        answers = [[None if i == PADDING_ITEM else titles[i] for i in row] for row in item_ids]
        passes = [
            (index,) if c.first_read is None else (c.user_id, c.first_read)
            for index, c in enumerate(contexts)
        ]
        return self._lay(prompts, answers, passes)

    def log_probs(self, batch: Batch, model: nn.Module | None = None) -> Scored:
        """See `Policy.log_probs`; sums over a title's tokens and its end token, in float32."""
        batch, ways = self.readings.readable(self.model, batch)
        tokens = token_log_probs(model or self.model, batch, ways)
        return Scored(*layouts.log_probs_of(batch, tokens))

    def collate_histories(self, histories: Sequence[History]) -> Batch:
        """See `Policy.collate_histories`; for prompts that only grow at their end."""
        prompter = self.prompter
        openings = [prompter.opening(one.items) for one in histories]
        for one, opening in zip(histories, openings, strict=True):
            if one.first_target == 0:
                need_tokens(opening, "the text before a history")
        titles = [[prompter.title_tokens[item] for item in one.items] for one in histories]
        firsts = [one.first_target for one in histories]
        batch = layouts.lay_histories(
            openings, titles, firsts, prompter.break_tokens, prompter.end, self.pad
        )
        return {**batch, "targets": batch["shape"][0]}

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
        check_items(item_ids, len(self.prompter.title_tokens))
        return self._score_batch(self.collate(contexts, item_ids))

    def score_texts(self, prompts: Sequence[str], titles: Sequence[Sequence[str]]) -> Scored:
        """(B, K) log-probabilities of titles after prompts, both as text.

        Args:
            prompts: B texts, each ending with the line break that titles follow, or with a chat
                the user's messages; a begin token and the chat template are put around each.
            titles: for each prompt its candidates; shorter rows are padded with 0.

        Raises:
            DataError: they are of another number, no texts, or become no tokens, or tokens that
                the model lacks.
        """
        prompter = self.prompter
        prompts = check_texts(prompts, "prompts")
        if len(titles) != len(prompts) or not prompts:
            raise DataError(
                f"score_texts: found {len(prompts)} prompts and {len(titles)} lists of titles. "
                "Expected one list for each prompt, and at least one."
            )
        tokens = [
            need_tokens(prompter.tokenize_prompt(prompt), f"prompts[{row}]")
            for row, prompt in enumerate(prompts)
        ]
        found = [prompter.tokenize_titles(own, f"titles[{row}]") for row, own in enumerate(titles)]
        width = max(map(len, found))
        answers: list[list[layouts.Answer]] = [
            [*own, *[None] * (width - len(own))] for own in found
        ]
        return self._score_batch(self._lay(tokens, answers))

    def catalogue_log_probs(self, contexts: Sequence[Context], pool: Ids | None = None) -> Tensor:
        """See `Policy.catalogue_log_probs`; prompts, and what titles share, are read once."""
        self._need_rankable()
        prompts = [self.prompt_tokens(context) for context in contexts]
        if not self._caches(prompts, READ_TOGETHER):
            pool = np.arange(len(self.prompter.title_tokens)) if pool is None else np.asarray(pool)
            ids = np.broadcast_to(pool, (len(contexts), len(pool)))
            blocks = [self.score(contexts, ids[:, i : i + 64]) for i in range(0, len(pool), 64)]
            return torch.cat([block.log_probs for block in blocks], dim=1)
        trie = self._tries.of(self.prompter.title_tokens)
        trie = trie if pool is None else trie.restricted(np.asarray(pool))
        with inference(self.model):
            return catalogue_log_probs(
                self.model, prompts, trie, self.prompter.end, self.pad, self.device
            )

    def rank(
        self,
        contexts: Sequence[Context],
        top: int = 10,
        *,
        method: Method = "exact",
        width: int = 20,
        exclude_history: bool = True,
        allowed: Allowed | None = None,
    ) -> Ranking:
        """See `Policy.rank`.

        Args:
            contexts: B contexts.
            top: items to return for each.
            method: "exact" misses nothing; "beam" reads little of the catalogue and may.
            width: beams, at least `top`.
            exclude_history: leave out what a context's history holds.
            allowed: items to choose from: (items,) or (B, items) truth values, or for each context
                an array of item ids; None for all.

        Returns:
            (B, top) items and log-probabilities, best first; −1 and −inf where none was left.

        Raises:
            ConfigError: unknown method, fewer beams than items wanted, or beams for a model whose
                titles are scored alone.
            DataError: `allowed` has another shape, or a context may be given no item.
        """
        self._need_rankable()
        n_items = len(self.prompter.title_tokens)
        top = min(top, n_items)
        prompts = [self.prompt_tokens(context) for context in contexts]
        trie = self._tries.of(self.prompter.title_tokens)
        beams = width if method == "beam" else ENOUGH_BEAMS
        caches = self._caches(prompts, max(READ_TOGETHER, beams * len(trie.levels)))
        check_search(method, top, width, self.engine)
        legal = legal_items(contexts, n_items, exclude_history, allowed)
        if not caches or (method == "exact" and top > ENOUGH_BEAMS):
            pool = np.flatnonzero(legal.any(axis=0))
            return best_items(self.catalogue_log_probs(contexts, pool), pool, legal, top)
        search = (self.model, prompts, trie, self.prompter.end, self.pad, self.device, top)
        with inference(self.model):
            if method == "beam":
                return beam_search(*search, width, legal)
            return best_titles(*search, legal)

    def _caches(self, prompts: Sequence[Tokens], behind: int) -> bool:
        """Whether so many tokens may be read behind prompts that are read once."""
        longest = max(map(len, prompts))
        title = max(map(len, self.prompter.title_tokens))
        return self.readings.caches(self.model, longest + title, behind)

    def _need_rankable(self) -> None:
        self._need_catalogue()
        if self.lists_candidates:
            raise ConfigError(
                "prompts that list candidates cannot rank the whole catalogue; use "
                "--set policy.prompts=history, or evaluation.protocols=[candidates]."
            )

    @property
    def _keeps_adapters(self) -> bool:
        return self.quantized or (self.adapter is not None and self.adapter.after_sft == "keep")

    def _need_catalogue(self) -> None:
        if self.items is None:
            raise DataError(
                "this language model has no catalogue, so it scores texts only (score_texts). Load "
                "a policy that Palate saved, or make one with LanguagePolicy.create."
            )

    def _lay(
        self,
        prompts: Sequence[Tokens],
        answers: Sequence[Sequence[layouts.Answer]],
        passes: Sequence[Hashable] | None = None,
    ) -> Batch:
        fixed = (self.prompter.end, self.pad)
        if self.engine == "plain":
            return layouts.lay_alone(prompts, answers, *fixed)
        return layouts.lay_trees(prompts, answers, *fixed, passes)

    def _score_batch(self, batch: Batch) -> Scored:
        with inference(self.model):
            return self.log_probs(on_device(batch, self.device))
