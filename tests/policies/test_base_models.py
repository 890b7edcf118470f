"""Bases whose files are not whole, or of another kind: refused by name, through every door."""

import json
import re
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
    XLNetConfig,
    XLNetLMHeadModel,
)

from conftest import command, shared
from palate.errors import CheckpointError, ConfigError, DataWarning
from palate.policies import LanguagePolicy, SequencePolicy, load_policy
from palate.policies.language.adapters import Adapter
from palate.policies.language.base_models import whole_model
from palate.policies.language.prompters import new_prompter
from palate.policies.language.weights import pretrained

TEXTS = (["Next:\n"], [["Velvet Alibi", "Quiet Harbour"]])
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def folder_of(model, tokenizer, path):
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def rewritten(path, change):
    """The weights of a folder after `change(tensors)`."""
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def configured(path, **changes):
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


@pytest.fixture
def tokenizer(small_policy):
    return small_policy.tokenizer


@pytest.fixture
def llama(tokenizer, tmp_path):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SMALL))
    return folder_of(model, tokenizer, tmp_path / "llama")


def refused(path, items, sentence):
    """By `policy.base` and by `load_policy`, each time, in one sentence."""
    for load in (
        lambda: LanguagePolicy.create(str(path), items, "history", 5, 0),
        lambda: load_policy(path),
    ):
        with pytest.raises(CheckpointError, match=sentence) as error:
            load()
        assert str(path) in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def bart():
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 48}
    return {**sizes, **heads, "max_position_embeddings": 512}


