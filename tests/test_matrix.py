"""Every objective with every policy, every sampler and every reference: one step of alignment."""

from functools import partial
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from palate.config import PoolConfig
from palate.data.contexts import Prepared
from palate.errors import ConfigError
from palate.negatives import SAMPLERS, mixture
from palate.objectives import OBJECTIVES, CandidateScores, DynamicPO
from palate.objectives.batch_beta import BatchBeta
from palate.policies import LanguagePolicy, SequencePolicy
from palate.policies.language.adapters import Adapter
from palate.policies.reference import REFERENCES
from palate.training.live_negatives import LiveNegatives, Undrawn
from palate.training.preference_sets import PreferenceSets, collate_sets
from palate.training.scored_pools import ScoredPools
from palate.training.trainer import disable_dropout

POLICIES = {
    "language": lambda items: LanguagePolicy.create("tiny", items, "history", 4, seed=1),
    "language with an adapter": lambda items: LanguagePolicy.create(
        "tiny", items, "history", 4, seed=1, adapter=Adapter(rank=2)
    ),
    "sequence": lambda items: SequencePolicy.create(items, 8, hidden=16, inner=16, seed=1),
}
ALIGNED_BY = {
    **{name: partial(objective, beta=0.5) for name, objective in OBJECTIVES.items()},
    **{f"dynamicpo {name}": DynamicPO(name, 0.5) for name in ("dmpo", "mult_dpo")},
    "batch beta": BatchBeta(beta=0.5),
}
MAKES_NO_SENSE = {("language", "adapter_off"), ("sequence", "adapter_off")}


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
        disable_dropout(policies[name].model)
        for reference in REFERENCES:
            if (name, reference) not in MAKES_NO_SENSE:
                references[name, reference] = REFERENCES[reference](policies[name])
    return policies, references


@pytest.fixture(scope="module")
def drawn(listed_data):
    """For each sampler its mixture, and two users' training contexts with their negatives, or
    without them where they are drawn live."""
    examples = {}
    for name in SAMPLERS:
        negatives = mixture({name: 3}, listed_data, exclude_history=False)
        sets = PreferenceSets(listed_data.contexts("train"), negatives, seed=0)
        having = [
            i
            for i in range(len(sets))
            if negatives.live or all(_draws(negatives, one) for one in _contexts(sets, i))
        ]
        examples[name] = negatives, [sets[0, i] for i in having[:6]]
    return examples


def _batch(policy, negatives, examples, data):
    if not negatives.live:
        return collate_sets(policy, examples)
    pools = ScoredPools(policy, data, PoolConfig(size=8)) if negatives.asks_policy else None
    undrawn = Undrawn([one for example in examples for one in example])
    return LiveNegatives(negatives, policy, pools).completed(undrawn, step=0)[0]


def _contexts(sets, example):
    return [sets._contexts[int(place)] for place in sets._examples[example]]


def _draws(negatives, context):
    return len(negatives.draw(context, (0, 0))) > 0


@pytest.mark.parametrize(("policy", "reference"), list(product(POLICIES, REFERENCES)))
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("objective", ALIGNED_BY)
def test_one_step(objective, sampler, policy, reference, made, drawn, listed_data):
    policies, references = made
    if (policy, reference) in MAKES_NO_SENSE:
        with pytest.raises(ConfigError, match=r"adapter_off needs a policy with an adapter"):
            REFERENCES[reference](policies[policy])
        return
    one = policies[policy]
    batch = _batch(one, *drawn[sampler], listed_data)
    assert batch["contexts"] > 2
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
