"""Alignment with negatives that ask the policy: where they are drawn, and that nothing else
than the seed, the epoch and the weights decides them."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from conftest import Stop, ever_better
from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, PoolConfig, TrainingOptions, parse_config
from palate.environment import check_data
from palate.errors import CheckpointError, ConfigError, DataError, DataWarning
from palate.negatives import mixture
from palate.policies import LanguagePolicy, SequencePolicy
from palate.policies.language.adapters import Adapter
from palate.policies.reference import REFERENCES
from palate.training.align import align
from palate.training.live_negatives import LiveNegatives, Undrawn
from palate.training.preference_sets import PreferenceSet, PreferenceSets
from palate.training.scored_pools import ScoredPools

QUICK = {"log_every": 1, "warmup": 0.0, "schedule": "constant", "metric": "loss", "patience": 99}


def language(data, adapter=None, prompts="history"):
    policy = LanguagePolicy.create("tiny", data.items, prompts, 4, seed=1, adapter=adapter)
    policy.start_stage("align")
    return policy


def sequence(data):
    return SequencePolicy.create(data.items, 8, hidden=16, inner=16, dropout=0.3, seed=1)


POLICIES = {
    "language": language,
    "adapter": partial(language, adapter=Adapter(rank=2)),
    "sequence": sequence,
}
every_policy = pytest.mark.parametrize("kind", POLICIES)
SAMPLERS = ("in_batch", "hard", "stochastic_topk", "self_play")
ALL = {"uniform": 2, **dict.fromkeys(SAMPLERS, 2)}


def trained(kind, data, folder, negatives=None, reference="frozen", validation=None, **options):
    """The policy after alignment; `pool` among the options is the pool's."""
    pool, together = options.pop("pool", {"size": 12}), options.pop("together", None)
    policy = POLICIES[kind](data)
    align(
        policy,
        data,
        mixture(negatives or ALL, data),
        chosen_objective(AlignConfig(objective="s_dpo")),
        1.0,
        REFERENCES[reference](policy),
        validation or (lambda: {"loss": 1.0}),
        TrainingOptions(**{**QUICK, "max_steps": 4, "batch_size": 4, **options}),
        folder,
        seed=5,
        trackers=(),
        together=together,
        pool=PoolConfig(**pool),
    )
    return policy


def logged(folder, name="loss"):
    lines = [json.loads(line) for line in (folder / "train.jsonl").open()]
    return [line[name] for line in lines if "kl" in line]


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


@every_policy
def test_workers_change_nothing(kind, small_data, tmp_path):
    options = {"learning_rate": 1e-2, "max_steps": 5, "batch_size": 2}
    for workers in (0, 1, 2):
        trained(kind, small_data, tmp_path / str(workers), workers=workers, **options)
    losses = [logged(tmp_path / str(workers)) for workers in (0, 1, 2)]
    assert losses[0] == losses[1] == losses[2]
    assert len(set(losses[0])) == 5


@pytest.mark.parametrize("sampler", SAMPLERS)
@every_policy
def test_every_sampler_trains_every_policy(kind, sampler, small_data, tmp_path):
    """The first loss of policy = reference is log(1 + m)."""
    options = {"batch_size": 16, "learning_rate": 1e-2, "together": 1}
    trained(kind, small_data, tmp_path, {sampler: 3}, **options)
    assert logged(tmp_path)[0] == pytest.approx(math.log(4), abs=1e-3)
    counts = logged(tmp_path, "negatives")
    assert counts == [3] * 4 or (sampler == "in_batch" and counts[0] == 3 and min(counts) >= 1)
    if sampler == "hard":
        assert logged(tmp_path, "negatives/rank") == [2] * 4  # the mean of 1, 2 and 3
    elif sampler != "in_batch":
        assert all(1 < rank <= 40 for rank in logged(tmp_path, "negatives/rank"))