KINDS = {
    "head": (lambda v: LlamaModel(LlamaConfig(vocab_size=v, **SMALL)), "has no language head: its"),
    "classifier": (
        lambda v: LlamaForSequenceClassification(LlamaConfig(vocab_size=v, **SMALL)),
        "is a LlamaForSequenceClassification, which has another head",
    ),
    "tied classifier": (
        lambda v: GPT2ForSequenceClassification(
            GPT2Config(vocab_size=v, n_embd=32, n_layer=2, n_head=2, pad_token_id=0)
        ),
        "is a GPT2ForSequenceClassification, which has another head",
    ),
    "t5": (
        lambda v: T5ForConditionalGeneration(
            T5Config(vocab_size=v, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        ),
        r"is an encoder-decoder \(T5ForConditionalGeneration\)",
    ),
    "bart": (
        lambda v: BartForConditionalGeneration(BartConfig(vocab_size=v, **bart())),
        r"is an encoder-decoder \(BartForConditionalGeneration\)",
    ),
    "masked": (
        lambda v: BertForMaskedLM(BertConfig(vocab_size=v, **SMALL)),
        "BertLMHeadModel with is_decoder false looks at tokens that come later",
    ),
    "xlnet": (
        lambda v: XLNetLMHeadModel(
            XLNetConfig(vocab_size=v, d_model=32, n_layer=2, n_head=4, d_inner=48)
        ),
        "XLNetLMHeadModel looks at tokens that come later",
    ),
    "embedder": (
        lambda v: Gemma3TextModel(
            Gemma3TextConfig(vocab_size=v, head_dim=8, use_bidirectional_attention=True, **SMALL)
        ),
        "Gemma3ForCausalLM looks at tokens that come later",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("default::palate.errors.DataWarning")  # that a head is tied, say
def test_what_is_no_causal_language_model_is_refused(kind, tokenizer, small_data, tmp_path):
    make, sentence = KINDS[kind]
    torch.manual_seed(0)
    path = folder_of(make(len(tokenizer)), tokenizer, tmp_path)
    refused(path, small_data.items, sentence)


def test_kinds_like_these_that_continue_texts_are_taken(tokenizer, tmp_path):
    """A BERT that is a decoder, and BART's decoder alone."""
    torch.manual_seed(0)
    made = {
        "bert": BertLMHeadModel(BertConfig(vocab_size=len(tokenizer), is_decoder=True, **SMALL)),
        "bart": BartForCausalLM(BartConfig(vocab_size=len(tokenizer), **bart())),
    }
    for name, model in made.items():
        path = folder_of(model, tokenizer, tmp_path / name)
        first, second = (load_policy(path, "plain").score_texts(*TEXTS) for _ in range(2))
        assert torch.equal(first.log_probs, second.log_probs)


def test_a_missing_tensor_is_named(llama, small_data):
    rewritten(llama, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(llama, small_data.items, r"lack model\.layers\.1\.mlp\.up_proj\.weight, which")


def test_missing_layers_are_counted(llama, small_data):
    configured(llama, num_hidden_layers=3)
    refused(llama, small_data.items, r"no whole LlamaForCausalLM: its files lack .* and 6 more")


def test_tensors_of_another_shape_are_named_with_both_shapes(llama, tokenizer, small_data):
    configured(llama, intermediate_size=40)
    refused(
        llama, small_data.items, r"mlp\.down_proj\.weight of shape \(32, 48\).*is \(32, 40\).*more"
    )
    configured(llama, intermediate_size=48, vocab_size=len(tokenizer) - 5)
    refused(llama, small_data.items, r"its files hold lm_head\.weight of shape")


def test_damage_of_any_sort_is_one_sentence(llama, small_data):
    weights = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(llama, small_data.items, "no causal language model could be loaded")
    (llama / "model.safetensors").write_bytes(weights)
    for wrong in ({"hidden_size": "wide"}, {"num_attention_heads": 5}, {"hidden_size": None}):
        kept = (llama / "config.json").read_text()
        configured(llama, **wrong)
        refused(llama, small_data.items, "no causal language model could be loaded")
        (llama / "config.json").write_text(kept)


def test_tensors_too_many_are_named_and_left_out(llama, small_data):
    expected = load_policy(llama).score_texts(*TEXTS).log_probs
    extra = {f"mtp.layers.0.{name}.weight": torch.ones(3) for name in "abcde"}
    rewritten(llama, lambda tensors: tensors.update(extra))
    with pytest.warns(
        DataWarning, match=r"no place for 5 of the tensors.*mtp\.layers\.0\.a\."
    ) as w:
        found = load_policy(llama).score_texts(*TEXTS).log_probs
    assert "and 2 more" in str(w[0].message)
    assert torch.equal(found, expected)
    with pytest.warns(DataWarning, match="they are left out"):
        LanguagePolicy.create(str(llama), small_data.items, "history", 5, 0)


def test_a_tied_head_is_not_missing(tokenizer, tmp_path):
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **SMALL)
    path = folder_of(LlamaForCausalLM(config), tokenizer, tmp_path / "tied")
    assert "lm_head.weight" not in load_file(path / "model.safetensors")
    load_policy(path)  # without a warning


def test_a_model_saved_without_its_tied_head_is_named(tokenizer, tmp_path):
    model = GPT2Model(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2))
    path = folder_of(model, tokenizer, tmp_path / "gpt2")
    with pytest.warns(DataWarning, match="is a GPT2Model, a model without a language head"):
        whole_model(str(path))


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "base and adapters"])
def test_a_saved_policy_that_lost_a_tensor_is_refused(apart, small_data, tmp_path):
    shape = Adapter(rank=2, after_sft="keep") if apart else None
    policy = LanguagePolicy.create("tiny", small_data.items, "history", 5, 0, shape)
    policy.start_stage("sft")
    policy.save(tmp_path)
    base = tmp_path / "base" if apart else tmp_path
    rewritten(base, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(CheckpointError, match=r"its files lack model\.norm\.weight"):
        load_policy(tmp_path)


def test_a_saved_adapter_that_lost_a_tensor_or_has_one_too_many(small_data, tmp_path):
    shape = Adapter(rank=2, after_sft="keep")
    policy = LanguagePolicy.create("tiny", small_data.items, "history", 5, 0, shape)
    policy.start_stage("sft")
    policy.save(tmp_path)
    file = tmp_path / "adapters" / "sft" / "adapter_model.safetensors"
    whole = load_file(file)
    name = next(name for name in whole if "layers.3.mlp.up_proj.lora_A" in name)
    more = {**whole, name.replace("layers.3", "layers.7"): whole[name].clone()}
    save_file(more, file, metadata={"format": "pt"})
    with pytest.warns(DataWarning, match=r"no place for 1 of its tensors \(.*layers\.7\."):
        load_policy(tmp_path)
    save_file({k: v for k, v in whole.items() if k != name}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"it lacks .*layers\.3\.mlp\.up_proj\.lora_A"):
        load_policy(tmp_path)


@pytest.mark.slow
def test_commands_refuse_a_run_whose_weights_are_not_whole(llama, small_data, tmp_path):
    """`run`, by `policy.base`; `recommend` and `evaluate`, by a stage's folder."""
    log = tmp_path / "log.csv"
    rows = [f"{u},{i},{u * 100 + k}" for u in range(12) for k, i in enumerate([u % 5, 6, 7, 8])]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    config = tmp_path / "c.yaml"
    settings = {
        "data": {"source": "files", "path": str(log), "k_core": 1},
        "policy": {"kind": "language", "base": str(llama), "prompts": "history"},
        "sft": {"max_steps": 1},
        "align": {"max_steps": 1},
        "evaluation": {"test_contexts": 4, "validation_contexts": 4, "bootstrap": 100},
        "trackers": [],
    }
    config.write_text(json.dumps(settings))
    out = tmp_path / "run"
    assert command("prepare", config, "--out", out).returncode == 0
    assert command("sft", out).returncode == 0
    rewritten(out / "sft", lambda tensors: tensors.pop("lm_head.weight"))
    rewritten(llama, lambda tensors: tensors.pop("lm_head.weight"))
    lists = tmp_path / "lists.csv"
    for said in (
        command("recommend", out, "--log", log, "--out", lists),
        command("evaluate", out),
        command("align", out),
        command("run", config, "--out", tmp_path / "other"),
    ):
        assert said.returncode == 2, said.stderr
        assert "has no language head: its files lack lm_head.weight" in said.stderr
        assert "Traceback" not in said.stderr
    assert not lists.exists()


def adapted(llama, tokenizer, path, **options):
    """A folder that peft wrote, and the model it was saved from."""
    base = AutoModelForCausalLM.from_pretrained(llama)
    shape = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(base, LoraConfig(**{**shape, **options}))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.5)
    model.save_pretrained(path)
    return model.eval()


