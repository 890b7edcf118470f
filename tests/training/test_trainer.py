"""What ours adds to the Trainer: whose mean the loss is, in which order batches come, resuming."""

import json
import math
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch import nn

from conftest import Stop, ever_better
from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions
from palate.errors import CheckpointError, DataError, DataWarning
from palate.negatives import Mixture, Observed, mixture
from palate.objectives import OBJECTIVES, CandidateScores, s_dpo
from palate.policies import LanguagePolicy, SequencePolicy
from palate.policies.reference import Frozen
from palate.training.align import align
from palate.training.alignment_logs import reward_logs
from palate.training.batches import Batches
from palate.training.noise import silence
from palate.training.preference_sets import (
    PreferenceSets,
    collate_sets,
)
from palate.training.sft import imitate
from palate.training.trainer import train

QUICK = {"log_every": 1, "warmup": 0.0, "schedule": "constant", "metric": "loss"}


def new_policy(data, seed=1):
    return LanguagePolicy.create("tiny", data.items, "history", max_history=6, seed=seed)


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def aligned(data, folder, chosen="s_dpo", negatives=None, validation=None, **options):
    """A new policy after alignment, and the steps made; `chosen` is a section or its objective."""
    section = {"objective": chosen} if isinstance(chosen, str) else chosen
    policy = new_policy(data)
    steps, _ = align(
        policy,
        data,
        mixture(negatives or {"observed": 2, "uniform": 4}, data),
        chosen_objective(AlignConfig(**section)),
        1.0,
        Frozen(policy),
        validation or (lambda: {"loss": 1.0}),
        TrainingOptions(**{**QUICK, **options}),
        folder,
        seed=5,
        trackers=(),
    )
    return policy, steps


def test_eight_by_one_is_four_by_two(small_data, tmp_path):
    """One step on 8 contexts, and on 4 accumulated twice, move the weights alike."""
    contexts = small_data.contexts("train")
    sets = PreferenceSets(contexts.subset(np.arange(8)), mixture({"uniform": 5}, small_data), 0)
    moved = []
    for batch_size, accumulate in ((8, 1), (4, 2), (3, 3)):  # 3 + 3 + 2: batches of unequal size
        policy = new_policy(small_data)
        before = weights(policy)
        reference = Frozen(new_policy(small_data, seed=2))

        def losses(model, batch, policy=policy, reference=reference):
            scores = CandidateScores(
                policy.log_probs(batch, model).log_probs,
                reference.log_probs(batch),
                levels=batch["levels"],
            )
            return s_dpo(scores), {}

        steps, _ = train(
            "align",
            policy,
            losses,
            lambda: {"loss": 1.0},
            sets,
            partial(collate_sets, policy),
            TrainingOptions(
                **QUICK, max_steps=1, batch_size=batch_size, accumulate=accumulate, clip=1e9
            ),
            tmp_path / str(batch_size),
            seed=0,
            trackers=(),
        )
        assert steps == 1
        moved.append(weights(policy) - before)
        lines = [json.loads(line) for line in (tmp_path / str(batch_size) / "train.jsonl").open()]
        assert lines[0]["loss"] > 0
        moved[-1] = (moved[-1], lines[0]["loss"], lines[0]["grad_norm"])
    for _, loss, norm in moved[1:]:
        assert loss == pytest.approx(moved[0][1], rel=1e-5)
        assert norm == pytest.approx(moved[0][2], rel=1e-4)
    # Adam's first step is lr × sign-like, so weights whose gradient is all but 0 may differ
    for move, _, _ in moved[1:]:
        close = torch.isclose(move, moved[0][0], atol=1e-5)
        assert close.float().mean() > 0.999


def test_imitation_learns(small_data, tmp_path):
    policy = new_policy(small_data)
    imitate(
        "sft",
        policy,
        small_data,
        lambda: {"loss": 1.0},
        TrainingOptions(**QUICK, max_steps=25, batch_size=16, learning_rate=3e-3),
        folder=tmp_path,
        seed=0,
        trackers=(),
        early_stopping=False,
    )
    losses = [json.loads(line).get("loss") for line in (tmp_path / "train.jsonl").open()]
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < 0.6 * losses[0]


def test_alignment_starts_at_the_reference_and_separates(small_data, tmp_path):
    """First loss of S-DPO with equal policy and reference is log(1 + number of negatives)."""
    _, steps = aligned(
        small_data, tmp_path, negatives={"uniform": 6}, max_steps=20, batch_size=16, patience=99
    )
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    logged = [line for line in lines if "rewards/accuracies" in line]
    assert steps == 20
    assert logged[0]["loss"] == pytest.approx(np.log(7), abs=1e-4)
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert logged[-1]["loss"] < logged[0]["loss"]
    assert logged[-1]["rewards/accuracies"] > 0.55
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins", "chosen/falling"} <= set(
        logged[0]
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_takes_a_step(objective, small_data, tmp_path):
    policy, _ = aligned(small_data, tmp_path, objective, max_steps=1, batch_size=4)
    assert weights(policy).isfinite().all()
    assert not torch.equal(weights(policy), weights(new_policy(small_data)))


