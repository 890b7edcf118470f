"""Several moments of one history read in one pass: the history is the trunk of a tree."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions, parse_config
from palate.data.contexts import ContextSet, Interactions
from palate.environment import check_environment
from palate.errors import ConfigError
from palate.negatives import mixture
from palate.policies import LanguagePolicy, SequencePolicy
from palate.policies.language.adapters import Adapter
from palate.policies.policy import first_reads
from palate.policies.reference import REFERENCES
from palate.training.align import align
from palate.training.preference_sets import PreferenceSets, passes


@given(
    gaps=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    together=st.integers(1, 9),
    longest=st.integers(2, 20),
    overlap=st.integers(1, 20),
    room=st.integers(1, 12),
)
def test_a_pass_has_room_for_what_its_moments_read(gaps, together, longest, overlap, room):
    overlap = min(overlap, longest)
    moments = np.cumsum(gaps)
    history = np.arange(moments[-1])
    places = first_reads(
        history, moments, together, longest, overlap, fits=lambda items: min(room, len(items))
    )
    assert (np.diff(places) >= 0).all()
    assert (places < moments).all()
    assert (moments - places <= min(longest, room)).all()
    fewest = np.minimum(np.minimum(overlap, room), moments)
    assert (moments - places >= fewest).all()


def moments_of(policy, data, together):
    """The training contexts of a few users, with candidates, as passes of so many moments."""
    drawn = mixture({"uniform": 5}, data)
    sets = PreferenceSets(data.contexts("train"), drawn, 0, policy, together)
    examples = sorted((sets[0, index] for index in range(len(sets))), key=len)
    return [one for example in examples[-4:] for one in example]


@pytest.mark.parametrize("adapter", [None, Adapter(rank=2)], ids=["whole", "lora"])
def test_moments_of_a_history_in_one_pass_score_as_each_by_itself(adapter, small_data):
    arguments = ("tiny", small_data.items, "history", 4, 1, adapter)
    policy = LanguagePolicy.create(*arguments)
    policy.start_stage("align")
    policy.model.eval()
    plain = LanguagePolicy(
        policy.model, policy.tokenizer, small_data.items, policy.prompts, 4, 1, engine="plain"
    )
    sets = moments_of(policy, small_data, 8)
    contexts, ids = [one.context for one in sets], np.stack([one.item_ids for one in sets])
    passes = {(one.user_id, one.first_read) for one in contexts}
    assert len(passes) < len(contexts) / 3
    assert max(len(one.history) - one.first_read for one in contexts) > policy.max_history
    found = []
    for one in (policy, plain):
        batch = one.collate(contexts, ids)
        scores = one.log_probs(batch).log_probs
        weights = torch.linspace(-1, 2, scores.numel()).view_as(scores)
        policy.model.zero_grad()
        (weights * scores).sum().backward()
        trained = [w.grad.flatten() for w in policy.model.parameters() if w.grad is not None]
        found.append((scores.detach(), torch.cat(trained), batch["input_ids"].numel()))
    (together, gradient, fed), (alone, expected, fed_alone) = found
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert float((gradient - expected).abs().max() / expected.abs().max()) < 1e-4
    assert fed < fed_alone / 5
    # a moment's own tree, of the same prompt
    trees = torch.cat(
        [policy.score([c], row[None]).log_probs for c, row in zip(contexts, ids, strict=True)]
    )
    torch.testing.assert_close(together, trees, atol=1e-4, rtol=0)


def test_a_pass_asks_with_one_template_and_the_items_from_its_place_on(small_data):
    policy = LanguagePolicy.create("tiny", small_data.items, "history", 4, seed=1)
    titles = policy.prompter.title_tokens
    for one in moments_of(policy, small_data, 3):
        context = one.context
        read = context.history[context.first_read :]
        assert read[-1] == context.history[-1]
        tokens = policy.prompt_tokens(context).tolist()
        shown = [tokens.index(int(titles[item][0])) for item in read]
        assert shown == sorted(shown)
        first = replace(context, history=context.history[: context.first_read + 1])
        start = policy.prompt_tokens(first).tolist()[:-1]
        assert tokens[: len(start)] == start


def test_prompts_with_more_behind_the_history_are_read_one_by_one(small_data):
    prompts = "history_and_candidates"
    policy = LanguagePolicy.create("tiny", small_data.items, prompts, 4, seed=1)
    with pytest.raises(ConfigError, match="each moment needs a prompt of its own"):
        moments_of(policy, small_data, 3)
    config = parse_config(
        {
            "policy": {"prompts": prompts},
            "align": {"moments_together": 4},
            "evaluation": {"protocols": ["candidates"]},
        }
    )
    with pytest.raises(ConfigError, match="moments_together is 4, but the prompts of 'history_and"):
        check_environment(config)


@pytest.mark.parametrize("reference", ["frozen", "cached"])
def test_alignment_reads_moments_together_with_the_losses_of_the_plain_engine(
    reference, small_data, tmp_path
):
    def losses(engine):
        policy = LanguagePolicy.create("tiny", small_data.items, "history", 4, seed=1)
        policy.engine = engine
        options = AlignConfig()
        logs = tmp_path / engine
        align(
            policy,
            small_data,
            mixture({"uniform": 3}, small_data),
            chosen_objective(options),
            options.beta,
            REFERENCES[reference](policy),
            lambda: {"loss": 0.0},
            TrainingOptions(max_steps=4, batch_size=2, log_every=1, metric="loss"),
            logs,
            seed=0,
            trackers=(),
            together=5,
        )
        lines = map(json.loads, (logs / "train.jsonl").read_text("utf-8").splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    tree, plain = losses("tree"), losses("plain")
    assert len(tree) == len(plain) >= 4
    assert tree[0] == pytest.approx(np.log(4), abs=1e-4)
    assert tree == pytest.approx(plain, abs=1e-4)
    assert len({round(loss, 6) for loss in tree}) > 1


@pytest.mark.parametrize("users", [3, 300])
def test_passes_ask_for_the_whole_log_a_fixed_number_of_times(users):
    """Once a user would be work that grows with the square."""
    asked = []

    class Counted(ContextSet):
        @property
        def users(self):
            asked.append("users")
            return super().users

    rows = np.arange(users * 5)
    begins = rows[rows % 5 > 0]
    log = Interactions(
        items=rows % 7,
        levels=np.ones(len(rows), np.int64),
        disliked=np.zeros(len(rows), bool),
        timestamps=None,
        users=rows // 5,
        first_row=np.arange(users + 1) * 5,
        split_starts={},
    )
    policy = SequencePolicy.create(pa.table({"item_id": range(7), "title": ["a"] * 7}), 4)
    first_reads_, found = passes(Counted(log, begins, begins + 1), policy, 2)
    # a pass has two moments; the second begins where half of what is read is known: 3 - 4 // 2
    assert first_reads_.tolist() == [0, 0, 1, 1] * users
    assert [one.tolist() for one in found[:2]] == [[0, 1], [2, 3]]
    assert len(asked) <= 3