def test_an_adapter_from_elsewhere_is_merged_into_its_base(llama, tokenizer, small_data, tmp_path):
    path = tmp_path / "adapter"
    own = adapted(llama, tokenizer, path)
    policy = load_policy(path)  # its tokenizer is the base's
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        truth, found = own(input_ids=ids).logits, policy.model(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(llama)(input_ids=ids).logits
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-5)
    assert (truth - plain).abs().max() > 0.1
    created = LanguagePolicy.create(str(path), small_data.items, "history", 5, 0)
    created.save(tmp_path / "saved")
    shutil.rmtree(llama)  # what is saved stands alone
    shutil.rmtree(path)
    again = load_policy(tmp_path / "saved")
    with torch.no_grad():
        torch.testing.assert_close(again.model(input_ids=ids).logits, truth, atol=1e-5, rtol=1e-5)


def test_a_model_and_an_adapter_in_one_folder_are_both_read(llama, tokenizer):
    own = adapted(llama, tokenizer, llama)
    model, _ = pretrained(str(llama))
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids).logits, own(input_ids=ids).logits, atol=1e-5, rtol=1e-5
        )
    rewritten(llama, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match="has no language head"):
        pretrained(str(llama))


def test_adapters_that_do_not_fit_are_refused(llama, tokenizer, small_data, tmp_path):
    path = tmp_path / "adapter"
    adapted(llama, tokenizer, path)
    with pytest.raises(ConfigError, match=r"policy\.quantize: .* is an adapter over .*llama"):
        whole_model(str(path), quantization_config=object())
    file = path / "adapter_model.safetensors"
    whole = load_file(file)
    name = next(iter(whole))
    save_file({k: v for k, v in whole.items() if k != name}, file, metadata={"format": "pt"})
    refused(path, small_data.items, "is not whole: its files lack .*lora_A")
    narrow = {k: v[:2].clone() if "lora_A" in k else v for k, v in whole.items()}
    save_file(narrow, file, metadata={"format": "pt"})
    refused(path, small_data.items, "does not fit its base model")
    save_file(whole, file, metadata={"format": "pt"})
    config = json.loads((path / "adapter_config.json").read_text())
    for change, sentence in (
        ({"task_type": "SEQ_CLS"}, r"is an adapter for another task \(SEQ_CLS\)"),
        ({"base_model_name_or_path": None}, "does not say of which model"),
        ({"base_model_name_or_path": "/nowhere"}, "no causal language model could be loaded"),
    ):
        (path / "adapter_config.json").write_text(json.dumps({**config, **change}))
        refused(path, small_data.items, sentence)


def test_prompts_of_a_base_of_another_kind_are_refused_before_it_is_loaded(
    tokenizer, small_data, tmp_path
):
    make, sentence = KINDS["bart"]
    path = folder_of(make(len(tokenizer)), tokenizer, tmp_path)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=sentence):
        new_prompter(str(path), small_data.items, "history", 5, 0)


def test_a_real_model_loads_without_a_word():
    load_policy(shared("data/tiny-lm-stories260k/hf"))


def test_a_sequence_policy_that_lost_a_tensor_is_refused(small_data, tmp_path):
    SequencePolicy.create(small_data.items, 10, hidden=16, layers=1, heads=2).save(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    name = next(name for name in whole if "norm" in name)
    rewritten(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"its files lack {re.escape(name)}"):
        load_policy(tmp_path)
    save_file(
        {**whole, name: whole[name][:3].clone()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)} of shape \(3,\)"):
        load_policy(tmp_path)
    save_file(
        {**whole, "old.bias": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.warns(DataWarning, match=r"no place for 1 of the tensors.*\(old\.bias\)"):
        load_policy(tmp_path)