SECTIONS = {
    "s_dpo": {"objective": "s_dpo"},
    "dynamicpo": {"objective": "dmpo", "dynamicpo": {}},
    "batch_beta": {"objective": "dpo", "batch_beta": {}},
    "mult_dpo": {"objective": "mult_dpo"},
    "sum": {"objective": {"mult_dpo": 1.0, "sft": 0.1}},
}
OWN_NAMES = {
    "dynamicpo": {"beta/p10", "beta/p50", "beta/p90"},
    "batch_beta": {"beta/batch"},
    "mult_dpo": {"bound/gap", "bound/bound"},
    "sum": {"loss/mult_dpo", "loss/sft", "bound/gap", "bound/bound"},
}


@pytest.mark.parametrize("kind", SECTIONS)
def test_alignment_logs_under_stable_names(kind, small_data, tmp_path):
    aligned(small_data, tmp_path, SECTIONS[kind], max_steps=2, batch_size=8)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    assert lines[0] == {"stage": "align", "step": 0, "start_loss": 1.0}
    first = next(line for line in lines if "loss" in line)
    always = {"boundary/share", "easy/share", "boundary/size", "boundary/violations"}
    assert always | {"boundary/margin", "easy/margin"} <= set(first)
    others = {name for names in OWN_NAMES.values() for name in names}
    assert others & set(first) == OWN_NAMES.get(kind, set())
    assert first["boundary/share"] + first["easy/share"] == pytest.approx(1)
    if kind == "dynamicpo":
        assert first["boundary/share"] == 1
        assert 0.5 <= first["beta/p10"] <= first["beta/p50"] <= first["beta/p90"] <= 1.5
    if kind == "sum":
        total = first["loss/mult_dpo"] + 0.1 * first["loss/sft"]
        assert first["loss"] == pytest.approx(total, rel=1e-5)


def test_a_collapse_is_told_above_the_bar_and_in_the_log(small_data, tmp_path, capsys):
    values = [0.5] + [0.4] * 20  # the validation metric falls; the loss does anyhow
    aligned(
        small_data,
        tmp_path,
        validation=lambda: {"ndcg@10": values.pop(0)},
        metric="ndcg@10",
        max_steps=24,
        batch_size=16,
        evaluations=2,
        patience=99,
    )
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    warned = [line["warning"] for line in lines if "warning" in line]
    assert len(warned) == 1
    assert "the validation metric got worse, from 0.5 to 0.4" in warned[0]
    assert "collapse at step" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["s_dpo", "batch_beta"])  # β-DPO has a state that must come along
def test_a_stopped_stage_resumes_to_the_same_weights(kind, small_data, tmp_path):
    options = {"max_steps": 12, "batch_size": 4, "evaluations": 30, "patience": 99}

    def run(folder, first, stop=math.inf):
        validation = ever_better(first, stop)
        return aligned(small_data, folder, SECTIONS[kind], validation=validation, **options)

    whole, _ = run(tmp_path / "whole", first=0)
    with pytest.raises(Stop):
        run(tmp_path / "cut", first=0, stop=2)
    policy, steps = run(tmp_path / "cut", first=2)
    assert steps == 12
    assert torch.equal(weights(policy), weights(whole))
    steps_of = [
        [json.loads(line)["step"] for line in (tmp_path / name / "train.jsonl").open()]
        for name in ("whole", "cut")
    ]
    assert steps_of[0] == steps_of[1]


@pytest.mark.parametrize("sample_by", ["uniform", "popularity"])
def test_a_stopped_sampled_softmax_resumes_to_the_same_weights(sample_by, small_data, tmp_path):
    """A draw is named by its number, which a checkpoint must hold."""
    options = TrainingOptions(
        **QUICK, max_steps=12, batch_size=8, learning_rate=1e-2, evaluations=30, patience=99
    )

    def run(folder, first, stop=math.inf):
        policy = SequencePolicy.create(
            small_data.items,
            6,
            popularity=small_data.popularity,
            seed=1,
            hidden=8,
            inner=8,
            dropout=0.2,
            sampled_softmax=5,
            sample_by=sample_by,
        )
        validation = ever_better(first, stop)
        imitate("sft", policy, small_data, validation, options, folder, seed=5, trackers=())
        return policy

    whole = run(tmp_path / "whole", first=0)
    with pytest.raises(Stop):
        run(tmp_path / "cut", first=0, stop=7)
    resumed = run(tmp_path / "cut", first=7)
    assert int(whole.model.proposals.drawn) == int(resumed.model.proposals.drawn) == 12
    assert torch.equal(weights(resumed), weights(whole))


