"""Whether a model's scores, read in some way, are its own: what `model(input_ids)` alone gives.

The truth is the model's ordinary forward over one row of tokens, with no other argument, no row
beside it and no padding. What is held against it are the token log-probabilities that scoring uses.

How far the two may lie apart is measured on the model at hand, in two ways. One is how far its own
forward moves when the same rows stand in a padded batch, in which products are rounded otherwise.
The other is how far it moves with the last bit of its input embeddings, of which rounding moves a
right reading by a part. Wrong masks, positions, states and heads move scores much further, at any
precision; so that they stand out, tokens behind the branchings of a tree are judged by themselves
too.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from palate.loading import first_line
from palate.policies.language import layouts
from palate.policies.language.adapters import causal_lm
from palate.policies.language.prompts import Tokens
from palate.policies.language.reading import Ways, token_log_probs
from palate.policies.policy import Batch, on_device

LEAST = 1e-4
"""Nats per token below which nothing is called a difference: a tenth of the thousandth that a
title's score is held to. Scores have 32 bits, of models in 64 bits too."""
OF_ROWS = 1.0
"""Share of the movement with the last bit that is let pass in plain rows, in the mean square."""
OF_TREES = 0.25
"""The same where titles share what they have in common, of which plain rows tell more:"""
OF_PADDING = 4.0
"""How many times the movement by padding is let pass there."""
AT_ONE = 2.0
"""How many times as far as in the mean square a single token may be."""
RANDOM = 0.05
"""Nats at a token by which no rounding moves a model that is asked the same twice."""
ORDINARY = 256
"""Tokens that are scored of a row, at most. Of longer rows a model that can be asked for some
logits alone is asked for these; of others, as of all shorter ones, for nothing but the row."""
TITLE = 6
"""Tokens of a title that is read."""
SHORT = 5
"""Tokens of the shorter of two trunks, by default."""
UNREAD = 4
"""Tokens at the beginning of a row that are not scored, so that no token stands among those that
are read where it stands in its row: a head that counts is seen."""
COARSE = torch.bfloat16
"""Precision of the products of weights that are held in 4 or 8 bits."""


@dataclass(frozen=True)
class Sample:
    """Texts to read, of which every token but the first few is scored.

    Attributes:
        trunks: tokens that titles follow, of each context.
        titles: what follows the first trunk, and the first of them the second; they share their
            beginnings.
        beside: titles that stand in a tree too and are not scored.
        unscored: tokens of a longer trunk that are not scored; of a shorter all but one are.
    """

    trunks: list[Tokens]
    titles: list[Tokens]
    beside: list[Tokens]
    unscored: int = 1

    def plain(self, end_token: int, pad_token: int) -> Batch:
        """Rows of a trunk and a title."""
        return layouts.lay_alone(*self._asked(self.titles), end_token, pad_token)

    def tree(self, end_token: int, pad_token: int) -> Batch:
        """A tree a trunk; its scored tokens are those of `plain`, in the same order."""
        prompts, answers = self._asked([*self.titles, *self.beside])
        prompt, parted = len(prompts[0]), len(self.titles)
        behind = self.trunks[0][prompt:]
        if self.beside and len(behind) and self.beside[0][0] < behind[0]:
            # every other one before the trunk goes on, whose columns are no positions then
            answers[0][parted::2] = self.beside[::2]
        batch = layouts.lay_trees(prompts, answers, end_token, pad_token)
        slots = len(self.titles) + len(self.beside)
        kept = (batch["scored_slot"] % slots < len(self.titles)).nonzero()[:, 0]
        places, scored_place = torch.unique(batch["scored_place"][kept], return_inverse=True)
        read = {name: batch[name][places] for name in ("read_row", "read_column")}
        scored = {"scored_place": scored_place, "scored_target": batch["scored_target"][kept]}
        return {**batch, **read, **scored}

    def _asked(self, titles: list[Tokens]) -> tuple[list[Tokens], list[list[layouts.Answer]]]:
        """Prompts that are not scored, and behind them all else; the second trunk has one title."""
        prompts, answers = [], []
        for count, trunk in zip((len(titles), 1), self.trunks, strict=False):
            first = self.unscored if self.unscored < len(trunk) else 1
            prompts.append(trunk[:first])
            row: list[layouts.Answer] = [
                np.concatenate([trunk[first:], title]) if place < count else None
                for place, title in enumerate(titles)
            ]
            answers.append(row)
        return prompts, answers


