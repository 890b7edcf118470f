"""Titles of any characters with tokenizers of any kind: every score is the model's own, or a
sentence says why there is none."""

import warnings
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palate.data.contexts import Context, History
from palate.errors import ConfigError, DataError, DataWarning, PalateError
from palate.policies import LanguagePolicy, load_policy
from palate.policies.language.prompters import saved_prompter
from palate.policies.language.titles import alike
from policies.architectures import by_definition
from policies.small_tokenizers import CORPUS, SPECIAL, model_for, tokenizer_of

PROMPT = "Chosen so far:\n{history}\nNext:\n"


def bpe_of_few_letters():
    """No token for what it was not trained on, and none for the unknown: an emoji is nothing."""
    one = Tokenizer(models.BPE())
    one.pre_tokenizer, one.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    corpus = ["Chosen so far:\nitem 0123456789\nNext:\nVelvet Alibi\n"] * 5
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False)
    one.train_from_iterator(corpus, trainer)
    return one


def word_pieces():
    """BERT's: lower case, no accents, one token for every unknown word."""
    one = Tokenizer(models.WordPiece(unk_token="<unk>"))
    one.normalizer = normalizers.BertNormalizer()
    one.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    one.train_from_iterator(CORPUS, trainer)
    return one


def words(unknown):
    """Whole words; without a token for unknown ones the tokenizer raises an error of its own."""
    vocabulary = {name: i for i, name in enumerate(SPECIAL)}
    for word in ("Chosen", "so", "far", ":", "Next", "item", "Velvet", "Alibi", "x", "y", *"0123"):
        vocabulary[word] = len(vocabulary)
    if not unknown:
        return _whole_words(Tokenizer(models.WordLevel(vocabulary, unk_token="none at all")))
    return _whole_words(Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")))


def _whole_words(one):
    one.pre_tokenizer = pre_tokenizers.Whitespace()
    return one


LIMITED = {
    "few letters": bpe_of_few_letters,
    "word pieces": word_pieces,
    "words": lambda: words(unknown=True),
    "words, none unknown": lambda: words(unknown=False),
}
KINDS = [
    *LIMITED,
    "byte_level_gpt2",
    "byte_level_llama3",
    "sentencepiece_first",
    "sentencepiece_legacy",
    "unigram_kept",
    "unigram_space",
]


@cache
def made(kind, begins=True):
    """A tokenizer of a kind, and a small model over it whose titles lie nats apart."""
    if kind in LIMITED:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=LIMITED[kind](),
            eos_token="</s>",
            **({"bos_token": "<s>"} if begins else {}),
            **({"unk_token": "<unk>"} if kind in ("word pieces", "words") else {}),
        )
    else:
        tokenizer = tokenizer_of(kind, None, begins)
    torch.manual_seed(0)
    return tokenizer, model_for(tokenizer)


def policy_of(kind, titles, begins=True, prompts=PROMPT, engine="tree"):
    tokenizer, model = made(kind, begins)
    items = pa.table({"source_id": [str(i) for i in range(len(titles))], "title": titles})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return LanguagePolicy(model, tokenizer, items, prompts, engine=engine)


def context(history, name=0):
    nobody = np.empty(0, np.int64)
    return Context(np.array(history, np.int64), nobody, nobody, name)


