"""Scores are those of `model(input_ids)` alone, or a model is read otherwise, or refused."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    DeepseekV32Config,
    DogeConfig,
    FalconH1Config,
    FalconMambaConfig,
    Gemma2Config,
    Gemma3Config,
    GPTNeoConfig,
    HyperCLOVAXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    Phi3Config,
    RecurrentGemmaConfig,
)

from models.tiny import tiny_model
from palate.data.contexts import Context
from palate.errors import ConfigError, DataWarning
from palate.policies import LanguagePolicy
from palate.policies.language import layouts
from palate.policies.language.decoding import generate
from palate.policies.language.engine import Readings
from palate.policies.language.head import HeadInParts
from palate.policies.language.reading import Ways, token_log_probs
from policies.architectures import CONFIGS, SMALL, WINDOW, by_definition, model_of

GENERATOR = np.random.default_rng(5)
LONG, SHORT = GENERATOR.integers(3, 290, 60), GENERATOR.integers(3, 290, 7)
TITLES = [GENERATOR.integers(3, 290, length) for length in (5, 1, 8, 3)]
TITLES[3][:2] = TITLES[0][:2]


def sharp(config, by=12.0):
    """A model whose titles lie many nats apart."""
    model = model_of(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(by)
    return model


@pytest.fixture
def policy_of(small_policy):
    def make(model, items=None, **options):
        return LanguagePolicy(
            model, small_policy.tokenizer, items, small_policy.prompts, max_history=5, **options
        )

    return make


def assert_own(policy, prompts=(LONG, SHORT), titles=TITLES, atol=1e-4):
    """Scores are those of the model's own forward, and do lie apart."""
    batch = policy._lay(prompts, [list(titles)] * len(prompts))
    found = policy._score_batch(batch).log_probs
    end = policy.prompter.end
    truth = torch.tensor(
        [[by_definition(policy.model, p, t, end) for t in titles] for p in prompts]
    )
    assert float(truth.std()) > 1
    torch.testing.assert_close(found, truth.float(), atol=atol, rtol=1e-5)


