"""Templates, token rules, and what happens to prompts that are too long."""

import numpy as np
import pytest

from palate.errors import ConfigError, DataError
from palate.policies import LanguagePolicy
from palate.policies.language.from_scratch import train_tokenizer
from palate.policies.language.prompts import Prompter, parse_templates, read_templates

TITLES = ["Velvet Alibi", "Quiet Harbour", "Velvet Harbour of Marrow", "Alibi"]


def prompter(text="Chosen:\n{history}\n", max_tokens=200, max_history=20, titles=TITLES):
    tokenizer = train_tokenizer([*TITLES, text], 400)
    templates = parse_templates(text, "test")
    return Prompter(tokenizer, templates, titles, max_history, max_tokens)


def test_a_prompt_reads_as_its_template():
    one = prompter()
    text = one.tokenizer.decode(one.prompt(np.array([1, 0]), 0))
    assert text == "<s>Chosen:\nQuiet Harbour\nVelvet Alibi\n"


def test_candidates_are_listed_in_the_order_given():
    one = prompter("Had:\n{history}\nPick:\n{candidates}\nNext:\n")
    text = one.tokenizer.decode(one.prompt(np.array([1]), 0, np.array([3, 0])))
    assert text == "<s>Had:\nQuiet Harbour\nPick:\nAlibi\nVelvet Alibi\nNext:\n"
    assert one.lists_candidates


def test_titles_have_the_same_tokens_alone_and_inside_a_prompt():
    one = prompter()
    longer = one.prompt(np.array([1, 2]), 0)
    shorter = one.prompt(np.array([1]), 0)
    assert longer[: len(shorter)].tolist() == shorter.tolist()
    after = longer[len(shorter) :]
    assert after[: len(one.title_tokens[2])].tolist() == one.title_tokens[2].tolist()


def test_a_long_prompt_loses_its_oldest_items_whole():
    full = prompter().prompt(np.array([0, 1, 2, 3]), 0)
    one = prompter(max_tokens=len(full) - 1)
    text = one.tokenizer.decode(one.prompt(np.array([0, 1, 2, 3]), 0))
    assert text == "<s>Chosen:\nQuiet Harbour\nVelvet Harbour of Marrow\nAlibi\n"
    recent = prompter(max_history=2).prompt(np.array([0, 1, 2, 3]), 0)
    assert one.tokenizer.decode(recent) == "<s>Chosen:\nVelvet Harbour of Marrow\nAlibi\n"


def test_an_endless_title_is_cut():
    one = prompter(titles=["x" * 10_000, "b"])
    assert len(one.title_tokens[0]) == one.max_title_tokens == 64


def test_templates_are_chosen_by_seed_and_context_and_all_are_used():
    text, templates = read_templates("history")
    one = Prompter(train_tokenizer([text], 300), templates, [], 5, 100)
    chosen = [templates.index(one.template_of(name)) for name in range(300)]
    assert chosen == [templates.index(one.template_of(name)) for name in range(300)]
    assert min(chosen.count(i) for i in range(len(templates))) > 70


def test_only_prompts_that_grow_at_their_end_are_learnt_in_one_pass():
    (grows,) = parse_templates("A:\n{history}\n", "x")
    (ends,) = parse_templates("A:\n{history}\nNext:\n", "x")
    assert grows.grows_at_the_end
    assert not ends.grows_at_the_end


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Chosen:\n", "it has neither {history} nor {dialogue}"),
        ("{history}\n{history}\n", "the slot {history} occurs twice"),
        ("{history} {titel}\n", "there is no slot {titel}"),
        ("Chosen: {history}", "must end with a line break"),
        ("{history}\n---\n{history}\n{candidates}\n", "either all templates have the slot"),
    ],
)
def test_a_wrong_template_is_named(text, sentence):
    with pytest.raises(ConfigError, match="x") as error:
        parse_templates(text, "x")
    assert sentence in str(error.value)


def test_an_unknown_prompt_file_is_named():
    with pytest.raises(ConfigError, match=r"neither a file nor built in\. Did you mean 'history'"):
        read_templates("histroy")


def test_a_dialogue_loses_its_oldest_utterances_whole():
    made = prompter("Said:\n{dialogue}\nNow:\n", max_tokens=1000)
    text = "\n".join(f"Seeker: line number {i}" for i in range(6))
    whole = made.tokenizer.decode(made.prompt(np.empty(0, np.int64), 0, text=text))
    assert text in whole
    made.max_tokens = 60
    cut = made.prompt(np.empty(0, np.int64), 0, text=text)
    assert len(cut) <= 60
    lines = made.tokenizer.decode(cut, skip_special_tokens=True).splitlines()
    kept = [line for line in lines if line.startswith("Seeker")]
    assert 0 < len(kept) < 6
    assert kept == text.splitlines()[-len(kept) :]


def test_candidates_that_leave_no_room_are_refused_in_a_sentence():
    made = prompter("{history}\n{candidates}\nNext:\n", max_tokens=12)
    with pytest.raises(DataError, match=r"context 7: the prompt's own words and its candidates"):
        made.prompt(np.array([0]), 7, candidates=np.array([0, 1, 2, 3]))


def test_lost_items_are_counted(small_data):
    policy = LanguagePolicy.create("tiny", small_data.items, "history", max_history=5, seed=1)
    contexts = small_data.contexts("test")
    assert policy.shortened(contexts) == (0, 0)
    policy.prompter.max_tokens = 22
    short, items = policy.shortened(contexts)
    shown = [policy.prompter.lost(one.history, one.context_id) for one in contexts]
    assert short == sum(lost > 0 for lost in shown) > 0
    assert items == sum(shown) >= short
