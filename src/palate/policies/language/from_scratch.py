"""Small language models made on the spot: a BPE tokenizer and a Llama with random weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
PAD_ID, BEGIN_ID, END_ID = 0, 1, 2
MAX_TOKENS = 1024
"""Longest input of a model made here."""


@dataclass(frozen=True)
class Size:
    """Shape of a model made from scratch."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int


SIZES = {
    "tiny": Size(hidden=128, layers=4, heads=4, inner=344, vocabulary=2048),  # about 1 M parameters
    "small": Size(hidden=320, layers=7, heads=5, inner=864, vocabulary=4096),  # about 10 M
}


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with begin, end and padding tokens, trained on some texts.

    It puts the begin token before a text, as prompts have it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN}:0 $A:0",
        pair=f"{BEGIN}:0 $A:0 $B:1",
        special_tokens=[(BEGIN, BEGIN_ID)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
    )


def new_model(
    size: str, tokenizer: PreTrainedTokenizerFast, seed: int, max_tokens: int = MAX_TOKENS
) -> LlamaForCausalLM:
    """A Llama of a named size with random weights drawn from a seed.

    Args:
        size: "tiny" (about 1 M parameters) or "small" (about 10 M).
        tokenizer: fixes the vocabulary and the special tokens.
        seed: names the initial weights.
        max_tokens: longest input.
    """
    shape = SIZES[size]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=BEGIN_ID,
        eos_token_id=END_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
