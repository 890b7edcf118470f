"""Every kind of language model is scored as it scores itself, or refused in a sentence."""

import re
from pathlib import Path

import pytest

from models.table import committed, row
from models.tiny import EVERY
from models.walk import walk

STATED = (
    # attention over everything; other norms, rotations, scales and caps
    *("llama", "qwen3", "gpt2", "granite", "cohere", "falcon_h1", "hyperclovax", "minicpm3"),
    # windows, chunks, local layers, sparse attention
    *("mistral", "gemma2", "gemma3", "gpt_neo", "llama4", "qwen2, a window", "axk2", "doge"),
    # positions and masks of their own
    *("bloom", "mpt", "opt", "gpt_neox", "whisper", "cpmant", "ctrl", "falcon, alibi"),
    # recurrences, convolutions, hashing
    *("mamba2", "lfm2_moe", "recurrent_gemma", "rwkv", "qwen3_next", "xlstm", "reformer"),
    # experts
    *("mixtral", "gpt_oss", "deepseek_v3", "phimoe", "dbrx"),
    # masked models, encoders, no head, parts of a larger model
    *("bert", "bert, a decoder", "xlm", "xlnet", "bart", "bart, with its encoder", "prophetnet"),
    *("llama, without a head", "llama, a classifier", "gemma3n_text", "mllama", "musicgen"),
)
"""One or two of each mechanism; `make test-models` walks all."""
BEFORE = Path(__file__).with_name("right_before.txt")
NOT_CAUSAL = re.compile(
    "(bert|bert-generation|big_bird|camembert|data2vec-text|electra|ernie|megatron-bert|rembert"
    "|roberta|roberta-prelayernorm|roc_bert|roformer|xlm-roberta|xlm-roberta-xl|xmod)"
)
"""Masked models by default: each token saw those behind it, and scores of texts were none."""


def right_before() -> set[str]:
    """Kinds that were right when the walk was first made."""
    lines = BEFORE.read_text("utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def check(kind: str) -> None:
    found = walk(kind)
    assert found.status in ("tree", "plain", "refused", "unbuilt"), found.reason
    if kind in right_before() and not NOT_CAUSAL.fullmatch(kind):
        assert found.status in ("tree", "plain"), found.reason
    if found.status == "refused":
        assert len(found.reason) > 40
    assert row(found) == committed()[kind]


@pytest.mark.parametrize("kind", STATED)
def test_a_kind_is_right_or_refused(kind):
    check(kind)


@pytest.mark.models
@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind not in STATED])
def test_every_other_kind_is_right_or_refused(kind):
    check(kind)


def test_the_table_holds_every_kind_and_nothing_wrong():
    lines = committed()
    assert list(lines) == list(EVERY)
    assert not [line for line in lines.values() if "**" in line]