def test_a_stage_that_starts_again_leaves_one_start(small_data, tmp_path):
    for _ in range(2):  # nothing was saved in between
        aligned(small_data, tmp_path, max_steps=1, batch_size=4)
        shutil.rmtree(tmp_path / "checkpoints")
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    assert sum("start_loss" in line for line in lines) == 1


def test_a_checkpoint_without_the_objectives_state_is_named(small_data, tmp_path):
    options = {"max_steps": 4, "batch_size": 4, "evaluations": 30, "patience": 99}
    for kind, told in (("batch_beta", True), ("s_dpo", False)):  # s_dpo has none to lose
        folder = tmp_path / kind
        aligned(small_data, folder, SECTIONS[kind], **options)
        for state in folder.rglob("objective_0.pt"):
            state.unlink()
        further = {**options, "max_steps": 6}
        if told:
            with pytest.raises(CheckpointError, match=r"lacks objective_0\.pt"):
                aligned(small_data, folder, SECTIONS[kind], **further)
        else:
            aligned(small_data, folder, SECTIONS[kind], **further)


@pytest.mark.parametrize("stop_at", [2, 4])
def test_patience_survives_a_stop(stop_at, small_data, tmp_path):
    """Best at the first validation, patience 3: the fourth ends the stage, cut short or not."""
    options = TrainingOptions(
        **{**QUICK, "max_steps": 12, "batch_size": 4, "evaluations": 30, "patience": 3}
    )
    arguments = (
        mixture({"uniform": 4}, small_data),
        chosen_objective(AlignConfig(objective="s_dpo")),
        1.0,
    )

    def run(folder, losses):
        policy, left = new_policy(small_data), list(losses)
        done = align(
            policy,
            small_data,
            *arguments,
            Frozen(policy),
            lambda: {"loss": left.pop(0)},
            options,
            folder,
            5,
            (),
        )
        return done.steps, weights(policy)

    values = [1.0, 2.0, 2.0, 2.0, 2.0]
    start = [0.5]  # of the policy as it starts, which is no checkpoint
    steps, whole = run(tmp_path / "whole", start + values)
    with pytest.raises(IndexError):  # no value is left: validation fails, its step is lost
        run(tmp_path / "cut", start + values[: stop_at - 1])
    again, resumed = run(tmp_path / "cut", values[stop_at - 1 :])
    assert steps == again
    assert torch.equal(whole, resumed)
    again, finished = run(tmp_path / "cut", [])  # its result was not saved: from its checkpoints
    assert steps == again
    assert torch.equal(whole, finished)


def test_alignment_without_negatives_is_refused_and_gaps_are_told(small_data):
    contexts = small_data.contexts("train")
    nobody = Observed([np.empty(0, np.int64)] * small_data.users.num_rows)
    sets = PreferenceSets(contexts, Mixture({"observed": (nobody, 3)}), 0)
    with pytest.raises(DataError, match=r"none of the .* training contexts gets a negative"):
        sets.with_negatives()
    with pytest.raises(DataError, match="got no negative"):
        sets[0, 0]
    first = contexts[0].user_id
    some = [np.arange(40) if u == first else np.empty(0, np.int64) for u in range(60)]
    sets = PreferenceSets(contexts, Mixture({"observed": (Observed(some), 3)}), 0)
    with pytest.warns(DataWarning, match="training contexts get no negative and are left out"):
        kept = sets.with_negatives()
    assert {kept[0, i][0].context.user_id for i in range(len(kept))} == {first}


def test_a_loss_that_is_not_a_number_stops_the_run(small_data, tmp_path):
    policy = new_policy(small_data)
    sets = PreferenceSets(small_data.contexts("train"), mixture({"uniform": 2}, small_data), 0)

    def losses(model, batch):
        return policy.log_probs(batch, model).log_probs[:, 0] * float("nan"), {}

    with pytest.raises(DataError, match="the loss is nan at step 1: training diverged"):
        train(
            "align",
            policy,
            losses,
            lambda: {"loss": 1.0},
            sets,
            partial(collate_sets, policy),
            TrainingOptions(**QUICK, max_steps=2, batch_size=4),
            tmp_path,
            seed=0,
            trackers=(),
        )


LANGUAGE, SEQUENCE = SimpleNamespace(kind="language"), SimpleNamespace(kind="sequence")


def alike(n):
    return SimpleNamespace(sizes=np.arange(n) % 13, n_losses=np.ones(n, np.int64))