ODD = ["", " ", "\n", "🎬", "\u200b", "\u00ad", "</s>", "<s></s>", "a</s>b", "<|im_end|>", "İ", "ﬁ"]
titles_drawn = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(ODD), st.just("Velvet Alibi")),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(titles=titles_drawn, begins=st.booleans(), data=st.data())
@example(titles=["🎬", "Velvet", ""], begins=True, data=None)
def test_every_score_is_the_models_own_or_a_sentence(kind, titles, begins, data):
    n = len(titles)
    history = [0] if data is None else data.draw(st.lists(st.integers(0, n - 1), max_size=4))
    one, refusal = context(history), ""
    try:
        policy = policy_of(kind, titles, begins)
        scored = policy.score([one], np.arange(n)[None])
    except PalateError as error:
        refusal = str(error)
    if refusal:
        assert len(refusal.splitlines()) == 1
        assert kind == "words, none unknown"  # all others know the letters of an item's name
        return
    prompter = policy.prompter
    prompt = policy.prompt_tokens(one)
    special = set(policy.tokenizer.all_special_ids) - {policy.tokenizer.unk_token_id}
    for tokens in prompter.title_tokens:
        assert len(tokens)
        assert not special & set(tokens.tolist())
    truth = [
        by_definition(policy.model, prompt, tokens, prompter.end)
        for tokens in prompter.title_tokens
    ]
    near = {"abs": 1e-3, "rel": 1e-5}
    for engine in ("tree", "plain"):
        policy.engine = engine
        assert policy.score([one], np.arange(n)[None]).log_probs[0].tolist() == pytest.approx(
            truth, **near
        )
        assert policy.catalogue_log_probs([one])[0].tolist() == pytest.approx(truth, **near)
        ranking = policy.rank([one], n, exclude_history=False)
        assert sorted(ranking.item_ids[0].tolist()) == list(range(n))
        assert ranking.scores[0].tolist() == pytest.approx(sorted(truth, reverse=True), **near)
        best = [truth[item] for item in ranking.item_ids[0]]
        assert best == pytest.approx(sorted(truth, reverse=True), **near)
    policy.engine = "tree"
    beams = policy.rank([one], n, method="beam", width=n, exclude_history=False)
    assert beams.scores[0].tolist() == pytest.approx(sorted(truth, reverse=True), **near)
    lengths = [len(tokens) + 1 for tokens in prompter.title_tokens]
    assert scored.lengths[0].tolist() == lengths


def test_a_title_without_tokens_is_read_as_the_name_of_its_item():
    tokenizer, model = made("few letters")
    items = pa.table({"source_id": ["a7", "25", "13"], "title": ["Velvet", "🎬", "🎬 Alibi"]})
    with pytest.warns(DataWarning, match=r"1 of 3 become no token.*'🎬'.* such as 'item 25'"):
        policy = LanguagePolicy(model, tokenizer, items, PROMPT)
    prompter = policy.prompter
    assert prompter.renamed == [1]
    assert prompter.title_tokens[1].tolist() == prompter.tokenize_titles(["item 25"])[0].tolist()
    assert "item 25" in prompter.prompt_text(np.array([1]), 0)
    assert policy.items["title"].to_pylist()[1] == "🎬"  # lists show what the user knows it by


def test_it_is_so_in_a_saved_policy_and_its_rows(tmp_path):
    policy = policy_of("few letters", ["Velvet", "🎬", "Alibi"])
    policy.save(tmp_path)
    with pytest.warns(DataWarning, match="become no token"):
        again = load_policy(tmp_path)
    ids, one = np.arange(3)[None], context([1, 0])
    torch.testing.assert_close(
        again.score([one], ids).log_probs, policy.score([one], ids).log_probs
    )
    assert saved_prompter(tmp_path).lines[1][0] == "item 1"


def test_a_name_without_tokens_too_is_refused():
    _, model = made("few letters")
    items = pa.table({"title": ["Velvet", "🎬"]})
    one = Tokenizer(models.BPE())  # nothing but a and b
    one.train_from_iterator(["ab"], trainers.BpeTrainer(special_tokens=SPECIAL))
    blind = PreTrainedTokenizerFast(tokenizer_object=one, bos_token="<s>", eos_token="</s>")
    with pytest.raises(DataError, match="'item 0', that of item 0, becomes no token"):
        LanguagePolicy(model, blind, items, "a\n{history}\nb\n")


def test_items_that_share_all_their_tokens_are_counted():
    long = " ".join(["Velvet Alibi"] * 60)
    titles = [long + " red", long + " blue", "Velvet", "Alibi", "Velvet", "Velvet"]
    tokenizer, model = made("word pieces")
    items = pa.table({"source_id": list("abcdef"), "title": titles})
    with pytest.warns(DataWarning, match="5 of 6 items have the same tokens") as warned:
        policy = LanguagePolicy(model, tokenizer, items, PROMPT)
    said = str(warned[0].message)
    assert "2 of them differ only behind the 64 tokens that are read" in said
    assert "item a ('Velvet Alibi" in said
    assert [group.tolist() for group in alike(policy.prompter.title_tokens)] == [
        [0, 1],
        [2, 4, 5],
    ]
    scores = policy.catalogue_log_probs([context([3])])[0]
    assert scores[0] == scores[1]
    assert scores[2] == scores[4] == scores[5] != scores[3]


