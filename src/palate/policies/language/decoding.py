"""Free generation: what a language model writes when nothing restricts it."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palate.data.contexts import Context
from palate.errors import ConfigError
from palate.policies.language.causal_lm import LanguagePolicy
from palate.policies.language.engine import Writing
from palate.policies.language.prompts import Tokens
from palate.policies.language.self_check import TITLE, Check, Sample
from palate.policies.policy import inference


def generate(
    policy: LanguagePolicy, contexts: Sequence[Context], max_tokens: int | None = None
) -> list[str]:
    """The first line that the model writes after each context's prompt, by greedy decoding.

    Args:
        policy: a language policy; prompts that list candidates show those of the contexts.
        contexts: whom to write for.
        max_tokens: tokens to write at most; by default the longest title's and the end token.

    Returns:
        One text per context, without spaces around it; empty where the model ends at once.

    Raises:
        ConfigError: what the model writes is not what its own scores say.
    """
    prompter = policy.prompter
    prompts = [policy.prompt_tokens(context) for context in contexts]
    longest = max((len(tokens) for tokens in prompter.title_tokens), default=31)
    end = policy.tokenizer.eos_token_id  # a chat model may end all instead of its turn
    ends = [prompter.end] if end in (prompter.end, None) else [prompter.end, int(end)]
    count = max_tokens or longest + 1
    with inference(policy.model):
        way = policy.readings.writing(
            max(map(len, prompts)) + count, lambda depth: _way_to_write(policy, depth)
        )
        written, _ = _written(policy, prompts, count, way, eos_token_id=ends)
    ended = [list(takewhile(lambda token: token not in ends, row)) for row in written]
    return [_first_line(policy, tokens) for tokens in ended]


def _way_to_write(policy: LanguagePolicy, depth: int) -> Writing:
    """The fastest way to write in which each token is chosen by the model's own scores."""
    readings, count = policy.readings, TITLE + 1
    prompts = readings.sample(depth).trunks
    reason = None
    for way in (Writing(True, True), Writing(False, True), Writing(False, False)):
        try:
            tokens, logits = _written(policy, prompts, count, way, min_new_tokens=count)
        except torch.OutOfMemoryError:  # says nothing about the model
            raise
        except Exception as error:  # models fail in ways of their own
            reason = f"fails ({type(error).__name__})"
            continue
        reason = _reason_against(policy, prompts, tokens, logits)
        if reason is None:
            return way
    raise ConfigError(
        f"{readings.name} does not write as it scores (it {reason}), so nothing can be said of "
        "what it writes. Leave generation out of evaluation.protocols."
    )


def _reason_against(
    policy: LanguagePolicy, prompts: list[Tokens], tokens: list[list[int]], logits: Tensor
) -> str | None:
    """Why the logits that tokens were written by are not the model's own; None where they are."""
    apart = []
    for prompt, row, found in zip(prompts, tokens, logits, strict=True):
        read = Sample([prompt], [np.array(row)], [])
        check = Check(policy.model, read, policy.prompter.end, policy.pad, policy.device)
        # of the tokens behind the prompt, but the end token behind them
        own = check.expected.clone()
        written = slice(len(prompt) - 1, len(prompt) - 1 + len(row))
        targets = torch.tensor(row)[:, None]
        own[written] = found.float().cpu().log_softmax(dim=-1).gather(1, targets)[:, 0]
        apart.append(check.reason_between(own, check.expected))
    return next(filter(None, apart), None)


def _written(
    policy: LanguagePolicy, prompts: Sequence[Tokens], count: int, way: Writing, **options: Any
) -> tuple[list[list[int]], Tensor]:
    """Tokens behind each prompt, and the (prompts, tokens, vocabulary) logits they were chosen by.

    Args:
        policy: whose model writes.
        prompts: what it writes behind.
        count: tokens at most.
        way: how rows are fed.
        options: of `generate`.
    """
    model: Any = policy.model
    tokens: list[list[int]] = []
    logits: list[Tensor] = []
    keeps = "min_new_tokens" in options
    for rows in [prompts] if way.together else [[prompt] for prompt in prompts]:
        width = max(map(len, rows))
        input_ids = np.full((len(rows), width), policy.pad, np.int64)
        real = np.zeros((len(rows), width), np.int64)
        for row, prompt in enumerate(rows):
            input_ids[row, width - len(prompt) :] = prompt
            real[row, width - len(prompt) :] = 1
        found = model.generate(
            input_ids=torch.from_numpy(input_ids).to(policy.device),
            attention_mask=torch.from_numpy(real).to(policy.device),
            max_new_tokens=count,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # a model's own defaults may punish copying a listed title
            no_repeat_ngram_size=0,
            min_length=0,
            bad_words_ids=None,
            suppress_tokens=None,
            pad_token_id=policy.pad,
            use_cache=way.cached,
            return_dict_in_generate=keeps,
            output_logits=keeps,
            **options,
        )
        tokens += (found.sequences if keeps else found)[:, width:].tolist()
        logits += [torch.stack(found.logits, dim=1)] if keeps else []
    return tokens, torch.cat(logits) if logits else torch.empty(0)


def written_titles(policy: LanguagePolicy) -> list[str]:
    """Each item's title as the policy would write it: long ones are cut as in training."""
    return [_first_line(policy, tokens.tolist()) for tokens in policy.prompter.title_tokens]


def _first_line(policy: LanguagePolicy, tokens: list[int]) -> str:
    lines = policy.tokenizer.decode(tokens, skip_special_tokens=True).strip().splitlines()
    return lines[0].strip() if lines else ""