@pytest.mark.parametrize("batch_size", [1, 4, 40, 1000])
@pytest.mark.parametrize("policy", [LANGUAGE, SEQUENCE], ids=lambda policy: policy.kind)
def test_batches_hold_about_as_many_losses_as_one_another(policy, batch_size):
    """Lengths of 2 to 400, most of them short; a language model's are alike in a batch."""
    sizes = np.random.default_rng(0).zipf(1.6, 997).clip(2, 400)
    examples = SimpleNamespace(sizes=sizes, n_losses=sizes - 1)
    batches = Batches(policy, examples, batch_size, seed=1)
    found = [np.array([index for _, index in batch]) for batch in batches]
    assert len(found) == len(batches) == -(-997 // batch_size)
    assert sorted(np.concatenate(found).tolist()) == list(range(997))
    budget = batch_size * (sizes - 1).mean()
    losses = np.array([(sizes[one] - 1).sum() for one in found])
    assert (losses <= budget + (sizes.max() - 1)).all()
    if batch_size == 40:
        assert np.median(np.abs(losses / budget - 1)) < 0.2
        padded = sum(len(one) * sizes[one].max() for one in found)
        shuffled = np.random.default_rng(1).permutation(sizes)
        alone = sum(len(one) * one.max() for one in np.split(shuffled, range(40, 997, 40)))
        assert (padded < 0.5 * alone) == (policy is LANGUAGE)


def test_batches_hold_every_example_once_in_an_order_named_by_seed_and_epoch():
    batches = Batches(LANGUAGE, alike(101), 8, seed=1)
    first = list(batches)
    assert first == list(batches)
    assert len(first) == len(batches) == 13
    assert sorted(index for batch in first for _, index in batch) == list(range(101))
    batches.set_epoch(1)
    assert [b[0] for b in batches] != [b[0] for b in first]
    assert {epoch for batch in batches for epoch, _ in batch} == {1}


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_several_processes_lose_no_example(processes):
    """The short batch comes anywhere among the 13; some are dealt twice at the end."""
    for epoch in range(12):
        met = []
        for process in range(processes):
            batches = Batches(LANGUAGE, alike(101), 8, seed=1)
            batches.set_epoch(epoch)
            share = BatchSamplerShard(batches, processes, process)
            dealt = list(share)
            assert len(dealt) == len(share)
            met += [index for batch in dealt for _, index in batch]
        assert set(met) == set(range(101))


def test_reward_logs_by_hand():
    """h = (1, −1, 0), β = 2: rewards 2 | −2, 0; margins 4 and 2, both in order."""
    scores = CandidateScores(
        torch.tensor([[-1.0, -3.0, -2.0]]),
        torch.tensor([[-2.0, -2.0, -2.0]]),
        levels=torch.tensor([[1, 0, 0]]),
    )
    logs = reward_logs(scores, beta=2.0)
    assert float(logs["rewards/chosen"]) == pytest.approx(2)
    assert float(logs["rewards/rejected"]) == pytest.approx(-1)
    assert float(logs["rewards/margins"]) == pytest.approx(3)
    assert float(logs["rewards/accuracies"]) == 1
    assert float(logs["chosen/falling"]) == 0
    # reference uniform over three, policy softmax(1, −1, 0): KL = log(e + 1/e + 1) − log 3
    expected = np.log(np.e + 1 / np.e + 1) - np.log(3)
    assert float(logs["kl"]) == pytest.approx(expected, abs=1e-6)


def test_dropout_is_off_in_alignment():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50))
    silence(model.train())
    tokens = torch.arange(10)[None]
    assert torch.equal(model(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("layer", "dimensions"),
    [
        (nn.Dropout(), 3),
        (nn.Dropout1d(), 3),
        (nn.Dropout2d(), 4),
        (nn.Dropout3d(), 5),
        (nn.AlphaDropout(), 3),
        (nn.FeatureAlphaDropout(), 4),
        (nn.GRU(4, 4, num_layers=2, dropout=0.5), 3),
    ],
)
def test_every_kind_of_dropout_is_off_in_alignment(layer, dimensions):
    silence(nn.Sequential(layer).train())
    ones = torch.ones([4] * dimensions)
    once, again = (layer(ones) for _ in range(2))
    if isinstance(layer, nn.GRU):
        once, again = once[0], again[0]
    assert torch.equal(once, again)


def test_prompts_with_candidates_are_trained_target_by_target(small_data, tmp_path):
    policy = LanguagePolicy.create("tiny", small_data.items, "history_and_candidates", 4, 0)
    options = TrainingOptions(**QUICK, max_steps=2, batch_size=4)
    steps, _ = imitate(
        "sft", policy, small_data, lambda: {"loss": 1.0}, options, tmp_path, 0, (), False
    )
    assert steps == 2