def test_different_titles_draw_no_warning():
    tokenizer, model = made("byte_level_gpt2")
    items = pa.table({"title": ["Velvet", "velvet", "Vélvet", "Velvet."]})
    LanguagePolicy(model, tokenizer, items, PROMPT)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pa.array([1.5, 2.0]), "holds double, not text"),
        (pa.array([b"Velvet", b"Alibi"]), "holds binary, not text"),
        (pa.array([True, False]), "holds bool, not text"),
        (pa.array([["Velvet"], ["Alibi"]]), "holds list<.*>, not text"),
    ],
)
def test_titles_that_are_no_text_are_refused(column, sentence):
    tokenizer, model = made("byte_level_gpt2")
    with pytest.raises(DataError, match=sentence):
        LanguagePolicy(model, tokenizer, pa.table({"title": column}), PROMPT)
    with pytest.raises(DataError, match=sentence):
        LanguagePolicy.create("tiny", pa.table({"title": column}), "history", 5, 0)


def test_a_table_without_titles_is_refused():
    with pytest.raises(DataError, match=r"no column 'title'.*Found: item_id, name"):
        LanguagePolicy.create("tiny", pa.table({"item_id": [1], "name": ["a"]}), "history", 5, 0)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["1917", None]),
        pa.array([1917, None]),
        pa.array(["1917", None]).dictionary_encode(),
        pa.array(["1917", None], pa.large_string()),
        pa.array(["1917", None], pa.string_view()),
    ],
)
def test_a_title_that_is_missing_is_the_name_of_its_item(column):
    """Not the four letters of None."""
    tokenizer, model = made("byte_level_gpt2")
    with pytest.warns(DataWarning, match="1 of 2 become no token"):
        policy = LanguagePolicy(model, tokenizer, pa.table({"title": column}), PROMPT)
    assert [text for text, _ in policy.prompter.lines] == ["1917", "item 1"]


@pytest.mark.parametrize(
    ("prompts", "titles", "sentence"),
    [
        (["Next:\n"], [["Velvet", None]], r"titles\[0\]\[1\] is None, a NoneType"),
        (["Next:\n"], [["Velvet", 7]], r"titles\[0\]\[1\] is 7, a int"),
        (["Next:\n"], [[b"Velvet"]], r"titles\[0\]\[0\] is b'Velvet', a bytes"),
        (["Next:\n"], [["Velvet", ""]], r"titles\[0\]\[1\], '', becomes no token"),
        (["Next:\n"], [["\ud83c"]], r"titles\[0\]\[0\] holds half a character"),
        ([None], [["Velvet"]], r"prompts\[0\] is None"),
        (["a\udfac"], [["Velvet"]], r"prompts\[0\] holds half a character"),
        ("Next:\n", [["Velvet"]], r"prompts is one text"),
        (["Next:\n"], ["Velvet"], r"titles\[0\] is one text"),
        (["Next:\n", "So far:\n"], [["Velvet"]], "2 prompts and 1 lists of titles"),
        ([], [], "0 prompts and 0 lists"),
    ],
)
def test_texts_to_score_are_checked(prompts, titles, sentence):
    policy = policy_of("byte_level_gpt2", ["Velvet"])
    with pytest.raises(DataError, match=sentence) as error:
        policy.score_texts(prompts, titles)
    assert len(str(error.value).splitlines()) == 1


def widened(kind="byte_level_gpt2"):
    """A tokenizer with tokens that its model has never heard of."""
    _, model = made(kind)
    wide = tokenizer_of(kind, None)
    wide.add_tokens(["Zanzibar"])
    wide.add_special_tokens({"pad_token": "[PAD]"})
    return wide, model


