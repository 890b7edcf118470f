"""Small tokenizers of every kind that language models have, and chat templates of every shape."""

import json
from functools import cache

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TITLES = [
    "Velvet Alibi",
    "12 Monkeys",
    "quiet harbour",
    "Élan über Ñandú",
    "😀 Face",
    "  led by spaces",
    "Who Goes There?",
    "(500) Days",
    "Velvet",
    "東京物語",
    "Alibi of the Harbour 1999",
    "'burbs, The",
]
CORPUS = [
    *[title.strip() for title in TITLES] * 8,
    *["Chosen so far:\nVelvet Alibi\nquiet harbour\n12 Monkeys\nNext:\nWho?\nVelvet\n"] * 8,
    *["user assistant model system INST You are of help. USER: ASSISTANT:"] * 8,
    "[INST] Chosen by the user [/INST] Velvet",
]
MARKERS = ["<|im_start|>", "<|im_end|>", "<|turn|>", "<|eot_id|>", "<|user|>", "<|assistant|>"]
SPECIAL = ["<unk>", "<s>", "</s>", *MARKERS]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACE = "▁"


def byte_level(split: str | None) -> Tokenizer:
    """GPT-2's splitting, or another: Llama 3 and Qwen join a line break to a colon before it."""
    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split is not None:
        one.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    one.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    one.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return one


def sentencepiece(prefix: str) -> Tokenizer:
    """BPE with ▁ for a space and bytes for what it does not know; `prefix` says where a space is
    put before a text: "first" (Llama), "each" segment (Llama, legacy) or "none" (Gemma)."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    lines = [line for text in CORPUS for line in text.splitlines()]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    trained.train_from_iterator(lines, trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = [*SPECIAL, *BYTES, *(p for p in model["vocab"] if p not in SPECIAL)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [tuple(pair) for pair in model["merges"]]
    one = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    spaces = normalizers.Replace(" ", SPACE)
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix == "first":
        one.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", split=False)
    elif prefix == "each":
        one.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces])
    else:
        one.normalizer = spaces
    if prefix != "none":
        back.append(decoders.Strip(" ", 1, 0))
    one.decoder = decoders.Sequence(back)
    return one


def unigram(line_breaks: str) -> Tokenizer:
    """A unigram model with ▁ before every word; a line break is "kept", "dropped" (T5: texts are
    cut at white space) or a "space" (XGLM: white space is normalised)."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    lines = [line for text in CORPUS for line in text.splitlines()]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(lines, trainer)
    pieces = [pair for pair in json.loads(trained.to_str())["model"]["vocab"] if pair[0] != "<unk>"]
    known = {piece for piece, _ in pieces}
    vocabulary = [
        *((name, 0.0) for name in SPECIAL),
        *((byte, -20.0) for byte in BYTES),
        *(() if SPACE in known else ((SPACE, -5.0),)),
        *(("\n", -6.0),) * (line_breaks == "kept"),
        *((piece, score) for piece, score in pieces),
    ]
    one = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=True))
    metaspace = pre_tokenizers.Metaspace(SPACE, "first" if line_breaks == "kept" else "always")
    one.pre_tokenizer = metaspace
    if line_breaks == "dropped":
        one.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    if line_breaks == "space":
        one.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    one.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return one


KINDS = {
    "byte_level_gpt2": (byte_level, None),
    "byte_level_llama3": (byte_level, LLAMA_3),
    "sentencepiece_first": (sentencepiece, "first"),
    "sentencepiece_legacy": (sentencepiece, "each"),
    "sentencepiece_gemma": (sentencepiece, "none"),
    "unigram_kept": (unigram, "kept"),
    "unigram_dropped": (unigram, "dropped"),
    "unigram_space": (unigram, "space"),
}
WITHOUT_LINE_BREAKS = ("unigram_dropped", "unigram_space")

_EACH = "{% for m in messages %}"
CHATS = {
    # Qwen: a system prompt of its own, no begin token
    "chatml": "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are of help."
    "<|im_end|>\n{% endif %}"
    + _EACH
    + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    # Llama 3: begin token, two line breaks, messages trimmed
    "llama3": "{{ bos_token }}"
    + _EACH
    + "<|turn|>{{ m.role }}<|turn|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant<|turn|>\n\n{% endif %}",
    # Llama 2: no special markers, a space before the answer, ended by the end token
    "llama2": _EACH + "{% if m.role == 'user' %}{{ bos_token }}{{ '[INST] ' + m.content.strip() + "
    "' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    # the answer right behind a special token
    "marked": _EACH + "<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    # words alone, and nothing that ends an answer
    "words": "{{ bos_token }}" + _EACH + "{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
}
ENDS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama2": "</s>",
    "marked": "<|im_end|>",
    "words": "</s>",
}


@cache
def _trained(kind: str) -> str:
    made, shape = KINDS[kind]
    return made(shape).to_str()


def tokenizer_of(
    kind: str, chat: str | None = None, begins: bool = True
) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind, with a chat template or none, with a begin token or none."""
    begin = {"bos_token": "<s>"} if begins else {}
    one = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(kind)),
        unk_token="<unk>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        **begin,
    )
    one.add_special_tokens({"additional_special_tokens": MARKERS})
    if chat is not None:
        one.chat_template = CHATS[chat]
    return one


def model_for(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of two small layers over a tokenizer's vocabulary."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            num_attention_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            **shape,
        )
    ).eval()
