"""A module of one's own as a policy: how it is called, its files, and alignment through it."""

import json
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, TrainingOptions
from palate.data.contexts import Context
from palate.errors import CheckpointError, ConfigError, DataError
from palate.negatives import mixture
from palate.objectives import OBJECTIVES, CandidateScores
from palate.policies import ModulePolicy, SequencePolicy, load_policy
from palate.policies.fingerprint import fingerprint
from palate.policies.reference import REFERENCES
from palate.training.align import align
from palate.training.preference_sets import PreferenceSets, collate_sets
from palate.training.sft import imitate
from policies.small_modules import MeanOfItems, mean_of_items

SAMPLERS = ("uniform", "popularity", "observed")


@pytest.fixture
def policy(small_data):
    return mean_of_items(small_data.items)


def context(*history, **fields):
    none = np.empty(0, np.int64)
    return Context(np.array(history), none, none, **fields)


class Echo(nn.Module):
    """Keeps what it was called with; its logits are fixed."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, history, lengths):
        self.called = history.tolist(), lengths.tolist()
        return self.logits.expand(len(history), -1)


def test_the_module_gets_its_own_ids_padded_as_it_wants(small_data):
    items = small_data.items.slice(0, 4)
    asked = [context(3, 1, 0), context(2)]
    for options, history in (
        ({}, [[4, 2, 1], [3, 0, 0]]),
        ({"padding": "left"}, [[4, 2, 1], [0, 0, 3]]),
        ({"ids": 0, "padding_id": 9}, [[3, 1, 0], [2, 9, 9]]),
        ({"ids": [7, 2, 5, 3]}, [[3, 2, 7], [5, 0, 0]]),
        ({"max_history": 2}, [[2, 1], [3, 0]]),
    ):
        module = Echo(torch.zeros(8))
        ModulePolicy(module, items, **options).catalogue_log_probs(asked)
        assert module.called == (history, [min(len(history[0]), 3), 1])


def test_columns_of_no_item_do_not_count(small_data):
    logits = torch.tensor([50.0, 1.0, 2.0, 0.5, 30.0, -1.0])
    policy = ModulePolicy(Echo(logits), small_data.items.slice(0, 3), ids=[5, 1, 3])
    expected = torch.tensor([-1.0, 1.0, 0.5]).log_softmax(dim=0)
    torch.testing.assert_close(policy.catalogue_log_probs([context(0)])[0], expected)
    scored = policy.score([context(0)], np.array([[2, -1, 0]])).log_probs[0]
    torch.testing.assert_close(scored, torch.tensor([expected[2], 0.0, expected[0]]))


def test_a_forward_of_its_own_is_used_and_survives_a_copy(small_data):
    module = nn.Linear(1, small_data.n_items + 1)

    def forward(module, history, lengths):
        return module(lengths[:, None].float())

    policy = ModulePolicy(module, small_data.items, forward=forward)
    frozen = REFERENCES["frozen"](policy)
    batch = policy.collate([context(1, 2, 3)], np.array([[4, 5]]))
    expected = module(torch.tensor([[3.0]]))[:, 1:].log_softmax(dim=1)[:, [4, 5]]
    torch.testing.assert_close(policy.log_probs(batch).log_probs, expected)
    torch.testing.assert_close(frozen.log_probs(batch), expected.detach())


def test_a_moment_reads_from_where_it_is_told(policy):
    items = np.arange(12)
    places = policy.first_reads(items, np.array([3, 8, 12]), together=4)
    assert places.tolist() == [0, 2, 6]
    told = [context(*items[:8], first_read=2), context(*items[:8])]
    alike = policy.catalogue_log_probs(told)
    torch.testing.assert_close(alike[0], alike[1])


@pytest.mark.parametrize(("objective", "sampler"), list(product(OBJECTIVES, SAMPLERS)))
def test_every_objective_and_sampler(objective, sampler, policy, small_data):
    drawn = PreferenceSets(
        small_data.contexts("train"), mixture({sampler: 3, "uniform": 1}, small_data), seed=0
    )
    batch = collate_sets(policy, [drawn[0, i] for i in range(4)])
    scores = CandidateScores(
        policy.log_probs(batch).log_probs,
        REFERENCES["frozen"](policy).log_probs(batch),
        levels=batch["levels"],
        lengths=torch.ones_like(batch["levels"]) if objective in ("simpo", "mppo") else None,
    )
    OBJECTIVES[objective](scores, beta=0.5).mean().backward()
    gradient = policy.model.module.vectors.weight.grad
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize(
    ("reference", "negatives"),
    [
        ("frozen", {"uniform": 3}),
        ("cached", {"uniform": 3}),
        ("none", {"uniform": 3}),
        ("frozen", {"stochastic_topk": 2, "uniform": 1}),
    ],
)
def test_imitated_and_aligned(reference, negatives, small_data, tmp_path):
    policy = ModulePolicy(MeanOfItems(small_data.n_items, dropout=0.2), small_data.items, 6)
    contexts = small_data.contexts("validation")

    def validation():
        ids = np.array([one.positives[:1] for one in contexts])
        return {"loss": -float(policy.score(contexts, ids).log_probs.mean())}

    options = TrainingOptions(max_steps=20, learning_rate=0.05, metric="loss", patience=99)
    before = validation()["loss"]
    imitate("sft", policy, small_data, validation, options, tmp_path, seed=0, trackers=())
    imitated = validation()["loss"]
    assert imitated < before
    chosen = AlignConfig(objective="s_dpo", reference=reference)
    align(
        policy,
        small_data,
        mixture(negatives, small_data),
        chosen_objective(chosen),
        1.0,
        REFERENCES[reference](policy),
        validation,
        options.model_copy(update={"max_steps": 5}),
        tmp_path,
        seed=0,
        trackers=(),
    )
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["stage"] == "align" and "loss" in row]
    assert losses
    assert all(np.isfinite(losses))
    assert validation()["loss"] != imitated


def test_weights_with_two_names_are_saved_and_loaded(small_data, tmp_path):
    class Tied(MeanOfItems):
        def __init__(self):
            super().__init__(small_data.n_items)
            self.output = nn.Linear(8, small_data.n_items + 1, bias=False)
            self.output.weight = self.vectors.weight

        def forward(self, history, lengths):
            return self.output(self.vectors(history).sum(dim=1) / lengths[:, None])

    policy = ModulePolicy(Tied(), small_data.items, 6)
    policy.save(tmp_path)
    module = Tied()
    loaded = ModulePolicy.load(tmp_path, module)
    assert module.output.weight is module.vectors.weight
    asked = [context(1, 2)]
    assert torch.equal(loaded.catalogue_log_probs(asked), policy.catalogue_log_probs(asked))


def test_a_policy_without_factory_is_loaded_with_its_module(small_data, tmp_path):
    ids = np.random.default_rng(0).permutation(small_data.n_items) + 1
    module = MeanOfItems(small_data.n_items)
    policy = ModulePolicy(module, small_data.items, 3, ids=ids, padding="left")
    policy.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"no policy_factory made it.*ModulePolicy\.load\("):
        load_policy(tmp_path)
    loaded = ModulePolicy.load(tmp_path, MeanOfItems(small_data.n_items))
    assert loaded.reads == {"max_history": 3, "padding_id": 0, "padding": "left"}
    asked = [context(1, 2, 5, 7), context(4)]
    assert torch.equal(loaded.catalogue_log_probs(asked), policy.catalogue_log_probs(asked))
    with pytest.raises(CheckpointError, match="holds weights of another module"):
        ModulePolicy.load(tmp_path, MeanOfItems(small_data.n_items, width=4))


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("no_such_package:make", "cannot be imported .*PYTHONPATH"),
        ("policies.small_modules:nothing", "cannot be imported"),
        ("policies.small_modules:not_marked", "is no policy_factory, so it is not called"),
        ("os:system", "is no policy_factory, so it is not called"),
    ],
)
def test_a_factory_that_cannot_be_is_refused(factory, said, policy, tmp_path):
    policy.save(tmp_path)
    settings = json.loads((tmp_path / "palate.json").read_text())
    assert settings["made_by"]["factory"] == "policies.small_modules:mean_of_items"
    settings["made_by"]["factory"] = factory
    (tmp_path / "palate.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=said):
        load_policy(tmp_path)


def test_a_factory_that_makes_something_else_now_is_refused(policy, tmp_path):
    policy.save(tmp_path)
    settings = json.loads((tmp_path / "palate.json").read_text())
    settings["made_by"]["arguments"] = {"max_history": 9}
    (tmp_path / "palate.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="but its module now comes with"):
        load_policy(tmp_path)


def test_a_factory_that_numbers_the_items_otherwise_now_is_refused(policy, tmp_path):
    policy.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"ids": weights["ids"].flip(0)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="other ids of the items"):
        load_policy(tmp_path)


def test_arguments_that_cannot_be_saved_are_refused_at_once(small_data):
    with pytest.raises(ConfigError, match="mean_of_items: its arguments are saved as JSON"):
        mean_of_items(small_data.items, width=np.int64(8))


def test_a_folder_of_another_policy_is_refused(small_data, tmp_path):
    SequencePolicy.create(small_data.items, 6, hidden=8, inner=8).save(tmp_path)
    with pytest.raises(CheckpointError, match="holds a sequence policy; expected a module"):
        ModulePolicy.load(tmp_path, MeanOfItems(small_data.n_items))


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet", "palate.json"])
def test_a_cut_checkpoint_is_refused(name, policy, tmp_path):
    policy.save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    with pytest.raises(CheckpointError, match="holds no whole policy"):
        load_policy(tmp_path)


@pytest.mark.parametrize("lost", ["ids", "reads"])
def test_a_checkpoint_that_lacks_a_part_is_refused(lost, policy, tmp_path):
    policy.save(tmp_path)
    weights, settings = tmp_path / "model.safetensors", tmp_path / "palate.json"
    save_file({n: one for n, one in load_file(weights).items() if n != lost}, weights)
    kept = {n: one for n, one in json.loads(settings.read_text()).items() if n != lost}
    settings.write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match=f"holds no whole policy \\('{lost}'\\)"):
        load_policy(tmp_path)


def test_a_module_that_gives_a_tuple_is_told_how_to_pick(small_data):
    class Pair(MeanOfItems):
        def forward(self, history, lengths):
            return super().forward(history, lengths), lengths

    policy = ModulePolicy(Pair(small_data.n_items), small_data.items)
    contexts = small_data.contexts("test")[:2]
    with pytest.raises(ConfigError, match=r"gave a tuple; expected a tensor of logits.*forward="):
        policy.catalogue_log_probs(contexts)
    picked = ModulePolicy(
        policy.model.module,
        small_data.items,
        forward=lambda module, *given: module(*given)[0],
    )
    assert picked.catalogue_log_probs(contexts).shape == (2, small_data.n_items)


def test_other_ids_or_padding_have_another_fingerprint(small_data):
    module = MeanOfItems(small_data.n_items)
    made = partial(ModulePolicy, module, small_data.items)
    shifted = np.roll(np.arange(small_data.n_items) + 1, 1)
    prints = [
        fingerprint(made(**options), "fp32")
        for options in ({}, {"ids": shifted}, {"padding": "left"}, {"max_history": 4})
    ]
    assert len({json.dumps(one) for one in prints}) == 4
    assert fingerprint(made(), "fp32") == prints[0]


def test_wrong_use_is_said_in_a_sentence(policy, small_data):
    items = small_data.items
    with pytest.raises(ConfigError, match="found 2 for"):
        ModulePolicy(nn.Identity(), items, ids=[1, 2])
    with pytest.raises(ConfigError, match="none below 0"):
        ModulePolicy(nn.Identity(), items, ids=-1)
    with pytest.raises(ConfigError, match="found 1 for"):
        ModulePolicy(nn.Identity(), items, ids=[1] * items.num_rows)
    with pytest.raises(ConfigError, match="padding='middle' is unknown"):
        ModulePolicy(nn.Identity(), items, padding="middle")
    with pytest.raises(ConfigError, match=r"of shape \(1, 5\) for 1 histories; expected \(1, 6 or"):
        ModulePolicy(Echo(torch.zeros(5)), items.slice(0, 5)).rank([context(1)])
    with pytest.raises(DataError, match="context 5 has an empty history"):
        policy.rank([context(1, 2), replace(context(), context_id=5)])
