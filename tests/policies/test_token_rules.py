"""Every kind of tokenizer, with a chat template and without: the text and the tokens are those that
a person's own text gets, and scores are sums over them."""

import itertools
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from conftest import shared
from palate.data.contexts import Context, History
from palate.errors import ConfigError, DataWarning
from palate.policies import LanguagePolicy, load_policy
from palate.policies.language.chat import MESSAGE, chat_of
from palate.policies.language.decoding import generate
from palate.policies.language.engine import Writing
from palate.policies.language.prompters import new_prompter, prompter_for, saved_prompter
from palate.policies.language.prompts import Prompter, parse_templates
from palate.policies.language.text_tokens import TextTokens
from palate.preference_rows import PreferenceRow, records
from policies.small_tokenizers import (
    CHATS,
    ENDS,
    KINDS,
    TITLES,
    WITHOUT_LINE_BREAKS,
    model_for,
    tokenizer_of,
)

GROWS, ASKS = "Chosen so far:\n{history}\n", "Chosen so far:\n{history}\nNext:\n"
WRITTEN = [title.strip() for title in TITLES]
HISTORY = np.array([0, 1, 5, 2])
EVERY = list(itertools.product(KINDS, [None, *CHATS], [True, False]))
ids = ["-".join([kind, chat or "plain", "bos" if bos else "none"]) for kind, chat, bos in EVERY]
each = pytest.mark.parametrize(("kind", "chat", "begins"), EVERY, ids=ids)


def prompter_of(kind, chat, begins=True, text=ASKS, max_tokens=400, **options):
    tokenizer = tokenizer_of(kind, chat, begins)
    templates = parse_templates(text, "test")
    around = chat_of(tokenizer, None, kind)
    return Prompter(tokenizer, templates, TITLES, 20, max_tokens, chat=around, **options)


def full_text(one, item, history=HISTORY, text=ASKS):
    """What a person would write, or the chat template render, up to the end of the answer."""
    message = text.replace("{history}", "\n".join(WRITTEN[i] for i in history))
    if one.chat is None:
        return message + WRITTEN[item]
    turns = [{"role": "user", "content": message.removesuffix("\n")}]
    turns.append({"role": "assistant", "content": MESSAGE})
    begun = one.tokenizer.apply_chat_template(turns, tokenize=False)
    return begun[: begun.index(MESSAGE)] + WRITTEN[item]


def full_tokens(one, text):
    tokens = one.tokenizer(text, add_special_tokens=False)["input_ids"]
    begin = one.tokenizer.bos_token_id
    return tokens if begin is None or begin in tokens else [begin, *tokens]


@each
def test_prompt_and_answer_are_the_tokens_of_the_whole_text(kind, chat, begins):
    one = prompter_of(kind, chat, begins)
    prompt = one.prompt(HISTORY, 0).tolist()
    for item in range(len(TITLES)):
        text = full_text(one, item)
        tokens = [*prompt, *one.title_tokens[item].tolist()]
        assert tokens == full_tokens(one, text), TITLES[item]
        assert one.tokenizer.decode(tokens) == one.tokenizer.decode(full_tokens(one, text))
        if chat is None:
            read = one.tokenizer.decode(tokens, skip_special_tokens=True)
            assert read == (" ".join(text.split()) if kind in WITHOUT_LINE_BREAKS else text)


@each
def test_the_begin_token_stands_once(kind, chat, begins):
    one = prompter_of(kind, chat, begins)
    prompt = one.prompt(HISTORY, 0).tolist()
    assert prompt.count(one.tokenizer.convert_tokens_to_ids("<s>")) == begins
    if begins:
        assert prompt[0] == one.tokenizer.bos_token_id


@each
def test_a_title_has_the_same_tokens_in_prompts_and_as_an_answer(kind, chat, begins):
    one = prompter_of(kind, chat, begins, GROWS)
    for item, (line, tokens) in enumerate(one.lines):
        assert line == WRITTEN[item]
        assert contains(one.prompt(np.array([1, item, 2]), 0), tokens)
    if chat in (None, "chatml", "llama3") or kind in WITHOUT_LINE_BREAKS:
        assert [t.tolist() for _, t in one.lines] == [t.tolist() for t in one.title_tokens]


