"""Adapters: what trains, what stays, and that a policy is the same one saved, merged or resumed."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from conftest import Stop, ever_better
from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions
from palate.errors import CheckpointError, ConfigError
from palate.negatives import mixture
from palate.policies import LanguagePolicy, load_policy
from palate.policies.language.adapters import AdaptedModel, Adapter, merge, plain_weights
from palate.policies.language.weights import ADAPTER_WEIGHTS, check_quantization
from palate.policies.reference import AdapterOff, Frozen
from palate.training.align import align
from palate.training.noise import silence
from palate.training.sft import imitate

SHAPE = Adapter(rank=4, alpha=8)
QUICK = {"log_every": 1, "warmup": 0.0, "schedule": "constant", "metric": "loss", "patience": 99}
IDS = np.arange(12).reshape(4, 3)
AFTER_SFT = pytest.mark.parametrize("after_sft", ["merge", "keep"])


def new_policy(data, after_sft="merge", **shape):
    adapter = replace(SHAPE, after_sft=after_sft, **shape)
    return LanguagePolicy.create("tiny", data.items, "history", 6, seed=1, adapter=adapter)


def imitated(policy, data, folder, validation=lambda: {"loss": 1.0}, **options):
    """The policy after some steps of imitation, started beforehand."""
    chosen = {"max_steps": 8, "batch_size": 16, "learning_rate": 2e-2, **QUICK, **options}
    chosen = TrainingOptions(**chosen)
    imitate("sft", policy, data, validation, chosen, folder=folder, seed=0, trackers=())
    return policy


def aligned(policy, data, folder, validation=lambda: {"loss": 1.0}, **options):
    """The policy after some steps of alignment, started beforehand."""
    chosen = {"max_steps": 6, "batch_size": 4, "learning_rate": 1e-2, **QUICK, **options}
    align(
        policy,
        data,
        mixture({"uniform": 4}, data),
        chosen_objective(AlignConfig(objective="s_dpo")),
        beta=1.0,
        reference=AdapterOff(policy),
        validation=validation,
        options=TrainingOptions(**chosen),
        folder=folder,
        seed=5,
        trackers=(),
    )
    return policy


@pytest.fixture(scope="session")
def sft(small_data, tmp_path_factory):
    """Folders of policies after a real SFT by adapter, one for each way to go on."""
    folders = {}
    for after_sft in ("merge", "keep"):
        folder = tmp_path_factory.mktemp(after_sft)
        policy = new_policy(small_data, after_sft)
        policy.start_stage("sft")
        imitated(policy, small_data, folder).save(folder / "sft")
        folders[after_sft] = folder / "sft"
    return folders


@pytest.fixture
def started(sft):
    """Loads the policy of an SFT folder and starts its alignment."""

    def start(after_sft):
        policy = load_policy(sft[after_sft])
        policy.start_stage("align")
        return policy

    return start


def scores(policy, data):
    return policy.score(data.contexts("test")[:4], IDS).log_probs


def base_weights(policy):
    """Copies of the base model's tensors, with or without adapters on them."""
    model = policy.model
    adapted = isinstance(model, AdaptedModel)
    weights = plain_weights(model, merged=False) if adapted else model.state_dict()
    return {name: tensor.clone() for name, tensor in weights.items()}


def adapter_weights(policy, name=""):
    """Copies of the tensors of one adapter, or of all."""
    named = policy.model.named_parameters()
    return {n: w.detach().clone() for n, w in named if ".lora_" in n and name in n}


def trainable(policy):
    return {name: w for name, w in policy.model.named_parameters() if w.requires_grad}


def same(before, after):
    return before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


