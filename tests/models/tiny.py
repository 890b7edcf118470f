"""A tiny model of any kind that transformers knows, with what its published default is known for.

Sizes shrink; what changes *how* scores are made stays: kinds of layers in their order, windows,
chunks and sparse attention (shorter than the rows that are read, so that rows cross them), soft
caps, multipliers, kinds of rotary embeddings. A multiplier that is 1 by default, as Granite's are
before a published file sets them, becomes another number, since a lost 1 would not show.
"""

import re
from copy import deepcopy
from functools import cache
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
LAYERS = 4
"""Layers of a model, unless it has more kinds of them."""
LONGEST = 512
WINDOW = 8
"""Tokens that a sliding window sees; prompts are several times as long."""
CHUNK = 16
"""Tokens of a chunk of attention or of a recurrence."""

SIZES: dict[str, Any] = {
    # widths
    r"hidden_size|d_model|n_embd|emb_dim|embedding_dim|embedding_size|word_embed_proj_dim"
    r"|hidden_size_global|backbone_hidden_size|lru_width"
    r"|input_embedding_size|output_embedding_size|input_size": 64,
    r".*intermediate_size.*|.*ffn_dim|ffn_hidden_size|expert_ffn_hidden_size|d_ff|dff|dim_ff"
    r"|feed_forward_size|d_inner|ffn_dim_inner": 48,
    r"hidden_size_per_layer_input|ple_embed_dim": 16,
    # heads
    r"num_attention_heads|n_head|n_heads|(encoder_|decoder_)?attention_heads|num_heads"
    r"|num_(en|de)coder_attention_heads|swa_num_attention_heads|index_n_heads": 4,
    r"(swa_)?num_key_value_heads|num_kv_heads|kv_n_heads|num_global_key_value_heads": 2,
    r"(index_|v_|swa_|global_|swa_v_)?head_dim|kv_channels|d_kv|d_head|dim_head"
    r"|attention_head_size": 16,
    r"qk_nope_head_dim": 8,
    r"qk_rope_head_dim": 8,
    r"qk_head_dim": 16,
    r"(q|kv|o)_lora_rank|gated_norm_rank|adapter_rank|laurel_rank|hc_lowrank|d_rel"
    r"|router_hidden_size": 16,
    # depth
    r"num_hidden_layers|n_layers?|num_layers|(encoder_|decoder_)layers|num_(en|de)coder_layers"
    r"|num_blocks|attention_layers": LAYERS,
    # experts
    r"num_experts|num_local_experts|n_routed_experts|moe_num_experts": 8,
    r"num_experts_per_tok(en)?|moe_top_?k|moe_k": 2,
    r"n_group|topk_group|num_expert_group": 1,
    r"zero_expert_num": 2,
    # states
    r"state_size|ssm_state_size|mamba_d_state": 8,
    r"chunk_size|mamba_chunk_size": CHUNK,
    r"(linear_)?(key|value)_head_dim|linear_(key|value)_head_dim|linear_head_dim": 16,
    r"linear_num_(key|value)?_?heads": 4,
    # vocabulary and length
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_target_positions|context_length"
    r"|model_max_length|position_bias_max_distance": LONGEST,
    # what a layer sees
    r"sliding_window|sliding_window_size|attention_window_size|window_size|local_attention"
    r"|keep_window_size|local_attention_window_len": WINDOW,
    r"attention_chunk_size": CHUNK,
    r"index_topk": WINDOW,
}
SHARP = 1.5
"""Standard deviation of logits, in nats, at least."""
MULTIPLIERS = {
    "logits_scaling": 8.0,
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.22,
    "lm_head_multiplier": 0.0390625,
    "key_multiplier": 0.6,
    "attention_in_multiplier": 0.8,
    "attention_out_multiplier": 0.9375,
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.23,
    "route_scale": 2.448,
    "routed_scaling_factor": 2.5,
    "router_scaling_factor": 2.5,
}
"""Multipliers that are 1 in a default configuration, as published files set them, or like it."""
NOISE = re.compile("drop|jitter")
"""In the names of settings that make noise in training."""
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16, "attn_layer_indices": [1, 3]},
    "bloom": {"n_layer": 3},
    "codegen": {"rotary_dim": 8},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "deepseek_v4": {
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    },
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta, "mrope_section": [4, 2, 2]}
            for kind, theta in (("sliding_attention", 1e4), ("full_attention", 1e6))
        },
    },
    "dots3_note_text": {
        "per_layer_config": {
            layer: {
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "kv_lora_rank": 24,
                "head_dim": 24,
                "qk_nope_head_dim": 16,
                "qk_rope_head_dim": 8,
                "v_head_dim": 16,
            }
            for layer in (1, 3)
        },
    },
    "dots3_note": {
        "vision_config": {"adapter_in_dim": 64, "adapter_out_dim": 64},
        "audio_config": {"adapter_input_size": 64, "adapter_out_dim": 64},
    },
    "emu3": {"vocabulary_map": {"<image>": 3}, "vq_config": {"base_channels": 32}},
    "gemma4_assistant": {"text_config": {"num_kv_shared_layers": LAYERS}},
    "gemma4_unified_assistant": {"text_config": {"num_kv_shared_layers": LAYERS}},
    "blt": {"encoder_hash_byte_group_vocab": 500},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_top_k": 2, "moe_jitter_eps": 0.01},
    },
    "dots1": {
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    "falcon_h1": {
        "mamba_d_ssm": 128,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mlp_multipliers": [0.88, 0.18],
        "ssm_multipliers": [0.35, 0.25, 0.18, 0.5, 0.35],
    },
    "gemma3n_text": {
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0],
        "intermediate_size": 48,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "inkling2_text": {"rel_extent": CHUNK, "log_scaling_n_floor": CHUNK},
    "inkling_text": {"rel_extent": CHUNK},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"block_multiple_of": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4_text": {"floor_scale": CHUNK},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2},
    "minicpm3": {"dim_model_base": 8},
    "minimax": {
        "block_size": CHUNK,
        "full_attn_alpha_factor": 3.56,
        "linear_attn_alpha_factor": 3.56,
        "mlp_alpha_factor": 3.56,
    },
    "minimax_m3_vl_text": {"index_block_size": 4, "index_topk_blocks": 2},
    "ministral": {"head_dim": 16},
    "mllama_text_model": {"cross_attention_layers": [1]},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 16},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2},
    "prophetnet": {"relative_max_distance": CHUNK, "num_buckets": 8},
    "qwen4_exp_text": {
        "ple_layer_ids": [1],
        "ple_embed_dim": 64,
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 50,
        "make_ngram_vocab_size_divisible_by": 8,
        "split_ngram_parts": 1,
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": WINDOW,
        "indexer_compress_ratio": 2,
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [16, 32],
        "axial_pos_embds_dim": [16, 48],
        "lsh_attn_chunk_length": CHUNK,
        "local_attn_chunk_length": CHUNK,
    },
    "rwkv": {"attention_hidden_size": 64, "rescale_every": 2},
    "roc_bert": {
        "pronunciation_vocab_size": 320,
        "shape_vocab_size": 320,
        "pronunciation_embed_dim": 16,
        "shape_embed_dim": 16,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 5,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid"],
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "n_mamba_heads": 8},
}
"""What the rules do not shrink rightly, by the type of a configuration or of a part of one."""
NEEDED: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        }
    },
}
"""What a configuration's constructor cannot do without."""
WHOLE = {
    "emu3": "Emu3ForConditionalGeneration",
    "mllama": "MllamaForConditionalGeneration",
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
    "bart, with its encoder": "BartForConditionalGeneration",
    "marian, with its encoder": "MarianMTModel",
    "whisper, with its encoder": "WhisperForConditionalGeneration",
    "bert, without a head": "BertModel",
    "llama, without a head": "LlamaModel",
    "llama, a classifier": "LlamaForSequenceClassification",
}
"""Classes whose files are published, where these are not of the causal model alone."""
WINDOWED = {"sliding_window": WINDOW}
OF_QWEN = {"use_sliding_window": True, "max_window_layers": 2, **WINDOWED}
DECODERS = (
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie"),
    *("megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Kinds whose default configuration is a masked model's."""
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"{kind}, a decoder": {"is_decoder": True} for kind in DECODERS},
    "xlm, causal": {"causal": True},
    "falcon, alibi": {"alibi": True},
    "falcon, new decoder": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "phi3, a window": WINDOWED,
    "qwen2, a window": OF_QWEN,
    "qwen2_moe, a window": OF_QWEN,
    "qwen3, a window": OF_QWEN,
    "starcoder2, a window": WINDOWED,
    "gpt_neox, in sequence": {"use_parallel_residual": False},
    "mpt, with learnt positions": {"attn_config": {"alibi": False}},
}
"""Common settings that are no kind's default."""
EVERY = (*KINDS, *VARIANTS, *(name for name in WHOLE if name not in KINDS))
"""All that is walked; what is before a comma is the kind."""


