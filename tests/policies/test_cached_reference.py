"""The cached reference: Frozen's numbers, each pair computed once, kept on disk for its policy."""

import itertools
import json
import math
import multiprocessing
import shutil
import sqlite3
from collections import Counter
from dataclasses import replace
from functools import partial
from unittest.mock import ANY

import numpy as np
import pytest
import torch

from conftest import Stop, ever_better
from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions, parse_config
from palate.data.contexts import Context
from palate.errors import CheckpointError, ConfigError, DataWarning
from palate.negatives import mixture
from palate.objectives import CandidateScores, s_dpo
from palate.policies import LanguagePolicy, SequencePolicy
from palate.policies.fingerprint import context_names, fingerprint
from palate.policies.language.adapters import Adapter
from palate.policies.policy import Asked
from palate.policies.reference import AdapterOff, Cached, Frozen, check_reference
from palate.policies.score_store import ScoreStore
from palate.training.align import align
from palate.training.preference_sets import PreferenceSets, asked_in_training, collate_sets

QUICK = {"log_every": 1, "warmup": 0.0, "schedule": "constant", "metric": "loss", "patience": 99}


def language(data, prompts="history", seed=1, adapter=None, max_history=6):
    policy = LanguagePolicy.create("tiny", data.items, prompts, max_history, seed, adapter)
    policy.start_stage("align")
    return policy


def sequence(data, seed=1):
    return SequencePolicy.create(data.items, 8, hidden=16, inner=16, dropout=0.0, seed=seed)


POLICIES = {
    "language": language,
    "adapter": partial(language, adapter=Adapter(rank=2)),
    "sequence": sequence,
    "candidates in prompts": partial(language, prompts="history_and_candidates"),
}
EACH_POLICY = pytest.mark.parametrize("kind", POLICIES)


def batch_of(policy, data, epoch, examples=range(4)):
    reading = (policy, 3) if policy.learns_whole_histories else ()
    sets = PreferenceSets(data.contexts("train"), mixture({"uniform": 5}, data), 0, *reading)
    return collate_sets(policy, [sets[epoch, i] for i in examples])


def move(policy):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weights in policy.model.named_parameters():
            if weights.requires_grad:
                weights.add_(torch.randn(weights.shape, generator=generator) * 0.1)
                assert "base_layer" not in name


@pytest.fixture
def counted(monkeypatch):
    """Counts each (context, item) pair that a frozen model computes."""
    counts = Counter()

    def counting(method):
        def log_probs(self, batch):
            asked = batch["asked"]
            for context, ids in zip(asked.contexts, asked.item_ids, strict=True):
                counts.update((context.context_id, int(item)) for item in ids if item >= 0)
            return method(self, batch)

        return log_probs

    monkeypatch.setattr(Frozen, "log_probs", counting(Frozen.log_probs))
    monkeypatch.setattr(AdapterOff, "log_probs", counting(AdapterOff.log_probs))
    return counts


def trained(policy, data, reference, folder, negatives=None, validation=None, **options):
    chosen = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, **QUICK, **options}
    align(
        policy,
        data,
        mixture(negatives or {"uniform": 4}, data),
        chosen_objective(AlignConfig(objective="s_dpo")),
        beta=1.0,
        reference=reference,
        validation=validation or (lambda: {"loss": 1.0}),
        options=TrainingOptions(**chosen),
        folder=folder,
        seed=5,
        trackers=(),
    )
    lines = [json.loads(line) for line in (folder / "train.jsonl").open()]
    return [line["loss"] for line in lines if "kl" in line]


