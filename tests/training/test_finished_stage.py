"""A stage that was stopped after its last step, before its result was saved, is not trained on."""

import pytest
import torch

from conftest import ever_better
from palate.config import TrainingOptions
from palate.policies import SequencePolicy
from palate.training.sft import imitate


@pytest.mark.parametrize("early_stopping", [True, False])
def test_no_step_is_made_beyond_the_last(early_stopping, small_data, tmp_path):
    def trained(first):
        policy = SequencePolicy.create(small_data.items, 5, seed=1, hidden=8, inner=8)
        done = imitate(
            "sft",
            policy,
            small_data,
            ever_better(first),  # a further step would always be the best
            TrainingOptions(max_steps=2, evaluations=20, batch_size=8, metric="loss", warmup=0.0),
            tmp_path,
            seed=5,
            trackers=(),
            early_stopping=early_stopping,
        )
        return done, torch.cat([p.detach().flatten() for p in policy.model.parameters()])

    first, weights = trained(0)
    again, same = trained(9)
    assert first == again
    assert first.steps == 2
    assert torch.equal(weights, same)