def sample(
    usable: Tokens,
    depth: int,
    beside: int = 0,
    trunks: int = 2,
    few: bool = False,
    most_scored: int = ORDINARY,
    both_ends: bool = False,
    short: int = SHORT,
) -> Sample:
    """A trunk and titles that are `depth` tokens together, and other titles.

    Args:
        usable: tokens of text.
        depth: tokens of the longest row, more than `TITLE`.
        beside: tokens of other titles in its tree.
        trunks: one, or with a short one, its beginning, two.
        few: score the title at the end of the tree, and not one that it parts from too.
        most_scored: tokens of a row that are scored, at most.
        both_ends: score the title at the beginning of the tree too.
        short: tokens of the shorter of two trunks.
    """
    draw = np.random.default_rng(0)
    trunk = draw.choice(usable, max(depth - TITLE, 1))
    low, high = np.sort(draw.choice(usable, 2, replace=len(usable) < 2))
    unscored = max(UNREAD, depth - most_scored)
    trunk[unscored : unscored + 1] = high  # titles that begin lower may stand before it
    last = np.append(high, draw.choice(usable, TITLE - 1))
    branch = np.concatenate([last[: TITLE // 2], draw.choice(usable, TITLE // 2)])
    # before the scored ones, so that these stand at the end of the tree
    count = -(-beside // TITLE)
    others = [np.append(low, draw.choice(usable, TITLE - 1)) for _ in range(count)]
    titles = [last] if few else [last, branch]
    if both_ends:
        titles.append(np.append(low, np.full(TITLE - 1, usable.min())))
    return Sample([trunk, trunk[:short]][:trunks], titles, others, unscored)


@torch.no_grad()
def truth(
    model: nn.Module, batch: Batch, device: torch.device, **options: Any
) -> tuple[Tensor, Tensor, dict[int, set[int]]]:
    """(n,) the log-probabilities of a plain batch's scored tokens by the model's own forward, (n,)
    their logits, and from how many its calls of `topk` chose some, by the length of a row.

    Args:
        model: called with the tokens of one row and nothing else.
        batch, device: what to read, and where the model is.
        options: of the model's forward, where it does not go without.
    """
    found = torch.empty(len(batch["scored_target"]), dtype=torch.float32)
    of_targets = torch.empty_like(found)
    row_of = batch["read_row"][batch["scored_place"]]
    column_of = batch["read_column"][batch["scored_place"]]
    takes_tail = "logits_to_keep" in inspect.signature(causal_lm(model).forward).parameters
    rows = zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
    choices: dict[int, set[int]] = {}
    for row, (tokens, real) in enumerate(rows):
        scored = (row_of == row).nonzero()[:, 0]
        length, first, tail = int(real.sum()), 0, {}
        if length > ORDINARY and takes_tail:
            first = int(column_of[scored].min())
            tail = {"logits_to_keep": length - first}
        with _Choices() as made:
            logits = model(input_ids=tokens[real][None].to(device), **tail, **options).logits[0]
        read, target = logits[column_of[scored] - first].float().cpu(), batch["scored_target"]
        of_targets[scored] = read.gather(1, target[scored][:, None])[:, 0]
        found[scored] = of_targets[scored] - read.logsumexp(dim=-1)
        choices.setdefault(length, set()).update(made.sizes)
    return found, of_targets, choices


class _Choices(TorchFunctionMode):
    """From how many the calls of `topk` choose fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do what is asked, and look where it is a choice."""
        found = func(*args, **(kwargs or {}))
        if func in (torch.topk, Tensor.topk):
            (tensor, k), dim = _topk_arguments(*args, **(kwargs or {}))
            if k < tensor.shape[dim]:
                self.sizes.add(tensor.shape[dim])
        return found


def _topk_arguments(
    input: Tensor, k: int, dim: int = -1, *_: Any, **_others: Any
) -> tuple[tuple[Tensor, int], int]:
    return (input, int(k)), dim


class Check:
    """A model's own scores of a sample, and whether others are these.

    Args:
        model: with adapters or without, in evaluation mode.
        read: the sample.
        end_token, pad_token: of its tokenizer.
        device: where the model is.

    Attributes:
        plain: the sample in plain rows.
        expected: (n,) the model's own log-probabilities of its scored tokens.
        choices: by the length of a row, from how many things the model chose a part by `topk`.
        gathered: whether its head may be given the places alone that are read (see `Ways`).
    """

    def __init__(
        self, model: Any, read: Sample, end_token: int, pad_token: int, device: torch.device
    ) -> None:
        self._model, self.device, self.gathered = model, device, True
        self.sample = read
        self.plain = read.plain(end_token, pad_token)
        self._autocast_bit = 0.0
        self.expected, self._logits, self.choices = self._truth()

    def reason_against(self, read: Callable[[], Tensor], is_tree: bool = True) -> str | None:
        """Why what is read is not the truth, to follow a model's name; None where it is.

        Args:
            read: gives (n,) log-probabilities of the scored tokens, or those of titles, as
                (trunks, titles) sums.
            is_tree: whether tokens are shared; padded rows must be right then.
        """
        try:
            with torch.no_grad():
                found = read()
        except torch.OutOfMemoryError:  # says nothing about the model
            raise
        except Exception as error:  # models fail in ways of their own where they cannot read this
            return f"fails with {type(error).__name__}: {first_line(error)}"
        return self.reason_between(found, self.expected, is_tree)

    def reason_between(self, found: Tensor, expected: Tensor, is_tree: bool = False) -> str | None:
        """By how much two scorings of the sample differ; None where that is let pass."""
        least = LEAST
        if sums := found.ndim > 1:
            least, expected = LEAST * (TITLE + 1), self._of_titles(expected)
            found = torch.where(expected == 0, expected, found.cpu())  # not scored
        distance = apart(found.float().cpu(), expected).double()
        if bool((distance <= least).all()):
            return None
        if self.reason_against_chance:  # what moves by chance measures nothing
            return self.reason_against_chance
        moved = [(OF_TREES if is_tree else OF_ROWS, self._movement)]
        if is_tree:
            moved.append((OF_PADDING, self._movement_by_padding))
        if sums:
            moved = [(times, self._of_titles(one)) for times, one in moved]
        # under autocast logits are rounded to 16 bits, which in a small model is all that moves
        rounding = self._autocast_bit * float(self._logits.abs().max()) / 2
        parts = [slice(None)] if sums else [slice(None), self._is_title]
        for part in parts:
            in_all = max(times * _mean_square(one[part]) for times, one in moved)
            at_one = AT_ONE * max(times * float(one[part].abs().max()) for times, one in moved)
            passes = _mean_square(distance[part]) <= max(least, rounding, in_all)
            if not (
                passes and float(distance[part].max()) <= max(least, AT_ONE * rounding, at_one)
            ):
                return f"gives scores {float(distance.max()):.2g} nats apart"
        return None

    @cached_property
    def reason_against_chance(self) -> str | None:
        """How far the model's own scores move when it is asked again; None where they do not."""
        distance = float(apart(self._truth()[0], self.expected).max())
        return f"gives scores {distance:.2g} nats apart" if distance > RANDOM else None

    @cached_property
    def _is_title(self) -> Tensor:
        """(n,) which of the scored tokens follow the trunk."""
        trunk = torch.tensor([*map(len, self.sample.trunks)])
        slot = self.plain["scored_slot"]
        column = self.plain["read_column"][self.plain["scored_place"]]
        return column >= trunk[slot // len(self.sample.titles)] - 1

    def _of_titles(self, tokens: Tensor) -> Tensor:
        """(trunks, titles) sums over the tokens that follow the trunk."""
        shape = (len(self.sample.trunks), len(self.sample.titles))
        sums = torch.zeros(shape[0] * shape[1])
        of_title = torch.where(self._is_title, tokens, 0.0)
        return sums.index_add(0, self.plain["scored_slot"], of_title).view(shape)

    def moves_with_what_follows(self, share: float = 0.5) -> tuple[str | None, bool]:
        """How far a token's score moves with what comes after it, None where it does not; and
        whether more than a share of tokens' scores do, as where a model looks ahead.

        Titles of one trunk share their beginnings, whose scores must be alike.
        """
        first: dict[tuple[int, ...], int] = {}
        row_of = self.plain["read_row"][self.plain["scored_place"]].tolist()
        column_of = self.plain["read_column"][self.plain["scored_place"]].tolist()
        rows = self.plain["input_ids"].tolist()
        pairs = []
        for index, target in enumerate(self.plain["scored_target"].tolist()):
            path = (*rows[row_of[index]][: column_of[index] + 1], target)
            if (same := first.setdefault(path, index)) != index:
                pairs.append((index, same))
        now, before = self.expected.clone(), self.expected.clone()
        if not pairs:
            return None, False
        places, same = (list(part) for part in zip(*pairs, strict=True))
        now[same] = before[places]
        reason = self.reason_between(now, before)
        moved = apart(now, before)[same].quantile(1 - share)
        return reason, bool(moved > self._movement.abs().median())

    def _truth(self) -> tuple[Tensor, Tensor, dict[int, set[int]]]:
        try:
            return truth(self._model, self.plain, self.device)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, AssertionError):
            # some cannot make the cache that nobody asked them for
            return truth(self._model, self.plain, self.device, use_cache=False)

    @cached_property
    def _movement(self) -> Tensor:
        """(n,) how far the truth moves when the last bit of the input embeddings does."""
        embeddings = causal_lm(self._model).get_input_embeddings()
        coarse = any(not weights.is_floating_point() for weights in self._model.parameters())

        def move(_: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            kinds = [output.dtype, *([COARSE] if coarse else [])]
            if torch.is_autocast_enabled(output.device.type):
                kinds.append(torch.get_autocast_dtype(output.device.type))
                self._autocast_bit = torch.finfo(kinds[-1]).eps
            bit = max(torch.finfo(kind).eps for kind in kinds)
            draw = torch.Generator().manual_seed(output.shape[1])
            sign = torch.randint(0, 2, output.shape, generator=draw).to(output.device) * 2 - 1
            return (output.double() * (1 + bit * sign)).to(output.dtype)

        handle = embeddings.register_forward_hook(move)
        try:
            moved, *_ = self._truth()
        finally:
            handle.remove()
        return torch.where(moved == self.expected, 0.0, moved - self.expected)

    @cached_property
    def _movement_by_padding(self) -> Tensor:
        """(n,) how far it moves when rows stand side by side, each twice, and all are padded."""
        tokens, real = self.plain["input_ids"], self.plain["attention_mask"]
        wider = {
            "input_ids": nn.functional.pad(tokens.repeat(2, 1), (0, TITLE)),
            "attention_mask": nn.functional.pad(real.repeat(2, 1), (0, TITLE)),
        }
        with torch.no_grad():
            batch = on_device({**self.plain, **wider}, self.device)
            moved = token_log_probs(self._model, batch, Ways(gathered=self.gathered))
        return torch.where(moved.cpu() == self.expected, 0.0, moved.cpu() - self.expected)


def _mean_square(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def apart(found: Tensor, expected: Tensor) -> Tensor:
    """How far log-probabilities lie apart; nothing where both are the same infinity."""
    return torch.where(found == expected, 0.0, (found - expected).abs())


def usable_tokens(model: Any, tokenizer: Any) -> NDArray[np.int64]:
    """Tokens of text that a model has embeddings for: no special ones, nor those for pictures."""
    config, special = causal_lm(model).config, set(tokenizer.all_special_ids)
    for part in (config, config.get_text_config()):
        for name, value in part.to_dict().items():
            if name.endswith(("_token_id", "_token_index")):
                special.update(value if isinstance(value, list) else [value])
    embeddings = causal_lm(model).get_input_embeddings()
    size = min(int(embeddings.weight.shape[0]), len(tokenizer))
    tokens = np.arange(size)
    usable = tokens[~np.isin(tokens, [token for token in special if isinstance(token, int)])]
    return usable if len(usable) else tokens