@every_policy
def test_negatives_follow_the_policy_in_training(kind, small_data, tmp_path, monkeypatch):
    """The hardest are the best of the weights of that step, and others when these have changed."""
    draw, seen = LiveNegatives._draw, {}

    def watched(self, some, every, step):
        found = draw(self, some, every, step)
        scores = self._policy.catalogue_log_probs([one.context for one in some])
        for one, left, negatives in zip(some, scores, found[0], strict=True):
            left[np.append(one.item_ids, one.context.history)] = -torch.inf
            assert negatives.tolist() == left.topk(2).indices.tolist()
            seen.setdefault(one.context.context_id, set()).add(tuple(negatives.tolist()))
        return found

    monkeypatch.setattr(LiveNegatives, "_draw", watched)
    pool = {"size": small_data.n_items}
    options = {"epochs": 2, "max_steps": None, "batch_size": 16, "learning_rate": 1e-2}
    trained(kind, small_data, tmp_path, {"hard": 2}, pool=pool, **options)
    assert len(seen) > 1
    assert max(map(len, seen.values())) > 1


@every_policy
@pytest.mark.parametrize("reference", ["cached", "adapter_off", "none"])
def test_every_reference_takes_live_negatives(kind, reference, small_data, tmp_path):
    if reference == "adapter_off" and kind != "adapter":
        return
    trained(kind, small_data, tmp_path / "one", reference=reference)
    trained(kind, small_data, tmp_path / "frozen")
    same = logged(tmp_path / "one") == pytest.approx(logged(tmp_path / "frozen"), abs=1e-3)
    assert same == (reference != "none")


REFRESHED = {"kind": "uniform", "size": 12, "refresh": 5}


