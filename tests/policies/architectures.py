"""Small models of every architecture the engines are held to, and what scoring means."""

from copy import deepcopy

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

SMALL = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 8}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL),
    "qwen2, windows in some layers": Qwen2Config(
        **SMALL, use_sliding_window=True, max_window_layers=2, **WINDOW
    ),
    "qwen3": Qwen3Config(**SMALL, head_dim=8),
    "mistral, window": MistralConfig(**SMALL, **WINDOW),
    "gemma2, windows, soft caps": Gemma2Config(
        **SMALL, head_dim=8, **WINDOW, attn_implementation="eager"
    ),
    "gemma3, windows": Gemma3TextConfig(**SMALL, head_dim=8, sliding_window_pattern=2, **WINDOW),
    "gpt2": GPT2Config(
        vocab_size=600, n_embd=32, n_layer=3, n_head=4, n_positions=512, bos_token_id=1
    ),
    "phi3": Phi3Config(**SMALL),
    "phi3, window": Phi3Config(**SMALL, **WINDOW),
}


def model_of(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(deepcopy(config))
    with torch.no_grad():
        for weights in model.parameters():  # fresh ones hardly look at what they read
            weights.mul_(3.0) if weights.ndim > 1 else weights.add_(0.1)
    return model.eval()


def by_definition(model, prompt, title, end):
    """log π(title, end | prompt) from the model's own logits, nothing shared."""
    tokens = torch.tensor(np.concatenate([prompt, title]))[None]
    with torch.no_grad():
        log_probs = model.eval()(tokens).logits[0].double().log_softmax(-1)
    target = [*title, end]
    places = range(len(prompt) - 1, len(prompt) + len(title))
    return sum(float(log_probs[p, t]) for p, t in zip(places, target, strict=True))