def test_a_padding_token_beyond_the_model_is_replaced_and_changes_no_score(tmp_path):
    tokenizer, model = made("byte_level_gpt2")
    wide, _ = widened()
    items = pa.table({"title": ["Velvet", "Velvet Alibi", "Who Goes There?"]})
    with pytest.warns(DataWarning, match=r"padding token is \d+ \('\[PAD\]'\).*embeddings of"):
        policy = LanguagePolicy(model, wide, items, PROMPT)
    assert policy.pad == tokenizer.eos_token_id
    contexts, ids = [context([0, 1, 2]), context([], 1)], np.tile(np.arange(3), (2, 1))
    own = LanguagePolicy(model, tokenizer, items, PROMPT)
    for engine in ("tree", "plain"):
        policy.engine = own.engine = engine
        torch.testing.assert_close(
            policy.score(contexts, ids).log_probs, own.score(contexts, ids).log_probs
        )
        assert np.isfinite(policy.rank(contexts, 2).scores[1]).all()
    policy.save(tmp_path)
    with pytest.warns(DataWarning, match="padding token"):
        load_policy(tmp_path)


@pytest.mark.filterwarnings("ignore::palate.errors.DataWarning")
def test_a_token_beyond_the_model_is_named_wherever_it_stands():
    wide, model = widened()
    beyond = r"holds token \d+ \('Zanzibar'\), but the model has embeddings of \d+ tokens"
    with pytest.raises(DataError, match=f"'Quiet Zanzibar' {beyond}"):
        LanguagePolicy(model, wide, pa.table({"title": ["Velvet", "Quiet Zanzibar"]}), PROMPT)
    items = pa.table({"title": ["Velvet", "Alibi"]})
    with pytest.raises(DataError, match=beyond):
        LanguagePolicy(model, wide, items, "In the Zanzibar:\n{history}\n")
    policy = LanguagePolicy(model, wide, items, PROMPT)
    with pytest.raises(DataError, match=beyond):
        policy.score_texts(["Zanzibar:\n"], [["Velvet"]])
    with pytest.raises(DataError, match=beyond):
        policy.score_texts(["Next:\n"], [["Velvet", "Zanzibar"]])
    talk = LanguagePolicy(model, wide, items, "{dialogue}\nNext:\n")
    said = Context(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), 0)
    with pytest.raises(DataError, match=beyond):
        talk.score([_with_text(said, "A film in a Zanzibar")], np.array([[0, 1]]))


def _with_text(one, text):
    return Context(one.history, one.positives, one.levels, one.context_id, text=text)


def test_an_end_or_begin_token_beyond_the_model_is_refused():
    _, model = made("byte_level_gpt2")
    for name in ("eos_token", "bos_token"):
        wide = tokenizer_of("byte_level_gpt2", None)
        wide.add_special_tokens({name: "<new>"})
        what = {"eos_token": "end", "bos_token": "begin"}[name]
        with pytest.raises(ConfigError, match=rf"tokenizer's {what} token is \d+ \('<new>'\)"):
            LanguagePolicy(model, wide, pa.table({"title": ["Velvet"]}), PROMPT)


def test_a_head_of_fewer_tokens_than_are_embedded_counts():
    """Some models read tokens that they never write."""
    tokenizer, _ = made("byte_level_gpt2")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    token = int(tokenizer("Velvet Alibi", add_special_tokens=False)["input_ids"][-1])
    model.lm_head = torch.nn.Linear(16, token, bias=False)
    with pytest.raises(DataError, match=f"embeddings of {token} tokens"):
        LanguagePolicy(model, tokenizer, pa.table({"title": ["Velvet Alibi"]}), PROMPT)


def test_a_prompt_without_tokens_foretells_nothing():
    """Read at column −1 it would be another title's end."""
    policy = policy_of("byte_level_gpt2", ["Velvet", "Alibi"], begins=False, prompts="{history}\n")
    with pytest.raises(DataError, match=r"prompts\[0\] has no token"):
        policy.score_texts([""], [["Velvet"]])
    history = History(np.array([0, 1, 0]), 0)
    windows = policy.history_windows(history)
    assert [window.first_target for window in windows] == [1]  # the first item follows nothing
    with pytest.raises(DataError, match="the text before a history has no token"):
        policy.collate_histories([history])
    begun = policy_of("byte_level_gpt2", ["Velvet", "Alibi"], prompts="{history}\n")
    assert [window.first_target for window in begun.history_windows(history)] == [0]


def test_a_tokenizer_without_a_token_for_the_unknown_says_so():
    with pytest.raises(DataError, match=r"has no tokens for 'Quiet', nor one for unknown"):
        policy_of("words, none unknown", ["Velvet", "Quiet"])
