"""How a model may be read so that its scores are its own, found out as far as it is needed.

A first look at a few short rows tells which ways of reading a model takes at all. Windows, chunks
and local patterns show only in what is longer or wider than they are; so a way is trusted no
further than it was looked at, and looked at again before a batch goes beyond.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from palate.errors import ConfigError, DataWarning
from palate.loading import first_line
from palate.policies.language import layouts
from palate.policies.language.adapters import causal_lm
from palate.policies.language.beam import beam_search
from palate.policies.language.catalogue import catalogue_log_probs
from palate.policies.language.item_trie import ItemTrie
from palate.policies.language.reading import Ways, places_at_once, token_log_probs
from palate.policies.language.self_check import (
    TITLE,
    Check,
    Sample,
    sample,
    usable_tokens,
)
from palate.policies.policy import Batch, inference, on_device

Engine = Literal["tree", "plain"]
FIRST_DEPTH = 24
"""Tokens of the longest row of the first look."""
TWICE = 72
"""Tokens of the row that is scored twice: hashes that are drawn anew (Reformer) begin at 65."""
RANDOM = "scores the same text otherwise when asked again"
STEP = 32
"""Rows are looked at to a multiple of so many tokens."""
LEAST_BESIDE = 128
"""Tokens of other titles that stand in a tree that is looked at, at least."""
GROWTH = 1.25
"""And each time at least so many times as far, so that looks are few."""


class Writing(NamedTuple):
    """How a model may be let write."""

    together: bool
    """Rows side by side, shorter prompts padded on the left; else one by one."""
    cached: bool
    """What was read is kept; else all is read again for each token."""


class Readings:
    """Which ways of reading a model give its own scores.

    Args:
        model: a causal language model, with adapters or without.
        asked: the engine that is wished for; None for the tree where it can be.
        tokenizer: of the model.
        end_token, pad_token: of the tokenizer.
        longest: tokens that the model reads.

    Attributes:
        engine: "tree", or "plain" where titles must be scored alone.
        ways: how rows are read.
        name: of the model's class.

    Raises:
        ConfigError: the tree is asked for and the model scores differently in it; or the model's
            scores are no log-probabilities of what comes next.
    """

    def __init__(
        self,
        model: Any,
        asked: Engine | None,
        tokenizer: Any,
        end_token: int,
        pad_token: int,
        longest: int,
    ) -> None:
        self.engine: Engine = asked or "tree"
        self.ways = Ways()
        self._asked = asked
        self._fixed = (end_token, pad_token)
        self._usable = usable_tokens(model, tokenizer)
        self._longest = longest
        self.name = type(causal_lm(model)).__name__
        self._places = 0
        self._seen = {"plain": (0, 0), "tree": (0, 0), "cache": (0, 0)}
        self._caches = True
        self._writing: tuple[Writing, int] | None = None
        self._constants: set[int] = set()
        self._turns_at = _turning_length(causal_lm(model).config)
        self._look_first(model)

    def readable(self, model: Any, batch: Batch) -> tuple[Batch, Ways]:
        """A laid-out batch as the model may be given it, and how; looks first where it is larger
        than what was looked at.

        Args:
            model: not wrapped by a trainer.
            batch: of `layouts`, on any device; a tree is unrolled where the model takes none.
        """
        width = batch["input_ids"].shape[1]
        depth, ways = batch.get("deepest", width), self.ways
        if "subtree_end" in batch:
            if self.engine == "tree":
                self._look_on(model, "tree", depth, width - depth)
                ways = self.ways
            if self._turns(depth):
                ways = replace(ways, together=False)
            if self.engine == "plain" or not ways.together:
                batch = layouts.unrolled(batch, self._fixed[1])
        elif self._turns(depth):
            ways = replace(ways, together=False)
        if "subtree_end" not in batch and ways.together and len(batch["input_ids"]) > 1:
            self._look_on(model, "plain", depth)
            ways = self.ways
        if not self._head_is_alike(model, len(batch["read_row"])):
            ways = replace(ways, gathered=False)
            if "subtree_end" in batch and self.engine == "plain":
                batch = layouts.unrolled(batch, self._fixed[1])
        if ways.in_parts is None and len(batch["read_row"]) > places_at_once(model):
            self._look_at_parts(model)
            ways = replace(ways, in_parts=self.ways.in_parts)
        return batch, ways

    def caches(self, model: Any, depth: int, beside: int) -> bool:
        """Whether prompts may be read once and many titles behind them.

        Args:
            model: not wrapped by a trainer.
            depth: tokens of the longest prompt with its longest title.
            beside: further tokens that stand in one row at once, at most.
        """
        if self.engine == "plain" or self._turns(depth):
            return False
        if self._caches and not self._head_is_alike(model, depth + beside):
            return False
        if self._caches and self._seen["cache"] == (0, 0):
            read = sample(self._usable, self._first_depth, TITLE, both_ends=True)
            check = self._check(model, read)
            reasons = (check.reason_against(way) for way in self._cached_ways(model, check))
            with inference(model):
                self._judge_cache(next(filter(None, reasons), None), self._first_depth)
            self._seen["cache"] = (self._first_depth, TITLE)
        if self._caches:
            self._look_on(model, "cache", depth, beside)
        return self._caches and self.engine == "tree"

    def writing(self, depth: int, look: Callable[[int], Writing]) -> Writing:
        """How a model may write rows of so many tokens.

        Args:
            depth: tokens of the longest prompt and what is written behind it.
            look: finds out for a depth.
        """
        self._turns(depth)
        if self._writing is None or depth > self._writing[1]:
            seen = 0 if self._writing is None else self._writing[1]
            depth = max(depth, min(_next(depth, seen), self._longest))
            self._writing = (look(depth), depth)
        return self._writing[0]

    def sample(self, depth: int) -> Sample:
        """A long and a short prompt of text, and titles."""
        return sample(self._usable, depth)

    def _look_first(self, model: Any) -> None:
        try:
            check = self._check(model, sample(self._usable, self._first_depth, TITLE))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # models fail in ways of their own where they read no text
            raise ConfigError(
                f"{self.name} reads no text: model(input_ids) alone fails "
                f"({type(error).__name__}: {first_line(error)}). Expected a causal language model."
            ) from error
        if bool(check.expected.isnan().any()):
            raise ConfigError(
                f"{self.name} gives scores that are no numbers (NaN). Its weights are broken, or "
                "overflow in their precision; load it again, or in 32 bits."
            )
        with inference(model):
            twice = sample(self._usable, min(TWICE, self._longest), trunks=1, few=True)
            self._refuse(self._check(model, twice).reason_against_chance, RANDOM)
            reason, looks_ahead = check.moves_with_what_follows()
            if looks_ahead:
                self._refuse(reason, "looks at tokens that come later")
            lengths = sample(
                self._usable, self._first_depth, few=True, short=self._first_depth // 2
            )
            # choices by topk move some tokens with the length, a count of columns moves nearly all
            by_length, moves = self._check(model, lengths).moves_with_what_follows(share=0.9)
            if moves:
                self._refuse(by_length, "scores the same tokens otherwise in longer rows")
            self._constants = set.intersection(*check.choices.values())
            self._find_plain(model, check, reason)
            self._judge_choices(check)
            if self.engine == "tree":
                self._judge_tree(check.reason_against(self._tree(model, check)), 0)
        self._seen["tree"] = self._seen["plain"] = (self._first_depth, TITLE)

    def _refuse(self, reason: str | None, what: str) -> None:
        if reason is not None:
            raise ConfigError(
                f"{self.name} {what}: it {reason}. Expected a causal language model, whose score "
                "of a token hangs on the tokens before it and on nothing else."
            )

    def _find_plain(self, model: Any, check: Check, against: str | None) -> None:
        """How to read plain rows; `against` is why they cannot stand side by side, if known."""
        ways = [
            Ways(together, gathered)
            for together in ([True, False] if against is None else [False])
            for gathered in (True, False)
        ]
        reasons: list[str | None] = []
        way = ways[0]
        for way in ways:
            reasons.append(check.reason_against(self._plain(model, check, way), False))
            if reasons[-1] is None:
                break
        self._refuse(reasons[-1], RANDOM)
        if not way.together:
            warnings.warn(
                f"{self.name} reads a row otherwise where others are beside it: it "
                f"{against or reasons[0]}; rows are read one by one, which is slower.",
                DataWarning,
                stacklevel=5,
            )
        self.ways, check.gathered = way, way.gathered

    def _look_on(self, model: Any, what: str, depth: int, beside: int = 0) -> None:
        """Look at longer or wider rows, if these are: at a title `depth` tokens deep, with `beside`
        others between it and its prompt."""
        seen_depth, seen_beside = self._seen[what]
        if depth <= seen_depth and beside <= seen_beside:
            return
        depth = max(depth, min(_next(depth, seen_depth), self._longest))
        beside = _next(max(beside, LEAST_BESIDE), seen_beside) if what != "plain" else 0
        trunks = 2 if what == "plain" else 1
        ends = what == "cache"
        read = sample(self._usable, depth, beside, trunks, few=True, both_ends=ends)
        self._head_is_alike(model, trunks * depth)
        if what != "plain" and self.engine == "plain":
            return
        check = self._check(model, read)
        if self._judge_choices(check):
            return
        with inference(model):
            if what == "tree":
                self._judge_tree(check.reason_against(self._tree(model, check)), depth)
            elif what == "plain":
                reason = check.reason_against(self._plain(model, check, self.ways), False)
                if reason is not None:
                    self.ways = replace(self.ways, together=False)
                    alone = self._plain(model, check, self.ways)
                    self._refuse(check.reason_against(alone, False), RANDOM)
                    self._warn(
                        f"{reason} in padded rows of {depth} tokens; rows are read one by one"
                    )
            else:
                first, *_ = self._cached_ways(model, check, depth + beside)
                self._judge_cache(check.reason_against(first), depth)
        self._seen[what] = (max(depth, seen_depth), max(beside, seen_beside))

    def _head_is_alike(self, model: Any, places: int) -> bool:
        """Whether the head gives the same behind so many places as before them, or is not handed
        places; looks where it was not handed so many."""
        most = places_at_once(model)
        if min(places, most) <= self._places or not self.ways.gathered:
            return True
        places = min(max(places, 2 * self._places, LEAST_BESIDE), most)
        check = self._check(model, sample(self._usable, self._first_depth, trunks=1, few=True))
        batch = on_device(check.plain, check.device)
        for name in ("read_row", "read_column"):
            batch[name] = torch.cat([batch[name][:1].expand(places), batch[name]])
        batch["scored_place"] = batch["scored_place"] + places
        with inference(model):
            ways = replace(self.ways, in_parts=None)
            reason = check.reason_against(lambda: token_log_probs(model, batch, ways), False)
            self._places = places
            if reason is None:
                return True
            self.ways = replace(self.ways, gathered=False)
            if self.engine == "tree":  # it counts columns, and those of a tree are not a row's
                self._judge_tree(reason, 0)
        return False

    def _look_at_parts(self, model: Any) -> None:
        """Find out whether logits may be made part by part."""
        check = self._check(model, sample(self._usable, self._first_depth, TITLE))
        in_parts = replace(self.ways, in_parts=True)
        with inference(model):
            reason = check.reason_against(self._plain(model, check, in_parts, 2), False)
        self.ways = replace(self.ways, in_parts=reason is None)

    def _judge_choices(self, check: Check) -> bool:
        """Whether a model chooses among the tokens of a text, as sparse attention does: from sets
        that are larger in longer rows. Which of many equals it takes hangs on what is beside."""
        if not set.union(*check.choices.values()) - self._constants:
            return False
        told = f"{self.name} chooses by topk which tokens of a text a token looks at"
        if self._asked == "tree":
            raise ConfigError(f"engine='tree': {told}. Leave engine out, or use 'plain'.")
        if self.ways.together or self.engine == "tree":
            warnings.warn(
                f"{told}, and may choose otherwise where rows are read together; each title is "
                "scored alone, and rows are read one by one, which is slower.",
                DataWarning,
                stacklevel=6,
            )
        self.engine, self.ways = "plain", replace(self.ways, together=False)
        return True

    def _judge_tree(self, reason: str | None, depth: int) -> None:
        if reason is None:
            return
        where = f" of {depth} tokens or more" if depth else ""
        told = f"{self.name} does not read trees{where} as it reads a title alone: it {reason}"
        if self._asked == "tree":
            raise ConfigError(f"engine='tree': {told}. Leave engine out, or use 'plain'.")
        self.engine = "plain"
        warnings.warn(f"{told}; each title is scored alone, which is slower.", DataWarning, 6)

    def _judge_cache(self, reason: str | None, depth: int) -> None:
        if reason is not None:
            self._caches = False
            self._warn(
                f"{reason} where titles follow a kept prompt of {depth} tokens; a catalogue is "
                "scored in blocks of titles"
            )

    def _warn(self, told: str) -> None:
        told = f"{self.name} {told}, which is slower."
        warnings.warn(told, DataWarning, stacklevel=6)

    def _turns(self, depth: int) -> bool:
        """Whether rows of so many tokens are read with other frequencies than shorter ones."""
        if self._turns_at is None or depth <= self._turns_at:
            return False
        warnings.warn(
            f"a prompt and its title are longer than {self._turns_at} tokens, beyond which "
            f"{self.name} reads all of a text with other position frequencies (longrope): scores "
            "on either side are hardly comparable, and rows are read one by one, which is slower. "
            "Set max_history lower to stay below.",
            DataWarning,
            stacklevel=5,
        )
        return True

    @property
    def _first_depth(self) -> int:
        return min(FIRST_DEPTH, self._longest)

    def _check(self, model: Any, read: Any) -> Check:
        with inference(model):
            check = Check(model, read, *self._fixed, next(model.parameters()).device)
        check.gathered = self.ways.gathered
        return check

    def _plain(
        self, model: Any, check: Check, ways: Ways, at_once: int | None = None
    ) -> Callable[[], Tensor]:
        batch = on_device(check.plain, check.device)
        return lambda: token_log_probs(model, batch, ways, at_once)

    def _tree(self, model: Any, check: Check) -> Callable[[], Tensor]:
        batch = check.sample.tree(*self._fixed)
        return lambda: token_log_probs(model, on_device(batch, check.device), self.ways)

    def _cached_ways(
        self, model: Any, check: Check, columns: int | None = None
    ) -> Iterator[Callable[[], Tensor]]:
        """What reads titles behind kept prompts: the whole trie, and beams."""
        n_scored = len(check.sample.titles)
        trie = ItemTrie.of([*check.sample.titles, *check.sample.beside])
        given = (model, check.sample.trunks, trie, *self._fixed, check.device)

        def whole() -> Tensor:
            return catalogue_log_probs(*given, chunk_tokens=columns)[:, :n_scored]

        def beams() -> Tensor:
            every = n_scored + len(check.sample.beside)
            found = beam_search(*given, top=every, width=every)
            order = torch.from_numpy(found.item_ids).argsort(dim=1)
            return torch.from_numpy(found.scores).gather(1, order)[:, :n_scored]

        return iter((whole, beams))


def _next(tokens: int, seen: int) -> int:
    """How far to look, to see so many tokens."""
    return max(-(-tokens // STEP) * STEP, int(GROWTH * seen)) if tokens > seen else seen


def _turning_length(config: Any) -> int | None:
    """Tokens beyond which a model changes the frequencies of all positions; None where none are."""
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    kinds = [parameters, *(part for part in parameters.values() if isinstance(part, dict))]
    if not any(kind.get("rope_type") == "longrope" for kind in kinds):
        return None
    lengths = [kind.get("original_max_position_embeddings") for kind in kinds]
    lengths.append(getattr(text, "original_max_position_embeddings", None))
    return min((int(length) for length in lengths if length), default=None)
