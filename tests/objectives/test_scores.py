"""CandidateScores: what it makes of its input, and what it says when it cannot."""

import dataclasses
import math

import pytest
import torch

from palate.errors import ConfigError, DataError
from palate.objectives import CandidateScores
from palate.objectives.scores import masked_logsumexp, pair_beta, scalar_beta

POLICY = torch.tensor([[-1.0, -2.0, -4.0], [-3.0, -5.0, -9.0]])
REFERENCE = torch.tensor([[-1.5, -2.0, -3.0], [-2.0, -5.5, -7.0]])
LEVELS = torch.tensor([[1, 0, 0], [0, 2, -1]])


def test_masks_follow_the_levels():
    scores = CandidateScores(POLICY, levels=LEVELS)
    assert scores.positives.tolist() == [[True, False, False], [False, True, False]]
    assert scores.negatives.tolist() == [[False, True, True], [True, False, False]]
    assert scores.real.tolist() == [[True, True, True], [True, True, False]]


def test_log_ratios_are_policy_minus_reference_and_zero_at_padding():
    scores = CandidateScores(POLICY, REFERENCE, levels=LEVELS)
    # -1+1.5, -2+2, -4+3; -3+2, -5+5.5, padding
    assert scores.log_ratios.tolist() == [[0.5, 0.0, -1.0], [-1.0, 0.5, 0.0]]


def test_log_ratios_are_the_policy_without_a_reference():
    scores = CandidateScores(POLICY, levels=LEVELS)
    assert scores.log_ratios.tolist() == [[-1.0, -2.0, -4.0], [-3.0, -5.0, 0.0]]


def test_pairs_are_positive_by_negative():
    scores = CandidateScores(POLICY, REFERENCE, levels=LEVELS)
    mask, margins = scores.pair_mask(), scores.pair_margins()
    assert mask.nonzero().tolist() == [[0, 0, 1], [0, 0, 2], [1, 1, 0]]
    # 0.5 - 0, 0.5 + 1, 0.5 + 1
    assert margins[mask].tolist() == [0.5, 1.5, 1.5]
    assert margins.shape == (2, 3, 3)


def test_mean_over_positives_reads_positives_only():
    levels = torch.tensor([[1, 3, 0, -1], [0, 1, 0, 0]])
    scores = CandidateScores(torch.zeros(2, 4), levels=levels)
    values = torch.tensor([[2.0, 4.0, math.nan, math.inf], [7.0, 5.0, 7.0, 7.0]])
    assert scores.mean_over_positives(values).tolist() == [3.0, 5.0]  # (2 + 4) / 2; 5 / 1