def contains(tokens, part):
    starts = range(len(tokens) - len(part) + 1)
    return any(np.array_equal(tokens[i : i + len(part)], part) for i in starts)


@each
def test_a_prompt_too_long_loses_its_oldest_items_and_no_marker(kind, chat, begins):
    whole = prompter_of(kind, chat, begins).prompt(HISTORY, 0)
    short = prompter_of(kind, chat, begins, max_tokens=len(whole) - 1)
    expected = full_text(short, 3, HISTORY[1:])
    tokens = [*short.prompt(HISTORY, 0).tolist(), *short.title_tokens[3].tolist()]
    assert tokens == full_tokens(short, expected)
    assert short.lost(HISTORY, 0) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chat", [None, "chatml", "llama2", "words"])
def test_scores_are_sums_over_the_whole_text(kind, chat):
    policy = policy_of(kind, chat)
    context = Context(HISTORY, np.array([3]), np.array([1]), 0, 0)
    found = policy.score([context], np.arange(len(TITLES))[None])
    by_text = policy.score_texts(
        [policy.prompter.prompt_text(HISTORY, 0)], [[TITLES[i] for i in range(len(TITLES))]]
    )
    torch.testing.assert_close(by_text.log_probs, found.log_probs, atol=1e-5, rtol=1e-5)
    assert by_text.lengths.tolist() == found.lengths.tolist()
    for item in range(len(TITLES)):
        tokens = full_tokens(policy.prompter, full_text(policy.prompter, item))
        tokens = torch.tensor([[*tokens, policy.prompter.end]])
        with torch.no_grad():
            read = policy.model(tokens).logits[0, :-1].log_softmax(dim=-1)
        each_token = read.gather(1, tokens[0, 1:, None])[:, 0]
        length = int(found.lengths[0, item])
        truth = float(each_token[-length:].sum())
        assert float(found.log_probs[0, item]) == pytest.approx(truth, abs=1e-4)