@cache
def _rules() -> list[tuple[re.Pattern[str], Any]]:
    return [(re.compile(names), size) for names, size in SIZES.items()]


def tiny_settings(
    default: PretrainedConfig, vocabulary: int, noise: float | None = None
) -> dict[str, Any]:
    """What to set in a configuration's constructor to have it small.

    Args:
        default: as its class makes it.
        vocabulary: tokens of the tokenizer.
        noise: dropout of every kind, and jitter; None for the default's.
    """
    found: dict[str, Any] = {}
    for name, value in vars(default).items():
        if isinstance(value, PretrainedConfig):
            found[name] = tiny_settings(value, vocabulary, noise)
        elif noise is not None and NOISE.search(name) and not isinstance(value, (bool, str)):
            found[name] = noise
        elif name in TOKENS:
            found[name] = TOKENS[name]
        elif re.fullmatch(r"((de|un)\w+_)?vocab_size(_per_layer_input)?", name) and value:
            found[name] = vocabulary
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if name in MULTIPLIERS and value == 1:
                found[name] = MULTIPLIERS[name]
            for pattern, size in _rules():
                if pattern.fullmatch(name) and value > size:
                    found[name] = size
        elif isinstance(value, list) and name.endswith("_types") and len(value) > LAYERS:
            found[name] = shortened(value)
    published = vars(default)
    heads = published.get("num_attention_heads")
    if heads is not None and heads == published.get("num_key_value_heads"):
        found["num_key_value_heads"] = found.get("num_attention_heads", heads)
    if "qk_rope_head_dim" in found and published.get("head_dim") == published["qk_rope_head_dim"]:
        found["head_dim"] = found["qk_rope_head_dim"]
    return merged(found, OVERRIDES.get(default.model_type, {}))


