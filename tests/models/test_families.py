"""Every kind of language model is scored as it scores itself, or refused in a sentence."""

import pytest

from models.walk import walk

STATED = ("llama", "granite", "gemma2", "mistral", "qwen3", "bloom", "gpt_neo", "mamba")


@pytest.mark.parametrize("kind", STATED)
def test_a_kind_is_right_or_refused(kind):
    found = walk(kind)
    assert found.status in ("tree", "plain", "refused"), found.reason