def policy_of(kind, chat, text=ASKS):
    tokenizer = tokenizer_of(kind, chat)
    numbers = [str(i) for i in range(len(TITLES))]
    items = pa.table({"source_id": numbers, "title": TITLES})
    torch.manual_seed(0)
    around = chat_of(tokenizer, None, kind)
    return LanguagePolicy(model_for(tokenizer), tokenizer, items, text, 20, chat=around)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_titles_that_end_in_signs_score_alike_as_text(kind):
    """Llama 3 and Qwen join a sign and the line break behind it; a title keeps its own tokens."""
    policy = policy_of(kind, "chatml", GROWS)
    history = np.array([6, 4, 6])
    one = policy.prompter
    assert one.tokenize_prompt(one.prompt_text(history, 0)).tolist() == (
        one.prompt(history, 0).tolist()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_whole_histories_are_learnt_without_chat_only(kind):
    plain = policy_of(kind, None, GROWS)
    assert plain.learns_whole_histories
    assert not policy_of(kind, "chatml", GROWS).learns_whole_histories
    batch = plain.collate_histories([History(HISTORY, 1)])
    losses = plain.history_losses(batch).tolist()
    for place in range(1, len(HISTORY)):
        context = Context(HISTORY[:place], HISTORY[place : place + 1], np.array([1]), 0, 0)
        alone = plain.score([context], HISTORY[None, place : place + 1])
        assert losses[place - 1] == pytest.approx(-float(alone.log_probs), rel=1e-4)


@pytest.mark.parametrize("chat", CHATS)
def test_an_answer_ends_as_the_assistants_turn_does(chat):
    tokenizer = tokenizer_of("sentencepiece_legacy", chat)
    found = chat_of(tokenizer, True, "x")
    assert tokenizer.convert_ids_to_tokens(found.end) == ENDS[chat]
    tokenizer = tokenizer_of("byte_level_llama3", chat)
    tokenizer.chat_template = CHATS[chat].replace("<|im_end|>", "<|no token|>")
    assert chat_of(tokenizer, None, "x").end == tokenizer.convert_tokens_to_ids(
        ENDS[chat] if ENDS[chat] != "<|im_end|>" else "</s>"
    )


def test_what_a_turn_has_before_its_words_belongs_to_the_prompt():
    tokenizer = tokenizer_of("byte_level_llama3", "chatml")
    thinks = CHATS["chatml"].replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    assert "<think>" in thinks
    tokenizer.chat_template = thinks
    with pytest.warns(DataWarning, match="leaves <think> open before the answer"):
        found = chat_of(tokenizer, None, "x")
    assert found.tail.endswith("<|im_start|>assistant\n<think>\n")
    tokenizer.chat_template = thinks.replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
    )
    assert chat_of(tokenizer, None, "x").tail.endswith("assistant\n<think>\n\n</think>\n\n")
    tokenizer.chat_template = CHATS["chatml"].replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}",
    )
    assert chat_of(tokenizer, None, "x").tail.endswith("assistant\n<think></think>")
    tokenizer.chat_template = CHATS["chatml"].partition("{% if add_generation_prompt")[0]
    assert chat_of(tokenizer, None, "x").tail.endswith("<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("◁think▷", "◁/think▷"),
        ("<reasoning>", "</reasoning>"),
    ],
)
def test_thoughts_left_open_before_the_answer_are_named(opens, closes):
    tokenizer = tokenizer_of("byte_level_llama3", "chatml")
    asks = "assistant\n{% endif %}"
    tokenizer.chat_template = CHATS["chatml"].replace(asks, f"assistant\n{opens}{{% endif %}}")
    with pytest.warns(DataWarning, match=rf"{re.escape(opens)} open before the answer"):
        chat_of(tokenizer, None, "x")
    tokenizer.chat_template = CHATS["chatml"].replace(
        asks, f"assistant\n{opens}\n\n{closes}{{% endif %}}"
    )
    assert chat_of(tokenizer, None, "x").tail.endswith(closes)  # without a warning
    tokenizer.chat_template = CHATS["chatml"].replace("system\nYou", f"system\nUse {opens}. You")
    assert opens in chat_of(tokenizer, None, "x").head


CHANGES = {
    "m.content | lower": r"changes a message: 'Chosen SO far.*' becomes 'chosen so far",
    "m.content | replace('\n', ' ')": "changes a message",
    "m.content.split() | join(' ')": "changes a message",
    "m.content | replace('\n\n', '\n')": "changes a message",
    "m.content | escape": "changes a message",
    "m.content | tojson": "changes a message",
    "m.content[:40]": "changes a message",
    "m.content if m.role == 'user' else m.content | lower": "changes an assistant's answer",
    "m.content if m.role == 'user' else m.content.split() | join(' ')": "an assistant's answer",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("wanted", [True, None])
def test_a_template_that_changes_what_it_is_given_is_refused(change, wanted):
    tokenizer = tokenizer_of("byte_level_llama3")
    tokenizer.chat_template = CHATS["chatml"].replace("m.content", change)
    with pytest.raises(ConfigError, match=rf"policy\.chat: .*{CHANGES[change]}") as error:
        chat_of(tokenizer, wanted, "x")
    assert len(str(error.value).splitlines()) == 1
    assert chat_of(tokenizer, False, "x") is None


def test_space_around_a_prompt_that_a_template_takes_off_is_named(small_data, tmp_path):
    tokenizer = tokenizer_of("byte_level_llama3", "llama3")
    model_for(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "prompts.txt"
    for text in ("\nSo far:\n{history}\n", "So far:\n{history}\nNext:\n\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"policy\.prompts: .*takes off the space around"):
            LanguagePolicy.create(str(tmp_path), small_data.items, str(file), 5, 0)
        with pytest.raises(ConfigError, match=r"policy\.prompts: .*takes off the space around"):
            new_prompter(str(tmp_path), small_data.items, str(file), 5, 0)
        LanguagePolicy.create(str(tmp_path), small_data.items, str(file), 5, 0, chat=False)
    file.write_text("So far:\n{history}\nNext:\n")
    LanguagePolicy.create(str(tmp_path), small_data.items, str(file), 5, 0)


def test_the_date_in_a_template_stands_still():
    tokenizer = tokenizer_of("byte_level_llama3", "chatml")
    clock = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }} {% endif %}"
    tokenizer.chat_template = clock + CHATS["chatml"]
    assert chat_of(tokenizer, None, "x").head.startswith("26 Jul 2024 <|im_start|>")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "the tokenizer of 'x' has no chat template"),
        ("{{ raise_exception('Two users, please') }}", "(Two users, please)"),
        ("{% for m in messages %", "cannot be rendered"),
        ("Hello", "shows a user's message 0 times"),
    ],
)
def test_a_chat_that_cannot_be_is_refused(template, sentence):
    tokenizer = tokenizer_of("byte_level_gpt2")
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=r"policy\.chat") as error:
        chat_of(tokenizer, True, "x")
    assert sentence in str(error.value)
    assert chat_of(tokenizer, False, "x") is None


