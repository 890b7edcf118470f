"""Small encoders with random weights, saved as Hugging Face models are."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaModel,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "red", "moon", "harbour", "over", "the", "nights"]
WIDTHS = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
LAYERS: dict[str, Any] = {"num_hidden_layers": 2, **WIDTHS}
VOCABULARY = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PIXELS = {"image_size": 32, "patch_size": 16}

TEXT_MODELS = {
    "bert": lambda: BertModel(BertConfig(max_position_embeddings=16, **VOCABULARY, **LAYERS)),
    "roberta": lambda: RobertaModel(
        RobertaConfig(max_position_embeddings=16, **{**VOCABULARY, "pad_token_id": 1}, **LAYERS)
    ),
    "llama": lambda: LlamaModel(LlamaConfig(max_position_embeddings=16, **VOCABULARY, **LAYERS)),
    "t5": lambda: T5Model(
        T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, **VOCABULARY)
    ),
    "clip": lambda: _clip(),
    "siglip": lambda: _siglip(),
}
IMAGE_MODELS = {
    "vit": lambda: ViTModel(ViTConfig(**PIXELS, **LAYERS)),
    "resnet": lambda: ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
    "clip": lambda: _clip(),
    "siglip": lambda: _siglip(),
}


def _clip() -> CLIPModel:
    text = {**VOCABULARY, **LAYERS, "max_position_embeddings": 16}
    vision = {**LAYERS, **PIXELS}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def _siglip() -> SiglipModel:
    text = {**VOCABULARY, **LAYERS, "max_position_embeddings": 16}
    return SiglipModel(SiglipConfig(text_config=text, vision_config={**LAYERS, **PIXELS}))


def saved_text_encoder(kind: str, folder: Path) -> Path:
    """A model and a tokenizer of whole words; Llama's has no padding token."""
    tokens = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind != "llama":
        tokens.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if kind != "llama":
        special["pad_token"] = "<s>" if kind == "roberta" else "<pad>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, **special)
    tokenizer.save_pretrained(folder)
    return _saved(TEXT_MODELS[kind], folder)


def saved_image_encoder(kind: str, folder: Path) -> Path:
    """A model and an image processor to 32 × 32 pixels."""
    size = {"height": 32, "width": 32}
    ViTImageProcessor(size=size).save_pretrained(folder)
    return _saved(IMAGE_MODELS[kind], folder)


def _saved(make: Any, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        make().save_pretrained(folder)
    return folder
