"""Free generation: what a language model writes when nothing restricts it."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from palate.data.contexts import Context
from palate.policies.language.causal_lm import LanguagePolicy
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
    """
    prompter = policy.prompter
    prompts = [policy.prompt_tokens(context) for context in contexts]
    longest = max((len(tokens) for tokens in prompter.title_tokens), default=31)
    width = max(map(len, prompts))
    input_ids = np.full((len(prompts), width), policy.pad, np.int64)
    real = np.zeros((len(prompts), width), np.int64)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = prompt
        real[row, width - len(prompt) :] = 1
    model: Any = policy.model
    end = policy.tokenizer.eos_token_id  # a chat model may end all instead of its turn
    ends = [prompter.end] if end in (prompter.end, None) else [prompter.end, int(end)]
    with inference(model):
        written = model.generate(
            input_ids=torch.from_numpy(input_ids).to(policy.device),
            attention_mask=torch.from_numpy(real).to(policy.device),
            max_new_tokens=max_tokens or longest + 1,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # a model's own defaults may punish copying a listed title
            no_repeat_ngram_size=0,
            min_length=0,
            bad_words_ids=None,
            suppress_tokens=None,
            eos_token_id=ends,
            pad_token_id=policy.pad,
        )[:, width:]
    ended = [list(takewhile(lambda token: token not in ends, row)) for row in written.tolist()]
    return [_first_line(policy, tokens) for tokens in ended]


def written_titles(policy: LanguagePolicy) -> list[str]:
    """Each item's title as the policy would write it: long ones are cut as in training."""
    return [_first_line(policy, tokens.tolist()) for tokens in policy.prompter.title_tokens]


def _first_line(policy: LanguagePolicy, tokens: list[int]) -> str:
    lines = policy.tokenizer.decode(tokens, skip_special_tokens=True).strip().splitlines()
    return lines[0].strip() if lines else ""