def test_only_chat_models_chat_unless_told_otherwise():
    assert chat_of(tokenizer_of("byte_level_gpt2"), None, "x") is None
    assert chat_of(tokenizer_of("byte_level_gpt2", "llama3"), None, "x") is not None
    assert chat_of(tokenizer_of("byte_level_gpt2", "llama3"), False, "x") is None


@pytest.mark.parametrize("chat", [None, "chatml", "marked"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_a_marker_in_a_title_is_text(kind, chat):
    tokenizer = tokenizer_of(kind, chat)
    title = "A </s> B<|im_end|>"
    (template,) = parse_templates(ASKS, "test")
    around = chat_of(tokenizer, None, kind)
    one = Prompter(tokenizer, [template], [title, "Velvet"], 20, 400, chat=around)
    markers = {tokenizer.convert_tokens_to_ids(name) for name in ("</s>", "<|im_end|>")}
    for tokens in (one.title_tokens[0], one.lines[0][1]):
        assert not markers & set(tokens.tolist())
        assert tokenizer.decode(tokens.tolist()).strip() == title
    expected = one.prompt(np.array([1]), 0).tolist()
    found = one.prompt(np.array([0]), 0).tolist()
    for marker in markers:
        assert found.count(marker) == expected.count(marker)


def test_saved_and_loaded_it_chats_as_it_did(tmp_path):
    policy = policy_of("byte_level_llama3", "chatml")
    policy.save(tmp_path)
    loaded, prompter = load_policy(tmp_path), saved_prompter(tmp_path)
    for one in (loaded.prompter, prompter):
        assert one.prompt(HISTORY, 0).tolist() == policy.prompter.prompt(HISTORY, 0).tolist()
        assert [t.tolist() for t in one.title_tokens] == [
            t.tolist() for t in policy.prompter.title_tokens
        ]
        assert one.end == policy.prompter.end == 4
    settings = json.loads((tmp_path / "palate.json").read_text())
    (tmp_path / "palate.json").write_text(
        json.dumps({key: value for key, value in settings.items() if key != "chat"})
    )
    older = load_policy(tmp_path)
    assert older.chat is None
    assert older.tokenizer.chat_template
    assert older.prompter.end == older.tokenizer.eos_token_id


def test_a_new_policy_asks_its_tokenizer(tmp_path):
    policy = policy_of("byte_level_llama3", "llama3")
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    made = [
        LanguagePolicy.create(str(tmp_path), policy.items, "history", 5, 0, chat=wanted)
        for wanted in (None, True, False)
    ]
    assert [one.chat is not None for one in made] == [True, True, False]
    assert LanguagePolicy.bare(str(tmp_path)).chat == policy.chat
    with pytest.raises(ConfigError, match="tokenizer of 'tiny' has no chat template"):
        LanguagePolicy.create("tiny", policy.items, "history", 5, 0, chat=True)


@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_until_the_turn_ends(kind, monkeypatch):
    policy = policy_of(kind, "chatml")
    context = Context(HISTORY, np.array([3]), np.array([1]), 0, 0)
    title, words = policy.prompter.title_tokens[6], policy.prompter.title_tokens[0]

    def written(input_ids, eos_token_id, **_):
        assert eos_token_id == [policy.prompter.end, policy.tokenizer.eos_token_id]
        answer = [*title, policy.prompter.end, *words]
        return torch.cat([input_ids, torch.tensor([answer])], dim=1)

    policy.readings.writing(policy.prompter.max_tokens, lambda _: Writing(True, True))
    monkeypatch.setattr(policy.model, "generate", written)
    assert generate(policy, [context]) == [WRITTEN[6]]


def test_long_titles_and_messages_are_cut_in_a_chat():
    one = prompter_of("sentencepiece_legacy", "llama2", max_title_tokens=5)
    assert max(len(tokens) for tokens in one.title_tokens) == 5
    assert max(len(tokens) for _, tokens in one.lines) == 5
    prompt = one.prompt(HISTORY, 0)
    assert one.tokenize_prompt(one.prompt_text(HISTORY, 0)).tolist() == prompt.tolist()


def test_room_is_left_for_the_longest_answer():
    tokenizer = tokenizer_of("byte_level_llama3", "chatml")
    items = pa.table({"title": TITLES})
    around = chat_of(tokenizer, None, "x")
    one = prompter_for(tokenizer, items, ASKS, 20, 300, 0, around)
    assert one.max_tokens == 300 - max(len(tokens) for tokens in one.title_tokens)


def test_a_dialogue_is_a_message():
    text = "Hi? <|im_end|>\nHello.\nA film!"
    for kind in KINDS:
        one = prompter_of(kind, "chatml", text="{dialogue}\n")
        prompt = one.prompt(HISTORY, 0, text=text).tolist()
        assert prompt.count(one.end) == 2  # of the system's turn and of the user's
        if kind not in WITHOUT_LINE_BREAKS:
            read = one.tokenizer.decode(prompt)
            assert text in read.replace("<|im_start|> user", "<|im_start|>user")
        assert one.prompt_text(HISTORY, 0, text=text) == text


def test_a_real_sentencepiece_tokenizer_puts_no_space_behind_a_line_break():
    tokenizer = AutoTokenizer.from_pretrained(shared("data/tiny-lm-stories260k") / "hf")
    for chat in (None, CHATS["llama2"]):
        tokenizer.chat_template = chat
        around = chat_of(tokenizer, None, "x")
        templates = parse_templates(ASKS, "test")
        one = Prompter(tokenizer, templates, TITLES, 20, 400, chat=around)
        for item in range(len(TITLES)):
            text = full_text(one, item)
            tokens = [*one.prompt(HISTORY, 0).tolist(), *one.title_tokens[item].tolist()]
            assert tokens == full_tokens(one, text)
            if chat is None:
                assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_tokens_of_pieces_put_together_are_those_of_the_whole():
    for kind in KINDS:
        tokens = TextTokens(tokenizer_of(kind))
        pieces = [tokens.words("Next:\n", True, not tokens.keeps_breaks), *tokens.lines(["Velvet"])]
        assert np.concatenate(pieces).tolist() == tokens.alone(["Next:\nVelvet"])[0].tolist()
        assert (len(tokens.break_tokens) > 0) == (kind not in WITHOUT_LINE_BREAKS)


def test_rows_for_other_trainers_are_messages_in_a_chat():
    one = prompter_of("byte_level_llama3", "chatml")
    text = one.prompt_text(HISTORY, 0)
    row = PreferenceRow(text, "Velvet", ["Alibi", "Up"], 1)
    first, second = records(row, "trl", one_rejected=True, graded=False, is_chat=True)
    assert first["chosen"] == [{"role": "assistant", "content": "Velvet"}]
    assert [first["rejected"][0]["content"], second["rejected"][0]["content"]] == ["Alibi", "Up"]
    rendered = one.tokenizer.apply_chat_template(first["prompt"], add_generation_prompt=True)
    assert [*one.begin.tolist(), *rendered["input_ids"]] == one.prompt(HISTORY, 0).tolist()
    (plain,) = records(row, "llamafactory", one_rejected=False, graded=False, is_chat=True)
    assert plain == {"instruction": text, "input": "", "chosen": "Velvet", "rejected": row.rejected}
