"""The walk finds what is planted: a lost scale, cap or window, a cut gradient."""

import pytest

from models.tiny import tiny_model
from models.walk import compare, own_model, tokenizer


@pytest.fixture
def folder(tmp_path):
    def made(kind):
        tiny_model(kind, len(tokenizer())).save_pretrained(tmp_path)
        tokenizer().save_pretrained(tmp_path)
        return tmp_path

    return made


def without(setting, value):
    """A model that lost a setting, as if its forward did not know it."""

    def plant(own):
        for module in own.modules():
            for holder in (module, getattr(module, "config", None)):
                if getattr(holder, setting, None) is not None:
                    setattr(holder, setting, value)

    return plant


def scaled_head(own):
    """A head whose output is scaled by a hundredth more than it should be."""
    own.lm_head.weight.data.mul_(1.01)


PLANTED = {
    "granite's scale": ("granite", without("logits_scaling", 1.0)),
    "cohere's scale": ("cohere", without("logit_scale", 1.0)),
    "falcon-h1's multiplier": ("falcon_h1", without("lm_head_multiplier", 1.0)),
    "gemma 2's cap": ("gemma2", without("final_logit_softcapping", None)),
    "granite's residual multiplier": ("granite", without("residual_multiplier", 1.0)),
    "mistral's window": ("mistral", without("sliding_window", None)),
    "a window that is one shorter": ("mistral", without("sliding_window", 7)),
    "gemma 3's windows": ("gemma3_text", without("sliding_window", 500)),
    "a chunk of llama 4": ("llama4_text", without("attention_chunk_size", 500)),
    "a head a hundredth off": ("llama", scaled_head),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name, folder):
    kind, plant = PLANTED[name]
    place = folder(kind)
    own = own_model(place)
    plant(own)
    found = compare(kind, place, own)
    assert found.status == "wrong", found
    assert "nats from the model's own" in found.reason


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in PLANTED.values()}))
def test_without_one_it_is_right(kind, folder):
    place = folder(kind)
    found = compare(kind, place, own_model(place))
    assert found.status in ("tree", "plain"), found


def test_a_gradient_that_is_cut_is_found(folder):
    place = folder("llama")
    own = own_model(place)
    own.model.layers[1].mlp.register_forward_hook(lambda module, given, made: made.detach())
    found = compare("llama", place, own)
    assert found.status == "wrong"
    assert "gradient" in found.reason