def merged(settings: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Settings with others over them, parts of a configuration within themselves."""
    found = {**settings, **deepcopy(others)}
    for name in settings.keys() & others.keys():
        if isinstance(settings[name], dict) and isinstance(others[name], dict):
            found[name] = merged(settings[name], others[name])
    return found


def shortened(kinds: list[str]) -> list[str]:
    """Kinds of layers for a shallow model: all of them, in the order in which they first come."""
    distinct = list(dict.fromkeys(kinds))
    return [distinct[place % len(distinct)] for place in range(max(LAYERS, len(distinct)))]


class Unbuildable(Exception):
    """Why this environment cannot make a model of a kind."""


def tiny_model(kind: str, vocabulary: int, noise: float | None = None) -> nn.Module:
    """A small model with random weights, wide enough that what it reads matters.

    Args:
        kind: one of `EVERY`.
        vocabulary: tokens of its tokenizer.
        noise: dropout of every kind, and jitter, in training; None for the default's.

    Raises:
        Unbuildable: transformers cannot make one here.
    """
    name = kind.partition(",")[0]
    made = CONFIG_MAPPING[name]
    try:
        settings = tiny_settings(made(**NEEDED.get(name, {})), vocabulary, noise)
        settings = merged(NEEDED.get(name, {}), settings)
        config = made(**merged(settings, VARIANTS.get(kind, {})))
        torch.manual_seed(0)
        if kind in WHOLE:
            model = getattr(transformers, WHOLE[kind])(config)
        else:
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        said = re.sub(r"\s+", " ", str(error))[:160]
        raise Unbuildable(f"{type(error).__name__}: {said}") from error
    widen(model)
    return sharpened(model.eval())


@torch.no_grad()
def widen(model: nn.Module) -> None:
    """Give matrices entries of about one over the root of their width, and vectors some noise.

    Fresh weights hardly look at what they read: a lost window would move titles by less than
    rounding does.
    """
    for weights in model.parameters():
        if not weights.is_floating_point():
            continue
        if weights.ndim < 2:
            weights.add_(torch.randn_like(weights), alpha=0.1)
            continue
        spread = float(weights.std())
        if 0 < spread < (target := 1.5 / weights.shape[-1] ** 0.5):
            weights.mul_(target / spread)


@torch.no_grad()
def sharpened(model: nn.Module) -> nn.Module:
    """A model whose next tokens differ by nats, whatever scale its head's output is put to."""
    tokens = torch.arange(3, 43)[None]
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if not hasattr(head, "weight"):
        return model
    for _ in range(8):
        try:
            logits = model(input_ids=tokens, use_cache=False).logits
        except Exception:  # it needs more than text; the walk asks its language model
            head.weight.mul_(8.0)
            return model
        if float(logits.std()) > SHARP:
            break
        head.weight.mul_(2.0)
    return model