@pytest.mark.parametrize(("kind", "pool"), [
    ("language", {"size": 12}),
    ("language", REFRESHED),
    ("sequence", {}),
    ("sequence", REFRESHED),
])  # fmt: skip
def test_a_stopped_stage_resumes_to_the_same_draws(kind, pool, small_data, tmp_path):
    few = small_data.contexts("train")
    options = {
        "max_steps": 14, "batch_size": -(-len(few) // 7) if kind == "language" else 12,
        "evaluations": 30, "pool": pool, "together": 1, "learning_rate": 1e-2,
        "negatives": {"stochastic_topk": 3, "self_play": 2},
    }  # fmt: skip

    def run(folder, first, stop=math.inf):
        return trained(kind, small_data, folder, validation=ever_better(first, stop), **options)

    whole = run(tmp_path / "whole", 0)
    with pytest.raises(Stop):
        run(tmp_path / "cut", 0, stop=9)
    resumed = run(tmp_path / "cut", 9)
    assert torch.equal(weights(resumed), weights(whole))
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")


def test_kept_candidate_sets_belong_to_a_checkpoint(small_data, tmp_path):
    options = {"evaluations": 30, "pool": REFRESHED, "negatives": {"hard": 2}}
    trained("language", small_data, tmp_path, **options)
    for state in tmp_path.rglob("pools_0.pt"):
        state.unlink()
    with pytest.raises(CheckpointError, match=r"lacks pools_0\.pt"):
        trained("language", small_data, tmp_path, max_steps=6, **options)


def completed(policy, data, negatives, pool, epoch=0, step=0, pools=None, examples=range(4)):
    sets = PreferenceSets(data.contexts("train"), negatives, 5)
    undrawn = Undrawn([one for i in examples for one in sets[epoch, i]])
    pools = pools or ScoredPools(policy, data, PoolConfig(**pool))
    return LiveNegatives(negatives, policy, pools).completed(undrawn, step)[0]["asked"]


@pytest.mark.parametrize("pool", [
    {"kind": "uniform"}, {"kind": "popularity"}, {"kind": "beam"}, {"kind": "catalogue"},
])  # fmt: skip
@pytest.mark.parametrize("exclude_history", [True, False])
def test_pools_hold_nothing_excluded_and_hard_takes_their_best(pool, exclude_history, small_data):
    policy = language(small_data)
    policy.model.eval()
    negatives = mixture({"uniform": 2, "hard": 4}, small_data, exclude_history)
    asked = completed(policy, small_data, negatives, {**pool, "size": 16})
    scores = policy.catalogue_log_probs(asked.contexts).numpy()
    for context, ids, own in zip(asked.contexts, asked.item_ids, scores, strict=True):
        given = ids[ids >= 0].tolist()
        assert len(set(given)) == len(given) == len(context.positives) + 6
        hardest = given[-4:]
        barred = {*context.positives.tolist(), *given[-6:-4]}
        barred |= set(context.history.tolist()) if exclude_history else set()
        assert not barred & set(hardest)
        assert own[hardest].tolist() == sorted(own[hardest].tolist(), reverse=True)
        if pool["kind"] in ("catalogue", "beam"):
            left = [i for i in np.argsort(-own) if i not in barred]
            assert own[hardest] == pytest.approx(own[left[:4]], abs=1e-3)


def test_blocks_of_contexts_draw_what_a_batch_draws(small_data, monkeypatch):
    policy = sequence(small_data)
    negatives = mixture(ALL, small_data)
    examples = range(12)
    one = completed(policy, small_data, negatives, {}, examples=examples)
    monkeypatch.setattr("palate.training.scored_pools.MOST_SCORES", 3 * small_data.n_items)
    parts = completed(policy, small_data, negatives, {}, examples=examples)
    assert np.array_equal(one.item_ids, parts.item_ids)


def test_a_kept_candidate_set_is_scored_again_when_it_is_old(small_data):
    """Weights that change show in hard negatives only once the set is three steps old."""
    policy, negatives = language(small_data), mixture({"hard": 3}, small_data)
    pools = ScoredPools(policy, small_data, PoolConfig(size=20, refresh=3))
    draw = partial(completed, policy, small_data, negatives, {}, pools=pools)
    first = draw(epoch=0, step=0)
    with torch.no_grad():
        for part in policy.model.parameters():
            part.add_(torch.randn(part.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    kept, renewed = draw(epoch=1, step=2), draw(epoch=2, step=3)
    assert np.array_equal(first.item_ids, kept.item_ids)
    assert not np.array_equal(first.item_ids, renewed.item_ids)
    assert len(pools.state_dict()["contexts"]) == 4


@pytest.mark.parametrize(("kind", "pool", "sentence"), [
    ("sequence", {"refresh": 5}, "scores of a whole catalogue are not kept"),
    ("sequence", {"kind": "beam"}, "only a language policy has beams"),
])  # fmt: skip
def test_pools_that_make_no_sense_are_refused(kind, pool, sentence, small_data, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        trained(kind, small_data, tmp_path, pool=pool)


def test_prompts_that_show_the_drawn_candidates_are_refused(small_data):
    policy = language(small_data, prompts="history_and_candidates")
    with pytest.raises(ConfigError, match="prompts list candidates, so the policy cannot be asked"):
        ScoredPools(policy, small_data, PoolConfig())


def test_contexts_whose_history_is_the_catalogue_are_left_out(small_data):
    policy, n_items = sequence(small_data), small_data.n_items
    contexts = small_data.contexts("train")
    sets = PreferenceSets(contexts, mixture({"hard": 2}, small_data), 0, policy, 1)
    assert len(sets.with_negatives(n_items)) == len(contexts)
    last = contexts[int(np.argmax(contexts.history_lengths))]
    seen = len({*last.history.tolist(), *last.positives.tolist()})
    with pytest.warns(DataWarning, match=r"training contexts get no negative and are left out"):
        kept = sets.with_negatives(seen)  # as if there were no other items
    assert 0 < len(kept) < len(contexts)
    everything = np.arange(n_items)
    full = replace(last, history=everything[~np.isin(everything, last.positives)])
    one = PreferenceSet(full, full.positives, full.levels, (0, 0))
    pools = ScoredPools(policy, small_data, PoolConfig())
    live = LiveNegatives(mixture({"hard": 2}, small_data), policy, pools)
    with pytest.raises(DataError, match="got no negative"):
        live.completed(Undrawn([one]), 0)


@pytest.mark.parametrize("sampler", ["hard", "stochastic_topk", "self_play"])
def test_a_policy_that_diverged_is_said_to_have(sampler, small_data):
    policy = sequence(small_data)
    with torch.no_grad():
        next(policy.model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="scores are nan at step 7: training diverged"):
        completed(policy, small_data, mixture({sampler: 2}, small_data), {}, step=7)


def test_a_candidate_set_has_room_for_what_samplers_choose_among(small_data):
    def check(**align):
        check_data(parse_config({"align": align}), small_data)

    check(negatives={"hard": 5, "uniform": 9}, pool={"size": 5})
    with pytest.raises(ConfigError, match=r"size is 9, but the samplers choose among 10 items"):
        check(negatives={"hard": 5, "self_play": 5}, pool={"size": 9})
    with pytest.raises(ConfigError, match=r"size is 40, .* 50 items .* align\.pool\.size=100"):
        check(negatives={"stochastic_topk": 1}, pool={"size": 40})