def test_padding_may_hold_anything():
    levels = torch.tensor([[1, 0, -1, -1]])
    policy = torch.tensor([[-1.0, -2.0, math.nan, math.inf]], requires_grad=True)
    reference = torch.tensor([[-1.0, -1.0, -math.inf, math.nan]])
    scores = CandidateScores(policy, reference, levels=levels)
    assert scores.log_ratios.tolist() == [[0.0, -1.0, 0.0, 0.0]]
    (gradient,) = torch.autograd.grad(scores.log_ratios.square().sum(), policy)
    assert gradient.tolist() == [[0.0, -2.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_widened(given, kept):
    scores = CandidateScores(POLICY.to(given), REFERENCE.to(given), levels=LEVELS)
    assert scores.log_ratios.dtype == kept


def test_the_subtraction_is_not_done_in_half_precision():
    # bfloat16 has steps of 1 near 200 and of 2 ** -8 near 1: both scores are exact, h is not
    policy = torch.tensor([[200.0, 1.0]], dtype=torch.bfloat16)
    reference = torch.tensor([[1.0 + 2**-7, 1.0]], dtype=torch.bfloat16)
    scores = CandidateScores(policy, reference, levels=torch.tensor([[1, 0]]))
    assert scores.log_ratios.tolist() == [[199.0 - 2**-7, 0.0]]


def test_the_reference_gets_no_gradient():
    policy = POLICY.clone().requires_grad_()
    reference = REFERENCE.clone().requires_grad_()
    CandidateScores(policy, reference, levels=LEVELS).log_ratios.sum().backward()
    assert policy.grad is not None
    assert reference.grad is None


def test_replacing_a_field_keeps_the_rest():
    scores = CandidateScores(POLICY, REFERENCE, levels=LEVELS)
    fewer = dataclasses.replace(scores, levels=torch.tensor([[1, -1, 0], [0, 2, -1]]))
    assert fewer.log_ratios.tolist() == [[0.5, 0.0, -1.0], [-1.0, 0.5, 0.0]]
    assert fewer.check


def test_a_broken_score_is_nan_where_nothing_is_checked():
    policy = torch.tensor([[-1.0, -math.inf, 0.5]])
    scores = CandidateScores(policy, levels=torch.tensor([[1, 0, 0]]), check=False)
    assert scores.log_ratios.isnan().tolist() == [[False, True, False]]


LACKS = {
    "no negative": ([[1, 0], [2, 2]], r"Context 1 has no negative: its candidates have level 2"),
    "no positive": ([[0, 0], [1, 0]], r"Context 0 has no positive: .* Add a candidate of level 1"),
    "one left": ([[1, 0], [1, -1]], r"Context 1 has no negative"),
    "padding only": ([[1, 0], [-1, -1]], r"Context 1 has no candidates"),
}


@pytest.mark.parametrize(("levels", "message"), LACKS.values(), ids=LACKS)
def test_a_context_needs_two_levels(levels, message):
    with pytest.raises(DataError, match=message):
        CandidateScores(torch.zeros(2, 2), levels=torch.tensor(levels))
    CandidateScores(torch.zeros(2, 2), levels=torch.tensor(levels), check=False)


def test_two_levels_above_zero_are_two_levels():
    scores = CandidateScores(torch.zeros(1, 2), levels=torch.tensor([[1, 2]]))
    with pytest.raises(DataError, match=r"Context 0 has no negative: .* levels 1, 2"):
        scores.require_positive_and_negative()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["policy", "reference"])
def test_a_score_that_is_not_finite_is_named(which, value):
    tensors = {"policy": POLICY.clone(), "reference": REFERENCE.clone()}
    tensors[which][1, 0] = value
    with pytest.raises(DataError, match=f"{which} score of context 1, candidate 0 is {value}"):
        CandidateScores(**tensors, levels=LEVELS)


def test_an_unknown_level_is_named():
    with pytest.raises(DataError, match="Level -2 of context 0, candidate 1"):
        CandidateScores(POLICY, levels=torch.tensor([[1, -2, 0], [1, 0, 0]]))


UNFIT = {
    "not a tensor": ({"policy": [[1.0, 2.0]]}, "policy is a list"),
    "reference of another shape": ({"reference": torch.zeros(2, 2)}, r"reference has .*\(2, 2\)"),
    "levels of another shape": ({"levels": torch.zeros(2, 2).long()}, r"levels has shape \(2, 2\)"),
    "levels on another device": ({"levels": LEVELS.to("meta")}, "levels has .* on meta"),
    "policy of integers": ({"policy": LEVELS}, r"pass policy\.float\(\)"),
    "levels of truth values": ({"levels": LEVELS > 0}, r"pass levels\.long\(\)"),
    "levels in floating point": ({"levels": LEVELS.float()}, r"pass levels\.long\(\)"),
    "levels without a sign": ({"levels": LEVELS.to(torch.uint8)}, r"pass levels\.long\(\)"),
    "one dimension": ({"policy": POLICY[0], "levels": LEVELS[0]}, r"pass policy\[None\]"),
    "no contexts": ({"policy": POLICY[:0], "levels": LEVELS[:0]}, r"policy has shape \(0, 3\)"),
    "no candidates": ({"policy": POLICY[:, :0], "levels": LEVELS[:, :0]}, r"shape \(2, 0\)"),
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("change", "message"), UNFIT.values(), ids=UNFIT)
def test_tensors_that_do_not_fit_are_refused(change, message, check):
    with pytest.raises(DataError, match=message):
        CandidateScores(**({"policy": POLICY, "levels": LEVELS} | change), check=check)


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


def test_masked_logsumexp_by_hand():
    values = torch.tensor([[math.log(1), math.log(2), math.log(5)], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, False, True], [False, False, False]])
    result = masked_logsumexp(values, mask, dim=1)
    assert result.tolist() == pytest.approx([math.log(6), -math.inf])  # 1 + 5


def test_masked_logsumexp_has_a_clean_gradient():
    values = torch.tensor([[0.0, math.nan, 0.0], [math.nan, 1.0, math.inf]], requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    masked_logsumexp(values, mask, dim=1).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]
