"""A saved tokenizer, read by others, makes the tokens that Palate reads and scores."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    Qwen2Tokenizer,
)

from palate.data.contexts import Context
from palate.policies import LanguagePolicy, load_policy
from palate.policies.fingerprint import fingerprint
from palate.policies.language.chat import chat_of
from palate.policies.language.from_scratch import train_tokenizer
from palate.policies.language.portable import save_tokenizer
from palate.policies.language.prompters import Prompter
from palate.policies.language.prompts import parse_templates
from policies.small_tokenizers import (
    CHATS,
    KINDS,
    TITLES,
    WITHOUT_LINE_BREAKS,
    model_for,
    tokenizer_of,
)

ASKS = "Chosen so far:\n{history}\nNext:\n"
HISTORY = np.array([0, 1, 5, 2])
EVERY = list(itertools.product(KINDS, [None, *CHATS], [True, False]))
MARKERS = ["<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>"]


def prompter_of(tokenizer):
    templates = parse_templates(ASKS, "test")
    chat = chat_of(tokenizer, None, "test")
    return Prompter(tokenizer, templates, TITLES, 20, 400, chat=chat)


def saved(one, folder):
    save_tokenizer(one.tokenizer, one.begin.tolist(), one.chat, folder)
    return AutoTokenizer.from_pretrained(folder)


def as_others_read(tokenizer, one, prompt, title):
    """Tokens of a prompt, and of it with its answer, as TRL's DPOTrainer makes them."""
    if one.chat is None:
        return [tokenizer(text)["input_ids"] for text in (prompt, prompt + title + "</s>")]
    asked = [{"role": "user", "content": prompt}]
    answered = [*asked, {"role": "assistant", "content": title}]
    return [
        tokenizer.apply_chat_template(turns, add_generation_prompt=asks)["input_ids"]
        for turns, asks in ((asked, True), (answered, False))
    ]


@pytest.mark.parametrize(("kind", "chat", "begins"), EVERY)
def test_every_kind_of_tokenizer_reads_alike_elsewhere(kind, chat, begins, tmp_path):
    one = prompter_of(tokenizer_of(kind, chat, begins))
    before = one.tokenizer.backend_tokenizer.to_str(), one.tokenizer.chat_template
    other = saved(one, tmp_path)
    assert (one.tokenizer.backend_tokenizer.to_str(), one.tokenizer.chat_template) == before
    expected = one.prompt(HISTORY, 0).tolist()
    text = one.prompt_text(HISTORY, 0)
    for item, title in enumerate(TITLES):
        prompt, whole = as_others_read(other, one, text, title.strip())
        answer = [*one.title_tokens[item].tolist(), one.end]
        assert whole == [*expected, *answer], title
        # a line break that is a space, at the end of a text, is left to what follows it
        assert prompt == expected or (kind in WITHOUT_LINE_BREAKS and prompt[:-1] == expected)


@pytest.mark.parametrize("chat", CHATS)
def test_other_conversations_are_rendered_as_before(chat, tmp_path):
    tokenizer = tokenizer_of("byte_level_llama3", chat)
    other = saved(prompter_of(tokenizer), tmp_path)
    system = [{"role": "system", "content": "Be short."}]
    turns = [{"role": role, "content": f"{role} says"} for role in ("user", "assistant", "user")]
    for messages, asks in itertools.product((system + turns, turns, system + turns[:2]), (0, 1)):
        options = {"tokenize": False, "add_generation_prompt": bool(asks)}
        expected = tokenizer.apply_chat_template(messages, **options)
        assert other.apply_chat_template(messages, **options) == expected
    # saved again it does not grow
    again = saved(prompter_of(other), tmp_path / "again")
    assert again.chat_template == other.chat_template


def test_the_text_around_a_message_is_the_same_on_every_day(tmp_path):
    tokenizer = tokenizer_of("byte_level_gpt2", "chatml", begins=False)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + CHATS["chatml"]
    one = prompter_of(tokenizer)
    other = saved(one, tmp_path)
    asked = [{"role": "user", "content": 'Say "}} %} {# this'}]
    rendered = other.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert rendered == f"{one.chat.head}{asked[0]['content']}{one.chat.tail}"
    assert rendered.startswith("26 Jul 2024\n")


@pytest.mark.parametrize(
    ("made_by", "options"),
    [
        (GPT2Tokenizer, {}),
        (GPT2Tokenizer, {"add_bos_token": False}),
        (GPTNeoXTokenizer, {}),  # its class forgets what its file says
        (Qwen2Tokenizer, {}),  # no begin token
        (Qwen2Tokenizer, {"bos_token": "<s>"}),
        (LlamaTokenizer, {}),
        (LlamaTokenizer, {"add_bos_token": False, "add_eos_token": True}),
        (GemmaTokenizer, {}),
    ],
)
def test_the_classes_of_transformers_keep_it_on_loading(made_by, options, tmp_path):
    pieces = [*MARKERS, "x", "Ġ", "y", "▁", "▁x"]
    tokenizer = made_by(vocab={piece: n for n, piece in enumerate(pieces)}, merges=[], **options)
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    save_tokenizer(tokenizer, begin, None, tmp_path)
    alone = tokenizer("x y", add_special_tokens=False)["input_ids"]
    read = AutoTokenizer.from_pretrained(tmp_path)("x y")["input_ids"]
    assert read == [*begin, *alone]


def test_a_model_made_here_begins_its_texts_in_memory_and_saved(tmp_path):
    tokenizer = train_tokenizer(TITLES, 400)
    alone = tokenizer("Velvet", add_special_tokens=False)["input_ids"]
    assert tokenizer("Velvet")["input_ids"] == [tokenizer.bos_token_id, *alone]
    other = saved(prompter_of(tokenizer), tmp_path)
    assert other("Velvet")["input_ids"] == [tokenizer.bos_token_id, *alone]
    rules = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    assert rules["post_processor"]["type"] == "TemplateProcessing"


@pytest.mark.parametrize(("chat", "begins"), [(None, True), (None, False), ("chatml", True)])
def test_a_cached_reference_knows_the_policy_again(chat, begins, tmp_path):
    tokenizer = tokenizer_of("byte_level_gpt2", chat, begins)
    items = pa.table({"item_id": range(len(TITLES)), "title": TITLES})
    around = chat_of(tokenizer, None, "test")
    policy = LanguagePolicy(model_for(tokenizer), tokenizer, items, ASKS, chat=around)
    policy.save(tmp_path)
    again = load_policy(tmp_path)
    assert again.tokenizer("Velvet") != tokenizer("Velvet") or chat or not begins
    assert fingerprint(again, "fp32") == fingerprint(policy, "fp32")
    asked = [np.array([1, 2, 3]), np.array([4])]
    contexts = [
        Context(history, np.array([0]), np.array([1]), n, n) for n, history in enumerate(asked)
    ]
    scored = [one.score(contexts, np.array([[0, 5], [0, 5]])).log_probs for one in (policy, again)]
    torch.testing.assert_close(*scored)