HEADS = {
    "times a number": FalconH1Config(
        **SMALL, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8,
        lm_head_multiplier=0.04,
    ),
    "times what Granite divides by": HyperCLOVAXConfig(**SMALL, logits_scaling=0.125),
    "a cap by another name": RecurrentGemmaConfig(
        **{**SMALL, "num_hidden_layers": 3, "num_key_value_heads": 1}, lru_width=32,
        attention_window_size=64, logits_soft_cap=5.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("ignore::palate.errors.DataWarning")
def test_what_a_model_does_behind_its_head_is_its_own(name, policy_of):
    assert_own(policy_of(sharp(HEADS[name], 60.0)))


def test_logits_in_parts_are_capped_as_the_model_caps_them(policy_of, monkeypatch):
    model = sharp(Gemma2Config(**SMALL, head_dim=8, **WINDOW, final_logit_softcapping=3.0))
    policy = policy_of(model)
    batch = policy._lay([LONG, SHORT], [TITLES, TITLES])
    whole = token_log_probs(model, batch)
    gradient = torch.autograd.grad(whole.sum(), model.model.embed_tokens.weight)[0]
    parts = token_log_probs(model, batch, Ways(in_parts=True), at_once=3)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
    again = torch.autograd.grad(parts.sum(), model.model.embed_tokens.weight)[0]
    torch.testing.assert_close(again, gradient, atol=1e-4, rtol=1e-4)
    # and a policy looks at it before it does so
    monkeypatch.setattr("palate.policies.language.reading.MOST_LOGITS", 3 * 600)
    assert policy.readings.ways.in_parts is None
    torch.testing.assert_close(policy.log_probs(batch).log_probs.sum(), whole.sum())
    assert policy.readings.ways.in_parts is True


def test_steps_that_do_not_lead_to_the_logits_are_not_taken_for_them():
    class Elsewhere(torch.nn.Module):
        """Its logits are not made of what its output embeddings give."""

        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(9, 4)
            self.head = torch.nn.Linear(4, 9)

        def get_output_embeddings(self):
            return self.head

        def forward(self, input_ids):
            self.head(self.embedding(input_ids))
            return type("Output", (), {"logits": torch.zeros(1, 1, 9)})

    model, place = Elsewhere(), torch.tensor([0])
    with pytest.raises(RuntimeError, match="its logits are not made of what its head gives"):
        HeadInParts(model, model, {"input_ids": torch.tensor([[1, 2]])}, place, place)


def test_a_window_that_counts_columns_is_seen_when_a_tree_is_wider_than_it(policy_of):
    config = GPTNeoConfig(
        vocab_size=600, hidden_size=32, num_layers=2, num_heads=4, window_size=100,
        attention_types=[[["local"], 2]], max_position_embeddings=512,
    )  # fmt: skip
    policy = policy_of(sharp(config))
    assert policy.engine == "tree"  # what is short is right
    many = [GENERATOR.integers(3, 290, 6) for _ in range(30)]  # a tree of 240 columns, 66 deep
    with pytest.warns(DataWarning, match="GPTNeoForCausalLM does not read trees of .* or more"):
        assert_own(policy, (LONG,), many)
    assert policy.engine == "plain"
    strict = policy_of(sharp(config), engine="tree")
    with pytest.raises(ConfigError, match="engine='tree': GPTNeoForCausalLM does not read trees"):
        strict._score_batch(strict._lay([LONG], [many]))


@pytest.mark.parametrize("kind", ["llama4_text", "cohere2", "gemma3_text", "gpt_oss"])
def test_chunks_and_windows_of_some_layers_are_those_of_the_tree(kind, policy_of):
    model = tiny_model(kind, 600)
    for module in model.modules():  # Llama 4 also counts columns, for a scale
        if hasattr(module, "attn_temperature_tuning"):
            module.attn_temperature_tuning = False
    policy = policy_of(model)
    assert_own(policy)
    assert policy.engine == "tree"


@pytest.mark.filterwarnings("ignore::palate.errors.DataWarning")
@pytest.mark.parametrize("kind", ["jamba", "minimax", "qwen3_next", "bamba"])
def test_recurrent_layers_are_caught_in_16_bits_too(kind, policy_of):
    policy = policy_of(tiny_model(kind, 600).to(torch.bfloat16))
    assert policy.engine == "plain"


def test_positions_in_the_attention_are_caught_in_16_bits_too(policy_of):
    config = MptConfig(d_model=32, n_heads=4, n_layers=3, vocab_size=600, max_seq_len=512)
    model = model_of(config).to(torch.bfloat16)
    with pytest.warns(DataWarning, match="MptForCausalLM does not read trees"):
        assert policy_of(model).engine == "plain"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_rounding_moves_is_let_pass(dtype, policy_of):
    for config in (LlamaConfig(**SMALL), Gemma2Config(**SMALL, head_dim=8, **WINDOW)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", DataWarning)
            policy = policy_of(sharp(config).to(dtype))
            policy._score_batch(policy._lay([LONG, SHORT], [TITLES, TITLES]))
        assert policy.engine == "tree"


def test_rows_are_read_one_by_one_where_padding_moves_them(policy_of):
    config = DogeConfig(**SMALL, keep_window_size=8)
    with pytest.warns(DataWarning, match="rows are read one by one"):
        policy = policy_of(sharp(config))
    assert_own(policy)
    histories = [[TITLES[0], TITLES[2]], [TITLES[1], TITLES[3]]]
    batch = layouts.lay_histories([LONG, SHORT], histories, [0, 1], SHORT[:1], 2, 0)
    found = -policy.history_losses(batch)
    before = np.concatenate([SHORT, TITLES[1], SHORT[:1]])
    truth = by_definition(policy.model, before, TITLES[3], 2)
    assert float(found[2].detach()) == pytest.approx(truth, abs=1e-4)
    found.sum().backward()
    assert float(policy.model.get_input_embeddings().weight.grad.abs().sum()) > 0


def test_tokens_chosen_by_topk_are_chosen_in_a_row_of_its_own(policy_of):
    model = tiny_model("deepseek_v32", 600)
    with pytest.warns(DataWarning, match="chooses by topk which tokens of a text"):
        policy = policy_of(model)
    assert_own(policy)
    assert isinstance(policy.model.config, DeepseekV32Config)
    with pytest.raises(ConfigError, match=r"engine='tree': .* chooses by topk"):
        policy_of(tiny_model("deepseek_v32", 600), engine="tree")


def readings(model, small_policy):
    return Readings(model, None, small_policy.tokenizer, 2, 0, 512)


def test_padding_of_a_tree_brings_no_gradient_that_is_no_number(policy_of):
    """Gemma 3n takes roots of what an embedding of 0 leaves at 0."""
    policy = policy_of(tiny_model("gemma3n_text", 600), engine="tree")

    def gradient(lay):
        policy.model.zero_grad()
        policy.log_probs(lay([LONG, SHORT], [TITLES, TITLES], 2, 0)).log_probs.sum().backward()
        return torch.cat([w.grad.flatten() for w in policy.model.parameters()])

    tree, alone = gradient(layouts.lay_trees), gradient(layouts.lay_alone)
    assert float((tree - alone).abs().max() / alone.abs().max()) < 1e-4


def test_models_that_look_ahead_are_refused_by_name(small_policy):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    bert = sharp(BertConfig(vocab_size=600, intermediate_size=48, **shape))
    with pytest.raises(ConfigError, match="BertLMHeadModel looks at tokens that come later: it "):
        readings(bert, small_policy)


def test_models_that_answer_at_random_or_not_at_all_are_refused_by_name(small_policy):
    model = model_of(LlamaConfig(**SMALL))
    noise = model.lm_head.register_forward_hook(lambda _m, _i, out: out + torch.randn_like(out))
    with pytest.raises(ConfigError, match="LlamaForCausalLM scores the same text otherwise when"):
        readings(model, small_policy)
    noise.remove()
    readings(model, small_policy)
    model.lm_head.weight.data[5] = torch.nan
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM gives scores that are no numbers"):
        readings(model, small_policy)

    def fails(*_):
        raise ValueError("pixel_values are missing")

    model.register_forward_pre_hook(fails)
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM reads no text: .*pixel_values are"):
        readings(model, small_policy)


def test_flex_attention_on_a_cpu_is_left_with_a_word(policy_of):
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**SMALL), attn_implementation="flex_attention"
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(60)
    with pytest.warns(DataWarning, match="attn_implementation='flex_attention' does not work on"):
        policy = policy_of(model)
    assert policy.model.config._attn_implementation == "sdpa"
    assert_own(policy)


def test_the_length_where_longrope_turns_draws_a_warning(policy_of):
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = Phi3Config(
        **SMALL,
        original_max_position_embeddings=64,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **factors},
    )
    policy = policy_of(sharp(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert_own(policy, (SHORT, LONG[:50]))
    # 60 tokens, and titles of 1 to 8: some cross it, others do not, and each is read as it is alone
    with pytest.warns(DataWarning, match=r"longer than 64 tokens, beyond which Phi3ForCausalLM"):
        assert_own(policy, (LONG, SHORT))
    plain = policy_of(sharp(config), engine="plain")
    with pytest.warns(DataWarning, match=r"longer than 64 tokens"):
        assert_own(plain, (LONG, SHORT))


def test_a_multimodal_model_reads_text(policy_of):
    text = {**SMALL, "head_dim": 8, **WINDOW}
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    items = pa.table({"title": ["Velvet Alibi", "Quiet Harbour", "Quiet"]})
    policy = policy_of(sharp(Gemma3Config(text_config=text, vision_config=vision)), items)
    assert policy.engine == "tree"
    longest = max(map(len, policy.prompter.title_tokens))
    assert policy.prompter.max_tokens == SMALL["max_position_embeddings"] - longest
    assert_own(policy)
    context = Context(np.array([0]), np.empty(0, np.int64), np.empty(0, np.int64), 0)
    found = policy.catalogue_log_probs([context])
    prompt, titles = policy.prompt_tokens(context), policy.prompter.title_tokens
    truth = [by_definition(policy.model, prompt, title, policy.prompter.end) for title in titles]
    np.testing.assert_allclose(found[0], truth, atol=1e-4, rtol=1e-5)


def test_a_catalogue_is_scored_in_blocks_where_a_kept_prompt_moves_scores(policy_of):
    config = GPTNeoConfig(
        vocab_size=600, hidden_size=32, num_layers=2, num_heads=4, window_size=150,
        attention_types=[[["local"], 2]], max_position_embeddings=512,
    )  # fmt: skip
    names = [f"{first} {second}" for first in "abcdefgh" for second in "stuvwxyz"]
    policy = policy_of(sharp(config), pa.table({"title": names}))
    context = Context(np.array([3, 60]), np.empty(0, np.int64), np.empty(0, np.int64), 0)
    prompt, titles = policy.prompt_tokens(context), policy.prompter.title_tokens
    truth = [by_definition(policy.model, prompt, title, policy.prompter.end) for title in titles]
    with pytest.warns(DataWarning, match="GPTNeoForCausalLM .* a catalogue is scored in blocks"):
        found = policy.catalogue_log_probs([context])
    np.testing.assert_allclose(found[0], truth, atol=1e-4, rtol=1e-5)
    ranked = policy.rank([context], 3, method="beam", exclude_history=False)  # misses nothing
    np.testing.assert_allclose(ranked.scores[0], np.sort(truth)[:-4:-1], atol=1e-4, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::palate.errors.DataWarning")
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        FalconMambaConfig(vocab_size=600, hidden_size=32, num_hidden_layers=2, state_size=8),
        DogeConfig(**SMALL, keep_window_size=8),
        HEADS["a cap by another name"],
    ],
    ids=lambda config: config.model_type,
)
def test_what_is_written_is_what_scores_say(config, policy_of, small_data):
    policy = policy_of(sharp(config), small_data.items)
    contexts = [
        Context(np.array(history), np.empty(0, np.int64), np.empty(0, np.int64), 0)
        for history in ([1], [4, 2, 9, 1, 7], [3, 3])
    ]
    texts = generate(policy, contexts, max_tokens=6)
    for context, text in zip(contexts, texts, strict=True):
        tokens, prompt = [], policy.prompt_tokens(context)
        while len(tokens) < 6:
            row = torch.from_numpy(np.concatenate([prompt, tokens]).astype(np.int64))[None]
            with torch.no_grad():
                best = int(policy.model(input_ids=row, use_cache=False).logits[0, -1].argmax())
            if best == policy.prompter.end:
                break
            tokens.append(best)
        lines = policy.tokenizer.decode(tokens, skip_special_tokens=True).strip().splitlines()
        assert text == (lines[0].strip() if lines else "")


tokens = st.lists(st.integers(3, 9), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(tokens, st.lists(st.none() | tokens, min_size=3, max_size=3)), min_size=1)
)
def test_an_unrolled_tree_is_its_titles_alone(contexts):
    prompts = [np.array(prompt) for prompt, _ in contexts]
    answers = [[None if t is None else np.array(t) for t in row] for _, row in contexts]
    passes = [place // 2 for place in range(len(contexts))]
    alone = layouts.lay_alone(prompts, answers, 2, 0)
    found = layouts.unrolled(layouts.lay_trees(prompts, answers, 2, 0, passes), 0)
    assert rows_read(found) == rows_read(alone)
    assert found["shape"] == alone["shape"]


def rows_read(batch):
    """What each slot reads, of which tokens."""
    place = batch["scored_place"]
    row, column = batch["read_row"][place], batch["read_column"][place]
    lengths = batch["attention_mask"].sum(dim=1)
    return [
        (slot, batch["input_ids"][r, : lengths[r]].tolist(), c, target)
        for slot, r, c, target in zip(
            batch["scored_slot"].tolist(),
            row.tolist(),
            column.tolist(),
            batch["scored_target"].tolist(),
            strict=True,
        )
    ]


def test_a_look_leaves_modes_and_chance_as_they_were(policy_of):
    policy = policy_of(model_of(LlamaConfig(**SMALL)))
    policy.model.train()
    policy.model.model.layers[1].eval()
    state = torch.random.get_rng_state()
    policy.log_probs(policy._lay([LONG], [TITLES]))
    assert policy.model.training
    assert not policy.model.model.layers[1].training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_in_64_bits_is_right(policy_of, small_data):
    """Scores have 32 bits: what rounding to these moves is no sign of chance."""
    policy = policy_of(sharp(CONFIGS["llama"]).double(), small_data.items)
    assert policy.engine == "tree"


def test_a_warning_of_rows_beside_others_says_how_far_scores_lie_apart(policy_of):
    """Where an earlier look has found it out, nothing is left that could be measured again."""

    model = counting(lambda column, n: 1 + (column == 3) * n / 10)
    with pytest.warns(DataWarning, match=r"others are beside it: it gives scores [\d.]+ nats"):
        policy_of(model)


def counting(scale):
    """A model whose logits are scaled by their columns among so many."""

    class Counting(LlamaForCausalLM):
        """It counts what its head is given, wherever that stood in a row."""

        def forward(self, *args, **others):
            found = super().forward(*args, **others)
            n = found.logits.shape[1]
            found.logits = found.logits * scale(torch.arange(n), n)[:, None]
            return found

    model = Counting(CONFIGS["llama"])
    model.load_state_dict(sharp(CONFIGS["llama"]).state_dict())
    return model.eval()


@pytest.mark.parametrize("turn", [10, 40, 70, 100, 400])
@pytest.mark.filterwarnings("ignore::palate.errors.DataWarning")
def test_a_head_that_counts_columns_is_given_rows_of_their_own(turn, policy_of, small_data):
    policy = policy_of(counting(lambda column, n: 1 - 0.5 * (column >= turn)), small_data.items)
    contexts = [
        Context(np.array(history), np.empty(0, np.int64), np.empty(0, np.int64), 0)
        for history in ([1], [4, 2, 9, 1, 7])
    ]
    titles, end = policy.prompter.title_tokens, policy.prompter.end
    prompts = [policy.prompt_tokens(context) for context in contexts]
    truth = [[by_definition(policy.model, p, t, end) for t in titles] for p in prompts]
    found = policy.catalogue_log_probs(contexts)
    np.testing.assert_allclose(found, truth, atol=1e-4, rtol=1e-5)
    many = [GENERATOR.integers(3, 290, 6) for _ in range(70)]
    assert_own(policy, (SHORT, LONG), many)
    assert_own(policy, (SHORT,), many)


def test_models_whose_scores_hang_on_the_length_of_a_row_are_refused(policy_of):
    for scale in (lambda column, n: 0.5 + column / n, lambda column, n: 1 + n / 100 + 0 * column):
        with pytest.raises(ConfigError, match="scores the same tokens otherwise in longer rows"):
            policy_of(counting(scale))