def weights_of(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


# The same numbers


@EACH_POLICY
def test_log_probs_and_losses_are_those_of_frozen(kind, small_data):
    policy = POLICIES[kind](small_data)
    frozen, cached = Frozen(policy), Cached(policy)
    move(policy)
    for epoch in (0, 1, 0):  # computed, partly known, known
        batch = batch_of(policy, small_data, epoch)
        scored = policy.log_probs(batch)
        found, expected = cached.log_probs(batch), frozen.log_probs(batch)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert (scored.log_probs - expected).abs().max() > 0.05
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        losses = [
            s_dpo(CandidateScores(scored.log_probs, one, levels=batch["levels"]), beta=1.0)
            for one in (found, expected)
        ]
        torch.testing.assert_close(*losses, atol=1e-5, rtol=0)


@EACH_POLICY
def test_training_is_the_same_as_with_frozen(kind, small_data, tmp_path):
    policy, other = POLICIES[kind](small_data), POLICIES[kind](small_data)
    losses = trained(policy, small_data, Frozen(policy), tmp_path / "frozen")
    found = trained(other, small_data, Cached(other), tmp_path / "cached")
    assert found == pytest.approx(losses, abs=1e-5)
    assert losses[-1] != pytest.approx(losses[0], abs=1e-2)


def test_more_candidates_than_one_pass_takes(small_data, monkeypatch):
    monkeypatch.setattr("palate.policies.reference.WIDEST", 7)
    policy = language(small_data)
    contexts = small_data.contexts("test")[:3]
    ids = np.full((3, 24), -1)
    ids[0], ids[1, 5:9], ids[2, ::3] = np.arange(24)[::-1], [3, 1, 4, 15], np.arange(8)
    batch = {**policy.collate(contexts, ids), "asked": Asked(contexts, ids)}
    cached = Cached(policy)
    for _ in range(2):
        torch.testing.assert_close(
            cached.log_probs(batch), Frozen(policy).log_probs(batch), atol=1e-5, rtol=0
        )
    assert cached.computed == 24 + 4 + 8 == len(cached.store)


def test_in_bf16_it_is_frozen_up_to_rounding(small_data, tmp_path):
    for kind in ("language", "adapter"):
        policy = POLICIES[kind](small_data)
        cached, frozen = Cached(policy, "bf16"), Frozen(policy, "bf16")
        batch = batch_of(policy, small_data, 0)
        forward = vars(policy.model).get("forward")
        torch.testing.assert_close(
            cached.log_probs(batch), frozen.log_probs(batch), atol=0.1, rtol=0
        )
        assert vars(policy.model).get("forward") is forward
        exact = Frozen(policy, "fp32").log_probs(batch)
        assert not torch.equal(cached.log_probs(batch), exact)  # in bf16 indeed
        with pytest.raises(CheckpointError, match=r"with another align\.precision"):
            Cached(policy, "fp32", cached.store.folder)
    losses = trained(policy, small_data, cached, tmp_path, max_steps=2, precision="bf16")
    assert losses[0] == pytest.approx(np.log(5), abs=0.05)


# Once


@pytest.mark.parametrize("kind", ["language", "adapter", "sequence"])
def test_each_pair_is_computed_once_across_epochs(kind, small_data, tmp_path, counted):
    policy = POLICIES[kind](small_data)
    cached = Cached(policy, folder=tmp_path / "cache")
    examples = len(
        PreferenceSets(
            small_data.contexts("train"),
            mixture({"uniform": 4}, small_data),
            0,
            policy,
        )
    )
    steps = math.ceil(2.5 * math.ceil(examples / 8))  # two epochs and a half
    trained(policy, small_data, cached, tmp_path / "run", max_steps=steps)
    assert set(counted.values()) == {1}
    assert sum(counted.values()) == cached.computed == len(cached.store)
    of_context = Counter(context for context, _ in counted)
    assert max(of_context.values()) > 8  # the second epoch drew other negatives than the first
    # another run from the same weights: nothing is left to compute
    again = POLICIES[kind](small_data)
    twin = Cached(again, folder=tmp_path / "cache")
    losses = trained(again, small_data, twin, tmp_path / "again", max_steps=steps)
    assert twin.computed == 0
    assert losses[0] == pytest.approx(math.log(5), abs=1e-4)


@pytest.mark.parametrize("ahead", [0, 1])
def test_what_was_not_filled_ahead_is_computed_as_it_comes(ahead, small_data, tmp_path, counted):
    policy = language(small_data)
    cached = Cached(policy, ahead=ahead)
    options = {"max_steps": None, "epochs": 2, "batch_size": 64}
    trained(policy, small_data, cached, tmp_path, **options)
    assert cached._live is not None
    assert set(counted.values()) == {1}
    assert len(cached.store) == sum(counted.values())


def test_accumulated_batches_of_a_last_half_epoch_are_foreseen(small_data, tmp_path):
    """The copy is let go after filling, so that a pair not foreseen would end the run."""
    policy = language(small_data)
    cached = Cached(policy)
    examples = len(small_data.contexts("train"))
    steps = math.ceil(examples / 16 / 3) + 1
    assert math.ceil(examples / 16) > 3  # a step is no whole epoch
    trained(policy, small_data, cached, tmp_path, max_steps=steps, batch_size=16, accumulate=3)
    assert cached._live is None
    batch = batch_of(policy, small_data, 7)
    with pytest.raises(CheckpointError, match="lost pairs that it held when training began"):
        cached.log_probs(batch)


def test_only_what_is_missing_is_laid_out(small_data, counted):
    policy = language(small_data)
    cached = Cached(policy)
    cached.log_probs(batch_of(policy, small_data, 0, examples=range(1)))
    counted.clear()
    batch = batch_of(policy, small_data, 1, examples=range(1))
    asked = batch["asked"]
    before, _ = cached.store.find(
        context_names(policy, asked.contexts, asked.item_ids), asked.item_ids
    )
    cached.log_probs(batch)
    expected = {
        (context.context_id, int(item))
        for context, ids, known in zip(asked.contexts, asked.item_ids, before != 0, strict=True)
        for item in ids[~known & (ids >= 0)]
    }
    assert (before != 0).any()
    assert set(counted) == expected


def test_what_training_asks_is_known_beforehand(small_data):
    policy = sequence(small_data)
    sets = PreferenceSets(
        small_data.contexts("train"), mixture({"uniform": 3}, small_data), 5, policy
    )
    blocks = list(asked_in_training(sets, policy, 4, seed=5, epochs=2, batches=0))
    found = Counter(
        (context.context_id, int(item))
        for asked in blocks
        for context, ids in zip(asked.contexts, asked.item_ids, strict=True)
        for item in ids[ids >= 0]
    )
    wanted = {
        (one.context.context_id, int(item))
        for epoch in (0, 1)
        for i in range(len(sets))
        for one in sets[epoch, i]
        for item in one.item_ids
    }
    assert set(found) == wanted
    assert set(found.values()) == {1}


# What it costs


def test_no_copy_is_held_once_all_is_computed(small_data, tmp_path):
    policy = language(small_data)
    cached = Cached(policy)
    assert isinstance(cached._live, Frozen)
    trained(policy, small_data, cached, tmp_path, max_steps=2)
    assert cached._live is None
    adapted = POLICIES["adapter"](small_data)
    assert isinstance(Cached(adapted)._live, AdapterOff)


@pytest.mark.parametrize("kind", ["language", "candidates in prompts"])
def test_a_full_store_takes_no_more_and_computes_the_rest_each_time(kind, small_data, tmp_path):
    policy, other = POLICIES[kind](small_data), POLICIES[kind](small_data)
    losses = trained(policy, small_data, Frozen(policy), tmp_path / "frozen")
    cached = Cached(other, folder=tmp_path / "cache", max_pairs=52)
    with pytest.warns(DataWarning, match=r"align\.reference_pairs: .* keeps 52 pairs"):
        found = trained(other, small_data, cached, tmp_path / "cached")
    assert found == pytest.approx(losses, abs=1e-5)
    assert len(cached.store) == 52
    rows = sqlite3.connect(tmp_path / "cache" / "scores.sqlite").execute("SELECT items FROM scores")
    assert sum(len(items) // 4 for (items,) in rows) == 52


# Stops and two processes


def test_a_stopped_stage_resumes_to_the_same_weights(small_data, tmp_path, monkeypatch):
    """Stopped once while it filled its cache, and once while it trained."""

    def run(folder, first, stop=math.inf):
        validation = ever_better(first, stop)
        policy = language(small_data)
        reference = Cached(policy, folder=folder / "cache")
        options = {"max_steps": 12, "batch_size": 4, "evaluations": 30}
        trained(policy, small_data, reference, folder, validation=validation, **options)
        return policy, reference

    whole, _ = run(tmp_path / "whole", first=0)
    blocks = itertools.count()
    add = ScoreStore.add

    def dies(self, *arguments):
        if next(blocks) == 3:
            raise Stop
        return add(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreStore, "add", dies)
        with pytest.raises(Stop):
            run(tmp_path / "cut", first=0)
    with pytest.raises(Stop):
        run(tmp_path / "cut", first=0, stop=2)
    policy, reference = run(tmp_path / "cut", first=2)
    assert reference.computed == 0
    assert torch.equal(weights_of(policy), weights_of(whole))


MADE_OF = {"weights": "a", "precision": "fp32"}


def _write(folder, offset, barrier):
    barrier.wait(60)
    store = ScoreStore(folder, MADE_OF, 10**6)
    for start in range(0, 60, 3):
        contexts = (np.arange(start, start + 20) + offset) % 80
        ids = np.tile(np.arange(25), (20, 1))
        numbers = (contexts[:, None] + ids / 100).astype(np.float32)
        store.add(contexts, ids, numbers, ids >= 0)


@pytest.mark.parametrize("attempt", range(8))
def test_two_processes_write_the_same_pairs_once(attempt, tmp_path):
    forked = multiprocessing.get_context("fork")
    barrier = forked.Barrier(3)
    writers = [
        forked.Process(target=_write, args=(tmp_path / "cache", offset, barrier))
        for offset in (0, 7)
    ]
    for writer in writers:
        writer.start()
    barrier.wait(60)
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    store = ScoreStore(tmp_path / "cache", MADE_OF, 10**6)
    contexts = np.arange(80)
    ids = np.tile(np.arange(25), (80, 1))
    numbers, known = store.find(contexts, ids)
    written = np.isin(contexts, [(c + o) % 80 for c in range(77) for o in (0, 7)])
    assert np.array_equal(known.all(axis=1), written)
    assert len(store) == known.sum()
    expected = (contexts[:, None] + ids / 100).astype(np.float32)
    assert np.array_equal(numbers[known], expected[known])


def _write_for_ever(folder, begun):
    store = ScoreStore(folder, MADE_OF, 10**6)
    for start in itertools.count(0, 30):
        ids = np.tile(np.arange(20), (30, 1))
        store.add(start + np.arange(30), ids, (ids / 2).astype(np.float32), ids >= 0)
        begun.set()


def test_a_killed_writer_leaves_whole_batches(tmp_path):
    forked = multiprocessing.get_context("fork")
    begun = forked.Event()
    writer = forked.Process(target=_write_for_ever, args=(tmp_path / "cache", begun))
    writer.start()
    assert begun.wait(60)
    writer.kill()
    writer.join(60)
    store = ScoreStore(tmp_path / "cache", MADE_OF, 10**6)
    assert len(store) > 0
    assert len(store) % 600 == 0
    contexts = np.arange(len(store) // 20 + 30)
    ids = np.tile(np.arange(21), (len(contexts), 1))
    numbers, known = store.find(contexts, ids)
    assert known.sum() == len(store)
    assert np.array_equal(numbers[known], (np.nonzero(known)[1] / 2).astype(np.float32))


# Whose it is


def test_a_cache_of_another_reference_is_refused_in_a_sentence(small_data, tmp_path):
    Cached(language(small_data), folder=tmp_path / "cache")
    Cached(language(small_data), folder=tmp_path / "cache")
    moved = language(small_data)
    move(moved)
    with pytest.raises(CheckpointError) as error:
        Cached(moved, folder=tmp_path / "cache")
    assert str(error.value) == (
        f"{tmp_path}/cache holds reference log-probabilities computed with other weights; give a "
        "folder of this run's own with --set align.reference_cache=PATH, or remove this one with: "
        f"rm -r {tmp_path}/cache."
    )
    with pytest.raises(CheckpointError, match="other prompts"):
        Cached(language(small_data, max_history=5), folder=tmp_path / "cache")
    with pytest.raises(
        CheckpointError, match=r"with other prompts .* and another tokenizer and other w"
    ):
        Cached(sequence(small_data), folder=tmp_path / "cache")


def test_a_fingerprint_is_of_the_policy_before_its_adapter(small_data):
    plain = language(small_data)
    expected = fingerprint(plain, "fp32")
    adapted = language(small_data, adapter=Adapter(rank=3))
    assert fingerprint(adapted, "fp32") == expected
    move(adapted)
    assert fingerprint(adapted, "fp32") == expected
    plain.tokenizer(["a", "b and c"], padding=True, truncation=True, max_length=2)
    assert fingerprint(plain, "fp32") == expected
    for name, value in (("max_history", 7), ("seed", 2), ("chat", "other"), ("prompts", "x")):
        other = language(small_data)
        setattr(other, name, value)
        assert fingerprint(other, "fp32") == {**expected, "prompts": ANY}
        assert fingerprint(other, "fp32")["prompts"] != expected["prompts"]
    kept = language(small_data, adapter=Adapter(rank=3, after_sft="keep"))
    before = fingerprint(kept, "fp32")
    kept.start_stage("align")  # the first adapter is of the reference now
    assert fingerprint(kept, "fp32")["weights"] != before["weights"]
    items = small_data.items
    other = items.set_column(
        items.column_names.index("title"), "title", [[f"{t}!" for t in small_data.titles()]]
    )
    plain.items = other
    assert fingerprint(plain, "fp32")["items"] != expected["items"]


def test_a_name_is_of_all_that_a_prompt_shows(small_data):
    policy = language(small_data)
    one = small_data.contexts("train")[9]
    ids = np.array([[1, 2, -1]])

    def name(context, policy=policy, ids=ids):
        return int(context_names(policy, [context], ids)[0])

    assert len(one.history) < policy.max_history
    assert name(one) == name(replace(one, positives=np.array([5]), user_id=99))
    others = [
        replace(one, context_id=one.context_id + 1),
        replace(one, history=one.history[1:]),
        replace(one, text="hello"),
        replace(one, candidates=np.array([4])),
    ]
    assert len({name(one), *map(name, others)}) == 5
    older = Context(np.append(np.arange(9), np.arange(6)), one.positives, one.levels)
    assert name(older) == name(replace(older, history=older.history[2:]))
    assert name(one, ids=ids[:, ::-1]) == name(one)
    lists = language(small_data, prompts="history_and_candidates")
    assert name(one, lists, np.array([[2, 1, -1]])) != name(one, lists)
    shown = replace(one, candidates=np.arange(5))
    assert name(shown, lists, np.array([[2, 1, -1]])) == name(shown, lists)


def test_names_of_training_contexts_differ(small_data):
    contexts = [
        one for split in ("train", "validation", "test") for one in small_data.contexts(split)
    ]
    names = context_names(language(small_data), contexts, np.zeros((len(contexts), 1), np.int64))
    assert len(set(names.tolist())) == len(contexts)


# What is refused


def test_a_damaged_or_nameless_cache_is_refused(small_data, tmp_path):
    policy = sequence(small_data)
    cached = Cached(policy, folder=tmp_path / "cache")
    cached.log_probs(batch_of(policy, small_data, 0))
    del cached
    (tmp_path / "cache" / "reference.json").unlink()
    with pytest.raises(CheckpointError, match="does not say what its log-probabilities"):
        Cached(policy, folder=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "scores.sqlite").write_bytes(b"no database at all, but long enough" * 99)
    with pytest.raises(CheckpointError, match=r"cannot be used \(file is not a database\)"):
        Cached(policy, folder=tmp_path / "cache")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file; give a folder"):
        Cached(policy, folder=tmp_path / "file")


def test_configuration():
    check_reference("cached", has_adapter=True, quantized=True)
    parse_config({"align": {"reference": "cached", "reference_cache": "cache"}})
    with pytest.raises(ConfigError, match="reference_cache is for reference=cached, found ref"):
        parse_config({"align": {"reference_cache": "cache"}})
