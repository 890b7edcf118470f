"""A stage that goes on elsewhere ends with trained weights; one that diverged ends with none."""

import shutil

import pytest
import torch
from torch import nn

from conftest import Stop, ever_better
from palate.config import TrainingOptions
from palate.errors import CheckpointError, DataError
from palate.policies import SequencePolicy, load_policy
from palate.policies.finite import not_finite
from palate.training.sft import imitate
from palate.training.trainer import last_whole_checkpoint

OPTIONS = TrainingOptions(
    max_steps=4, evaluations=20, batch_size=8, metric="loss", warmup=0.0, learning_rate=0.1
)


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def new_policy(data):
    return SequencePolicy.create(data.items, 5, seed=1, hidden=8, inner=8)


def imitated(data, folder, validation, policy=None, **changes):
    policy = policy or new_policy(data)
    options = OPTIONS.model_copy(update=changes)
    imitate("sft", policy, data, validation, options, folder, seed=5, trackers=())
    return weights(policy)


def rising():
    """Validations that get worse, so that the first checkpoint is the best."""
    losses = iter(range(1, 100))
    return lambda: {"loss": float(next(losses))}


def moved(folder, to, how):
    if how == "moved":
        folder.rename(to)
    else:
        shutil.copytree(folder, to)
        shutil.rmtree(folder / "checkpoints" / "sft")  # the other run goes its own way
    return to


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_finished_stage_elsewhere_has_its_best_weights(how, small_data, tmp_path):
    trained = imitated(small_data, tmp_path / "one", rising())
    there = moved(tmp_path / "one", tmp_path / "two", how)
    assert torch.equal(imitated(small_data, there, rising()), trained)
    assert not torch.equal(trained, weights(new_policy(small_data)))


def test_a_copy_never_takes_the_weights_of_the_run_it_was_copied_from(small_data, tmp_path):
    trained = imitated(small_data, tmp_path / "one", rising())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "one" / "checkpoints")
    imitated(small_data, tmp_path / "one", rising(), learning_rate=0.01)
    assert torch.equal(imitated(small_data, tmp_path / "two", rising()), trained)


def test_a_stage_goes_on_from_another_working_directory(small_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = imitated(small_data, tmp_path.relative_to(tmp_path) / "run", rising())
    (tmp_path / "run" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "run" / "below")
    assert torch.equal(imitated(small_data, tmp_path / "run", rising()), trained)


def test_a_stage_stopped_half_way_and_moved_ends_as_an_unbroken_one(small_data, tmp_path):
    unbroken = imitated(small_data, tmp_path / "unbroken", rising())
    losses = iter([1.0, 2.0])

    def validation():
        if (loss := next(losses, None)) is None:
            raise Stop
        return {"loss": loss}

    with pytest.raises(Stop):
        imitated(small_data, tmp_path / "one", validation)
    (tmp_path / "one").rename(tmp_path / "two")
    later = iter([3.0, 4.0])
    resumed = imitated(small_data, tmp_path / "two", lambda: {"loss": next(later)})
    assert torch.equal(resumed, unbroken)


def test_a_best_checkpoint_that_is_gone_is_no_untrained_policy(small_data, tmp_path):
    imitated(small_data, tmp_path, rising())
    (tmp_path / "checkpoints" / "sft" / "checkpoint-1" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint-1 is the best checkpoint .* not there"):
        imitated(small_data, tmp_path, rising())


def test_weights_that_are_no_numbers_fail_and_leave_the_last_good_checkpoint(small_data, tmp_path):
    """Of a third gradient that overflows no loss tells, as the third step is the last."""
    policy = new_policy(small_data)
    steps = iter([1.0, 1.0, torch.inf])
    next(iter(policy.model.parameters())).register_hook(lambda gradient: gradient * next(steps))
    with pytest.raises(DataError, match=r"is not finite after step 3: .*checkpoint-2\.$"):
        imitated(small_data, tmp_path, ever_better(), policy, max_steps=3)
    last = last_whole_checkpoint(tmp_path / "checkpoints" / "sft")
    assert last == str(tmp_path / "checkpoints" / "sft" / "checkpoint-2")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_that_is_no_number_chooses_no_checkpoint(loss, small_data, tmp_path):
    with pytest.raises(
        DataError, match=r"validation loss is (nan|inf) at step 1, so no checkpoint"
    ):
        imitated(small_data, tmp_path, lambda: {"loss": loss})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_policy_with_weights_that_are_no_numbers_is_not_loaded(value, small_data, tmp_path):
    policy = new_policy(small_data)
    policy.save(tmp_path)
    load_policy(tmp_path)
    with torch.no_grad():
        list(policy.model.parameters())[-1].view(-1)[-1] = value
    policy.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"the weight .* is not finite"):
        load_policy(tmp_path)


def test_an_infinite_mask_that_never_trains_is_meant():
    module = nn.Linear(2, 2).requires_grad_(False)
    module.bias.data[0] = -torch.inf
    assert not_finite(module) is None
    module.bias.data[0] = torch.nan
    assert not_finite(module) == "bias"
