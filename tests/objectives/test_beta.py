"""The inverse temperature: what is refused, what is read, and in which shape it comes out."""

import math

import pytest
import torch

from palate.errors import ConfigError
from palate.objectives import CandidateScores
from palate.objectives.beta import pair_beta, scalar_beta, set_beta

POLICY = torch.tensor([[-1.0, -2.0, -4.0], [-3.0, -5.0, -9.0]])
LEVELS = torch.tensor([[1, 0, 0], [0, 2, -1]])


@pytest.mark.parametrize("take", [scalar_beta, pair_beta])
@pytest.mark.parametrize(
    "beta", [0.0, -1.0, math.nan, math.inf, "1", None, True, torch.tensor(0.0)], ids=repr
)
def test_beta_must_be_a_positive_number(take, beta):
    with pytest.raises(ConfigError, match=r"beta is .* Type beta=1\.0"):
        take(CandidateScores(POLICY, levels=LEVELS), beta)


def test_beta_per_negative_names_the_wrong_one_and_reads_no_other():
    scores = CandidateScores(POLICY, levels=LEVELS)
    beta = torch.tensor([[-1.0, 0.5, 2.0], [1.0, math.nan, 0.0]])  # wrong where nothing is read
    assert pair_beta(scores, beta).tolist() == [[[1.0, 0.5, 2.0]], [[1.0, 1.0, 1.0]]]
    beta[0, 2] = -0.5
    with pytest.raises(ConfigError, match=r"beta of context 0, candidate 2 is -0\.5"):
        pair_beta(scores, beta)


def test_beta_of_another_shape_is_refused():
    scores = CandidateScores(POLICY, levels=LEVELS)
    with pytest.raises(ConfigError, match=r"beta has shape \(3,\).*in shape \(2, 3\)"):
        pair_beta(scores, torch.ones(3))
    with pytest.raises(ConfigError, match=r"beta has shape \(2, 3\).*one value"):
        scalar_beta(scores, torch.ones(2, 3))

    with pytest.raises(ConfigError, match=r"beta has shape \(2, 3\).*in shape \(2, 3, 3\)"):
        set_beta(scores, torch.ones(2, 3))


def test_beta_per_pair_is_read_at_positives_and_real_candidates():
    scores = CandidateScores(POLICY, levels=LEVELS)
    beta = torch.full((2, 3, 3), -1.0)  # wrong where nothing is read
    beta[0, 0] = torch.tensor([1.0, 0.5, 0.0])
    beta[1, 1] = torch.tensor([3.0, 2.0, math.nan])
    betas, taken = set_beta(scores, beta)
    assert betas.tolist() == [[[1.0, 0.5, 0.0]], [[3.0, 2.0, 1.0]]]
    assert taken is not None
    assert taken.tolist() == [[[True, True, False]], [[True, True, True]]]  # 0 leaves a pair out


@pytest.mark.parametrize("wrong", [-0.5, math.nan, math.inf])
def test_a_wrong_beta_of_a_pair_is_named(wrong):
    scores = CandidateScores(POLICY, levels=LEVELS)
    beta = torch.ones(2, 3, 3)
    beta[1, 1, 0] = wrong
    with pytest.raises(ConfigError, match=rf"beta of context 1, pair \(1, 0\) is {wrong}"):
        set_beta(scores, beta)


def test_a_scalar_beta_is_for_all_pairs():
    scores = CandidateScores(POLICY, levels=LEVELS)
    assert scalar_beta(scores, 0.5) == 0.5
    assert pair_beta(scores, 0.5) == 0.5
    assert set_beta(scores, 0.5) == (0.5, None)


def test_a_tensor_is_not_read_where_nothing_is_checked():
    scores = CandidateScores(POLICY, levels=LEVELS, check=False)
    beta = torch.tensor(-1.0)
    assert scalar_beta(scores, beta) is beta