def randomise(policy, name=".lora_B."):
    """Give adapters an effect without training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter, weights in policy.model.named_parameters():
            if name in parameter:
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.05)


# What trains


def test_a_new_adapter_alone_trains_and_changes_no_score(small_data):
    policy = new_policy(small_data)
    before = scores(policy, small_data)
    everything = sum(weights.numel() for weights in policy.model.parameters())
    policy.start_stage("sft")
    assert torch.equal(scores(policy, small_data), before)
    training = trainable(policy)
    assert all(".lora_" in name for name in training)
    assert len(training) == 2 * 7 * 4  # A and B of seven matrices in each of four blocks
    assert sum(weights.numel() for weights in training.values()) < 0.05 * everything
    base = policy.model.get_base_model()
    assert base.lm_head.weight is base.model.embed_tokens.weight  # the head is left alone


def test_without_an_adapter_a_stage_trains_all_weights(small_policy):
    model = small_policy.model
    small_policy.start_stage("sft")
    assert small_policy.model is model
    assert all(weights.requires_grad for weights in model.parameters())


@AFTER_SFT
def test_alignment_moves_its_adapter_alone(after_sft, small_data, started, tmp_path):
    policy = started(after_sft)
    base, before = base_weights(policy), adapter_weights(policy)
    aligned(policy, small_data, tmp_path, max_steps=2)
    assert same(base, base_weights(policy))
    after = adapter_weights(policy)
    for name in before:
        assert torch.equal(before[name], after[name]) == (".sft." in name)
    assert any(".sft." in name for name in before) == (after_sft == "keep")
    state = tmp_path / "checkpoints/align/checkpoint-2/optimizer.pt"
    optimised = torch.load(state, weights_only=True)["state"].values()
    assert sorted(tuple(one["exp_avg"].shape) for one in optimised) == sorted(
        tuple(weights.shape) for weights in trainable(policy).values()
    )


def test_initial_weights_are_named_by_the_seed_and_the_stage(small_data):
    state = torch.random.get_rng_state()
    first, again = new_policy(small_data), new_policy(small_data)
    other = new_policy(small_data)
    other.seed = 2
    for policy in (first, again, other):
        policy.start_stage("sft")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(adapter_weights(first), adapter_weights(again))
    assert not same(adapter_weights(first), adapter_weights(other))
    before = adapter_weights(first)
    first.start_stage("sft")  # merges the first, of which nothing is learnt yet
    assert first.stages == ("sft", "sft")
    for old, new in zip(before.values(), adapter_weights(first).values(), strict=True):
        assert old.shape == new.shape
        assert not torch.equal(old, new) or not old.any()


@AFTER_SFT
def test_imitation_goes_on_with_an_adapter_as_large_as_alignments(after_sft, small_data, sft):
    sizes = []
    for stage in ("align", "sft"):
        policy = load_policy(sft[after_sft])
        before = scores(policy, small_data)
        policy.start_stage(stage)
        torch.testing.assert_close(scores(policy, small_data), before, atol=1e-5, rtol=1e-5)
        sizes.append(sum(weights.numel() for weights in trainable(policy).values()))
        name = {"align": "align", "sft": "sft_2"}[stage]
        assert all(f".{name}." in parameter for parameter in trainable(policy))
    assert sizes[0] == sizes[1]


def test_dropout_is_the_new_adapters_and_off_in_alignment(small_data):
    policy = new_policy(small_data, "keep", dropout=0.5)
    policy.start_stage("sft")
    randomise(policy)
    batch = policy.collate(small_data.contexts("test")[:2], IDS[:2])

    def differs(prepare=lambda model: None):
        policy.model.train()
        prepare(policy.model)
        once, twice = (policy.log_probs(batch).log_probs for _ in range(2))
        return not torch.equal(once, twice)

    assert differs()
    policy.start_stage("align")  # its B is 0, so its dropout shows nothing yet
    assert not differs()
    randomise(policy)
    assert differs()
    assert not differs(silence)


# Scores


@AFTER_SFT
def test_packed_lone_and_catalogue_scores_agree_with_the_merged_model(
    after_sft, small_data, started
):
    policy = started(after_sft)
    randomise(policy, "align")
    contexts = small_data.contexts("test")[:4]
    packed, catalogue = scores(policy, small_data), policy.catalogue_log_probs(contexts)
    policy.engine = "plain"
    alone = scores(policy, small_data)
    policy.engine = "tree"
    policy.model = merge(policy.model)
    merged = scores(policy, small_data)
    assert not isinstance(policy.model, AdaptedModel)
    for found in (packed, alone, catalogue.gather(1, torch.from_numpy(IDS))):
        torch.testing.assert_close(found, merged, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_give_the_same_gradients(reentrant, small_data, started):
    policy = started("keep")
    randomise(policy, "lora_B.align")
    reference = AdapterOff(policy)
    policy.model.train()
    batch = policy.collate(small_data.contexts("test")[:4], IDS)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            policy.model.get_base_model().gradient_checkpointing_enable(
                {"use_reentrant": reentrant}
            )
            policy.model.get_base_model().enable_input_require_grads()
        policy.model.zero_grad()
        loss = policy.log_probs(batch).log_probs.square().sum()
        reference.log_probs(batch)  # between forward and backward, as alignment has it
        loss.backward()
        gradients.append([weights.grad.clone() for weights in trainable(policy).values()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-3, rtol=1e-4)


# Saving and loading


@pytest.mark.parametrize("stage", ["sft", "align"])
@AFTER_SFT
def test_saved_and_loaded_it_is_the_same_and_saving_changes_nothing(
    after_sft, stage, small_data, sft, tmp_path
):
    policy = load_policy(sft[after_sft])
    policy.start_stage(stage)
    randomise(policy, f".lora_B.{policy.model.trainable}.")
    everything = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    training, found = set(trainable(policy)), scores(policy, small_data)
    policy.save(tmp_path)
    assert same(everything, policy.model.state_dict())
    assert set(trainable(policy)) == training
    assert torch.equal(scores(policy, small_data), found)
    loaded = load_policy(tmp_path)
    torch.testing.assert_close(scores(loaded, small_data), found, atol=1e-5, rtol=1e-5)
    assert (loaded.adapter, loaded.stages) == (policy.adapter, ("sft", stage))
    assert not isinstance(loaded.model, AdaptedModel)
    # what others load from the folder is the whole model too
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = policy.model.eval()(tokens).logits
        torch.testing.assert_close(theirs(tokens).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_kept_adapter_is_saved_beside_its_base(small_data, sft, tmp_path):
    assert {p.name for p in (sft["keep"] / "adapters").iterdir()} == {"sft"}
    assert not (sft["keep"] / "model.safetensors").exists()  # no half model to load by mistake
    policy = load_policy(sft["keep"])
    assert same(base_weights(policy), base_weights(new_policy(small_data)))
    assert not trainable(policy)
    policy.save(tmp_path)  # whole again, though nothing was started
    assert torch.equal(scores(load_policy(tmp_path), small_data), scores(policy, small_data))
    weights = tmp_path / "adapters" / "sft" / ADAPTER_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="does not fit its base model"):
        load_policy(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="holds no adapter_model"):
        load_policy(tmp_path)
    settings = json.loads((tmp_path / "palate.json").read_text())
    assert settings["adapters"] == ["sft"]


def test_an_adapter_of_another_shape_is_named(sft, tmp_path, small_data):
    policy = load_policy(sft["keep"])
    policy.adapter = replace(policy.adapter, rank=3)
    policy.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not fit its base model .*size mismatch"):
        load_policy(tmp_path)


def test_merging_and_keeping_align_alike(small_data, started, tmp_path):
    found = []
    for after_sft in ("merge", "keep"):
        policy = aligned(started(after_sft), small_data, tmp_path / after_sft)
        found.append(scores(policy, small_data))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-4)


# Checkpoints


@pytest.mark.parametrize("case", ["sft", "merge", "keep"])
def test_a_stopped_stage_resumes_to_the_same_weights(case, small_data, started, tmp_path):
    def begun():
        if case != "sft":
            return started(case)
        policy = new_policy(small_data, dropout=0.1)
        policy.start_stage("sft")
        return policy

    train = imitated if case == "sft" else aligned
    options = {"max_steps": 6, "batch_size": 4, "evaluations": 30}

    def run(folder, first, stop=math.inf):
        validation = ever_better(first, stop)
        return train(begun(), small_data, folder, validation, **options)

    whole = run(tmp_path / "whole", first=0)
    with pytest.raises(Stop):
        run(tmp_path / "cut", first=0, stop=2)
    checkpoint = next((tmp_path / "cut/checkpoints").rglob("trainer_state.json"))
    assert json.loads(checkpoint.read_text())["global_step"] < 6
    assert not (checkpoint.parent / "model.safetensors").exists()
    resumed = run(tmp_path / "cut", first=2)
    assert same(adapter_weights(whole), adapter_weights(resumed))
    assert same(base_weights(whole), base_weights(resumed))
    assert set(trainable(whole)) == set(trainable(resumed))


@AFTER_SFT
def test_the_best_checkpoint_is_what_remains(after_sft, small_data, started, tmp_path):
    policy, weights = started(after_sft), []
    losses = [0.0, 3.0, 1.0, 2.0]  # the first is of the policy as it starts, which is no checkpoint

    def validation():
        weights.append(adapter_weights(policy))
        return {"loss": losses[len(weights) - 1]}

    options = {"max_steps": 3, "evaluations": 1e9}
    aligned(policy, small_data, tmp_path, validation, **options)
    assert not same(weights[2], weights[3])
    assert same(adapter_weights(policy), weights[2])
    # and again, from the checkpoints of a stage that had ended by its patience
    ended = started(after_sft)
    aligned(ended, small_data, tmp_path, lambda: {"loss": 1.0}, **options, patience=1)
    assert same(adapter_weights(ended), weights[2])


# What is refused


def test_targets_are_checked(small_data, small_policy):
    policy = new_policy(small_data, targets=["q_proj", "v_proj"])
    policy.start_stage("sft")
    assert {name.split(".")[-4] for name in trainable(policy)} == {"q_proj", "v_proj"}
    with pytest.raises(ConfigError, match=r"'query' is no linear layer .* Known: .*q_proj"):
        new_policy(small_data, targets=["query"]).start_stage("sft")
    with pytest.raises(ConfigError, match="Did you mean 'q_proj'"):
        new_policy(small_data, targets=["q_project"]).start_stage("sft")
    with pytest.raises(ConfigError, match="'lm_head' shares its weights with the input embedd"):
        new_policy(small_data, targets=["v_proj", "lm_head"]).start_stage("sft")


def test_transposed_layers_are_merged_right(small_data, small_policy, tmp_path):
    """GPT-2 keeps its matrices transposed."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
    tokens = {"vocab_size": 600, "bos_token_id": 1, "eos_token_id": 2}
    model = GPT2LMHeadModel(GPT2Config(**shape, **tokens))
    policy = LanguagePolicy(
        model, small_policy.tokenizer, small_data.items, small_policy.prompts, 5, adapter=SHAPE
    )
    policy.start_stage("sft")
    randomise(policy)
    policy.save(tmp_path)
    found = scores(load_policy(tmp_path), small_data)
    torch.testing.assert_close(found, scores(policy, small_data), atol=1e-5, rtol=1e-5)


