"""Every objective with every policy, every sampler and every reference: one step of alignment."""

from functools import cache, partial
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from palate.config import PoolConfig
from palate.data.prepared import Prepared
from palate.errors import ConfigError
from palate.item_vectors import ItemVectors
from palate.negatives import SAMPLERS, mixture
from palate.objectives import OBJECTIVES, CandidateScores, DynamicPO
from palate.objectives.batch_beta import BatchBeta
from palate.policies import LanguagePolicy, SequencePolicy
from palate.policies.language.adapters import Adapter
from palate.policies.reference import REFERENCES
from palate.training.live_negatives import LiveNegatives, Undrawn
from palate.training.noise import silence
from palate.training.preference_sets import PreferenceSets, collate_sets
from palate.training.scored_pools import ScoredPools
from policies.small_modules import mean_of_items


def sequence(items, **shape):
    return SequencePolicy.create(items, 8, hidden=16, inner=16, seed=1, **shape)


def two_streams(items, **shape):
    vectors = np.random.default_rng(1).normal(size=(items.num_rows, 5)).astype(np.float32)
    present = np.arange(items.num_rows) != 3
    text = ItemVectors("text", np.where(present[:, None], vectors, 0), present, "digest")
    return sequence(items, streams=["id", "text"], vectors={"text": text}, **shape)


POLICIES = {
    "language": lambda items: LanguagePolicy.create("tiny", items, "history", 4, seed=1),
    "language with an adapter": lambda items: LanguagePolicy.create(
        "tiny", items, "history", 4, seed=1, adapter=Adapter(rank=2)
    ),
    "sequence": sequence,
    "id and text": lambda items: two_streams(items, interaction_experts=2),
    "time-aware": lambda items: two_streams(items, time_experts=2, absolute_time=True),
    "sparse experts": lambda items: sequence(items, experts=4),
    "module": mean_of_items,
}
ALIGNED_BY = {
    **{name: partial(objective, beta=0.5) for name, objective in OBJECTIVES.items()},
    **{f"dynamicpo {name}": DynamicPO(name, 0.5) for name in ("dmpo", "mult_dpo")},
    "batch beta": BatchBeta(beta=0.5),
}
HELD_TO = [
    (policy, reference)
    for policy, reference in product(POLICIES, REFERENCES)
    if reference != "adapter_off" or "adapter" in policy
]


@pytest.fixture(scope="module")
def listed_data(small_data: Prepared, tmp_path_factory) -> Prepared:
    """The small log, as if its source had shown each user twelve candidates."""
    folder = tmp_path_factory.mktemp("listed")
    for path in small_data.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    users = np.repeat(np.arange(small_data.users.num_rows), 12)
    items = np.tile(np.arange(12), small_data.users.num_rows)
    table = pa.table({"user_id": users, "item_id": items, "place": np.arange(len(users))})
    pq.write_table(table, folder / "lists.parquet")
    return Prepared(folder, window=1)


@pytest.fixture(scope="module")
def made(listed_data):
    """Each policy, ready for alignment, with each reference that fits it."""
    policies, references = {}, {}
    for name, create in POLICIES.items():
        policies[name] = create(listed_data.items)
        policies[name].start_stage("align")
        silence(policies[name].model)
    for name, reference in HELD_TO:
        references[name, reference] = REFERENCES[reference](policies[name])
    return policies, references


@pytest.fixture(scope="module")
def batch_of(listed_data, made):
    """(sampler, policy) → two users' training contexts with their negatives, drawn once."""

    @cache
    def drawn(sampler):
        negatives = mixture({sampler: 3}, listed_data, exclude_history=False)
        sets = PreferenceSets(listed_data.contexts("train"), negatives, seed=0)
        having = [
            i
            for i in range(len(sets))
            if negatives.live or all(_draws(negatives, one) for one in _contexts(sets, i))
        ]
        return negatives, [sets[0, i] for i in having[:6]]

    @cache
    def batch(sampler, name):
        (negatives, examples), policy = drawn(sampler), made[0][name]
        if not negatives.live:
            return collate_sets(policy, examples)
        options = PoolConfig(size=8)
        pools = ScoredPools(policy, listed_data, options) if negatives.asks_policy else None
        undrawn = Undrawn([one for example in examples for one in example])
        return LiveNegatives(negatives, policy, pools).completed(undrawn, step=0)[0]

    return batch


def _contexts(sets, example):
    return [sets._contexts[int(place)] for place in sets._examples[example]]


def _draws(negatives, context):
    return len(negatives.draw(context, (0, 0))) > 0


@pytest.mark.parametrize(("policy", "reference"), HELD_TO)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("objective", ALIGNED_BY)
def test_one_step(objective, sampler, policy, reference, made, batch_of):
    policies, references = made
    one, batch = policies[policy], batch_of(sampler, policy)
    assert batch["contexts"] > 2
    assert (batch["levels"] == 0).any(dim=1).all()
    scored = one.log_probs(batch)
    scores = CandidateScores(
        scored.log_probs,
        references[policy, reference].log_probs(batch),
        levels=batch["levels"],
        lengths=scored.lengths,
    )
    loss = ALIGNED_BY[objective](scores)
    assert loss.shape == (batch["contexts"],)
    assert loss.isfinite().all()
    trained = [weights for weights in one.model.parameters() if weights.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=1e-4)
    loss.mean().backward()
    gradients = [weights.grad for weights in trained if weights.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    optimiser.step()
    optimiser.zero_grad()


@pytest.mark.parametrize("policy", [name for name in POLICIES if "adapter" not in name])
def test_an_adapter_that_is_not_there_is_no_reference(policy, made):
    with pytest.raises(ConfigError, match=r"adapter_off needs a policy with an adapter"):
        REFERENCES["adapter_off"](made[0][policy])