def test_quantising_is_refused_where_it_cannot_be(small_data, tmp_path):
    def create(base, adapter=SHAPE):
        return LanguagePolicy.create(base, small_data.items, "history", 6, 1, adapter, True)

    with pytest.raises(ConfigError, match=r"set policy\.adapter too"):
        create("some/model", adapter=None)
    with pytest.raises(ConfigError, match="'tiny' is made from scratch"):
        create("tiny")
    with pytest.raises(ConfigError, match=r"policy\.quantize needs a CUDA device, and this is cpu"):
        check_quantization(torch.device("cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"policy\.quantize needs a CUDA device"):
            create("some/model")
    if find_spec("bitsandbytes") is None:
        with pytest.raises(ConfigError, match=r"pip install 'palate\[quant\]'"):
            check_quantization(torch.device("cuda"))


def test_four_bits_on_a_cpu_that_is_let_pass(small_data, small_policy, tmp_path, monkeypatch):
    """The 4-bit road from end to end; bitsandbytes runs it, slowly, without CUDA too."""
    pytest.importorskip("bitsandbytes")
    for module in ("weights", "causal_lm"):
        name = f"palate.policies.language.{module}.check_quantization"
        monkeypatch.setattr(name, lambda device: None)
    base = tmp_path / "pretrained"
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 2048}
    plain = LlamaForCausalLM(LlamaConfig(**shape, **heads, bos_token_id=1, eos_token_id=2))
    small_policy.model = plain
    small_policy.save(base)
    policy = LanguagePolicy.create(str(base), small_data.items, "history", 6, 1, SHAPE, True)
    assert policy.engine == "tree"
    policy.start_stage("sft")
    policy.model.to(torch.device("cpu"))  # as the pipeline has it, though it is there already
    imitated(policy, small_data, tmp_path, max_steps=3)
    policy.save(tmp_path / "sft")
    assert {p.name for p in (tmp_path / "sft" / "adapters").iterdir()} == {"sft"}
    assert not list((tmp_path / "sft").rglob("model*.safetensors"))
    loaded, found = load_policy(tmp_path / "sft"), scores(policy, small_data)
    torch.testing.assert_close(scores(loaded, small_data), found, atol=1e-5, rtol=1e-5)
    assert (found - scores(small_policy, small_data)).abs().max() > 0.1
    loaded.start_stage("align")
    with pytest.raises(ConfigError, match=r"align\.reference=adapter_off"):
        Frozen(loaded)
    aligned(loaded, small_data, tmp_path, max_steps=2)
    assert loaded.model.get_base_model().is_loaded_in_4bit
    batch = loaded.collate(small_data.contexts("test")[:4], IDS)
    before = AdapterOff(loaded).log_probs(batch)
    torch.testing.assert_close(before, found, atol=1e-5, rtol=1e-5)
    assert (scores(loaded, small_data) - found).abs().max() > 1e-3
    loaded.save(tmp_path / "aligned")
    again = load_policy(tmp_path / "aligned")
    assert list(again.model.peft_config) == ["sft", "align"]
    found = scores(loaded, small_data)  # their bf16 products differ in the last bit on a CPU
    torch.testing.assert_close(scores(again, small_data), found, atol=1e-3, rtol=1e-5)
