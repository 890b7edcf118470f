"""CandidateScores: what it makes of its input, and what it says when it cannot."""

import dataclasses
import math

import pytest
import torch

from palate.errors import DataError
from palate.objectives import CandidateScores
from palate.objectives.scores import masked_logsumexp

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


def test_positives_have_places_in_the_order_of_their_columns():
    levels = torch.tensor([[0, 2, -1, 1, 0], [0, 0, 1, 0, 0]])
    scores = CandidateScores(torch.zeros(2, 5), levels=levels)
    assert scores.filled.tolist() == [[True, True], [True, False]]  # 2 is the most of any context
    assert scores.places[scores.filled].tolist() == [1, 3, 2]
    assert scores.of_positives(levels)[scores.filled].tolist() == [2, 1, 1]


def test_there_are_as_many_places_as_were_promised():
    def places(**more):
        return CandidateScores(POLICY, levels=LEVELS, **more).places.shape[1]

    assert places(max_positives=2) == 2
    assert places(max_positives=2, check=False) == 2
    assert places(max_positives=9) == 3  # no more than candidates


def test_pairs_are_positive_by_negative():
    scores = CandidateScores(POLICY, REFERENCE, levels=LEVELS)
    mask, margins = scores.pair_mask(), scores.pair_margins()
    assert mask.tolist() == [[[False, True, True]], [[True, False, False]]]
    # 0.5 - 0, 0.5 + 1, 0.5 + 1
    assert margins[mask].tolist() == [0.5, 1.5, 1.5]
    assert margins.shape == (2, 1, 3)


def test_pairs_of_a_positive_in_the_last_column_are_those_of_one_in_the_first():
    scores = CandidateScores(POLICY, REFERENCE, levels=LEVELS)
    turned = CandidateScores(POLICY.flip(1), REFERENCE.flip(1), levels=LEVELS.flip(1))
    assert turned.pair_mask().flip(2).tolist() == scores.pair_mask().tolist()
    found = turned.pair_margins().flip(2)[scores.pair_mask()]
    assert found.tolist() == scores.pair_margins()[scores.pair_mask()].tolist()


def test_mean_over_positives_reads_filled_places_only():
    levels = torch.tensor([[1, 3, 0, -1], [0, 1, 0, 0]])
    scores = CandidateScores(torch.zeros(2, 4), levels=levels)
    values = torch.tensor([[2.0, 4.0], [5.0, math.nan]])
    assert scores.mean_over_positives(values).tolist() == [3.0, 5.0]  # (2 + 4) / 2; 5 / 1


def test_mean_over_positives_by_weight():
    levels = torch.tensor([[1, 3, 0, -1], [0, 1, 0, 0]])
    weights = torch.tensor([[1.0, 3.0, 9.0, 9.0], [9.0, 0.5, 9.0, 9.0]])
    scores = CandidateScores(torch.zeros(2, 4), levels=levels, weights=weights)
    values = torch.tensor([[2.0, 4.0], [5.0, math.nan]])
    assert scores.mean_over_positives(values).tolist() == [3.5, 5.0]  # (1·2 + 3·4) / 4; 5


def test_mean_and_sum_over_negatives_by_weight():
    levels = torch.tensor([[1, 0, 0, -1]])
    weights = torch.tensor([[9.0, 1.0, 3.0, 9.0]])
    values = torch.tensor([[[math.nan, 2.0, 4.0, math.nan]]])
    scores = CandidateScores(torch.zeros(1, 4), levels=levels, weights=weights)
    assert scores.sum_over_negatives(values).tolist() == [[14.0]]  # 1·2 + 3·4
    assert scores.mean_over_negatives(values).tolist() == [[3.5]]  # 14 / (1 + 3)
    plain = CandidateScores(torch.zeros(1, 4), levels=levels)
    assert plain.mean_over_negatives(values).tolist() == [[3.0]]


def test_per_token_by_hand():
    lengths = torch.tensor([[2, 4, 8], [3, 5, 0]])  # padding may have no tokens
    scores = CandidateScores(POLICY, levels=LEVELS, lengths=lengths)
    # -1/2, -2/4, -4/8; -3/3, -5/5, padding
    assert scores.per_token.tolist() == [[-0.5, -0.5, -0.5], [-1.0, -1.0, 0.0]]


def test_log_masses_by_hand():
    # q = 0.2, 0.05 at the negatives: the mean of 1/q is (5 + 20) / 2 = 12.5,
    # so that their corrections are log(0.2 · 12.5) = log 2.5 and log(0.05 · 12.5) = log 0.625
    log_q = torch.tensor([[7.0, math.log(0.2), math.log(0.05), 7.0]])
    weights = torch.tensor([[9.0, 2.0, 1.0, 9.0]])
    levels = torch.tensor([[1, 0, 0, -1]])
    zeros = torch.zeros(1, 4)
    both = CandidateScores(zeros, levels=levels, log_q=log_q, weights=weights).log_masses
    assert both is not None
    expected = [0.0, math.log(2 / 2.5), math.log(1 / 0.625), 0.0]
    assert both[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert CandidateScores(zeros, levels=levels).log_masses is None


def test_a_weight_of_zero_is_padding():
    weights = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 0.0]])
    policy = POLICY.clone()
    policy[0, 1] = math.nan  # of no concern
    scores = CandidateScores(policy, levels=LEVELS, weights=weights)
    assert scores.levels.tolist() == [[1, -1, 0], [0, 2, -1]]
    assert scores.log_ratios.tolist() == [[-1.0, 0.0, -4.0], [-3.0, -5.0, 0.0]]


def test_one_positive_each_by_hand():
    levels = torch.tensor([[2, 0, 1, 0], [0, 0, 0, 1]])
    policy = torch.arange(8.0).reshape(2, 4)
    log_q = torch.tensor([[0.0, -1.0, 0.0, -2.0], [-1.0, -2.0, -3.0, 0.0]])
    scores = CandidateScores(policy, levels=levels, log_q=log_q)
    negatives = torch.tensor(
        [
            [[False, True, False, False], [False, False, False, True]],
            [[True, False, True, False], [False] * 4],
        ]
    )
    rows = scores.one_positive_each(negatives)
    # a row for each place, the second of the second context empty
    assert rows.levels.tolist() == [[1, 0, -1, -1], [-1, -1, 1, 0], [0, -1, 0, 1], [-1] * 4]
    assert rows.policy.tolist() == [policy[0].tolist()] * 2 + [policy[1].tolist()] * 2
    assert rows.places.shape == (4, 1)
    # the correction is that of all negatives, not of those that are left
    assert scores.log_masses is not None
    assert rows.log_masses is not None
    assert rows.log_masses.tolist() == scores.log_masses.repeat_interleave(2, dim=0).tolist()


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


WRONG = {
    "no tokens": ("lengths", 0.0, r"length of context 0, candidate 1 is 0\.0\. .* above 0"),
    "endless": ("lengths", math.inf, r"length of context 0, candidate 1 is inf"),
    "negative weight": ("weights", -0.5, r"weight of context 0, candidate 1 is -0\.5"),
    "weight nan": ("weights", math.nan, r"weight of context 0, candidate 1 is nan"),
    "endless weight": ("weights", math.inf, r"weight of context 0, candidate 1 is inf"),
    "drawn never": ("log_q", -math.inf, r"log_q of context 0, candidate 1 is -inf"),
    "log_q nan": ("log_q", math.nan, r"log_q of context 0, candidate 1 is nan"),
}


@pytest.mark.parametrize(("name", "value", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_length_weight_or_log_q_is_named(name, value, message):
    given = torch.ones(2, 3)
    given[0, 1] = value
    given[1, 2] = value  # padding: of no concern
    with pytest.raises(DataError, match=message):
        CandidateScores(POLICY, levels=LEVELS, **{name: given})
    given[0, 1] = 1.0
    CandidateScores(POLICY, levels=LEVELS, **{name: given})


def test_log_q_is_read_at_negatives_only():
    log_q = torch.tensor([[math.nan, -1.0, -1.0], [-1.0, math.inf, math.nan]])
    scores = CandidateScores(POLICY, levels=LEVELS, log_q=log_q)
    assert scores.log_masses is not None
    assert scores.log_masses.tolist() == [[0.0] * 3] * 2  # uniform


def test_weights_of_zero_may_leave_nothing():
    weights = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    with pytest.raises(DataError, match=r"Context 0 has no negative: its candidates have level 1"):
        CandidateScores(POLICY, levels=LEVELS, weights=weights)
    weights[0, 0] = 0.0
    with pytest.raises(DataError, match=r"Context 0 has no candidates: .* weights 0"):
        CandidateScores(POLICY, levels=LEVELS, weights=weights)


@pytest.mark.parametrize("most", [0, 1])
def test_more_positives_than_promised_are_an_error(most):
    levels = torch.tensor([[0, 0, 0, 1], [0, 1, 3, 0]])
    with pytest.raises(DataError, match=rf"Context \d has \d positives.* max_positives is {most}"):
        CandidateScores(torch.zeros(2, 4), levels=levels, max_positives=most)


UNFIT = {
    "not a tensor": ({"policy": [[1.0, 2.0]]}, "policy is a list"),
    "reference of another shape": ({"reference": torch.zeros(2, 2)}, r"reference has .*\(2, 2\)"),
    "levels of another shape": ({"levels": torch.zeros(2, 2).long()}, r"levels has shape \(2, 2\)"),
    "levels on another device": ({"levels": LEVELS.to("meta")}, "levels has .* on meta"),
    "policy of integers": ({"policy": LEVELS}, r"pass policy\.float\(\)"),
    "levels of truth values": ({"levels": LEVELS > 0}, r"pass levels\.long\(\)"),
    "levels in floating point": ({"levels": LEVELS.float()}, r"pass levels\.long\(\)"),
    "levels without a sign": ({"levels": LEVELS.to(torch.uint8)}, r"pass levels\.long\(\)"),
    "lengths of another shape": ({"lengths": torch.ones(2, 1)}, r"lengths has shape \(2, 1\)"),
    "weights of another shape": ({"weights": torch.ones(3)}, r"weights has shape \(3,\)"),
    "weights of integers": ({"weights": LEVELS}, r"pass weights\.float\(\)"),
    "log_q of another shape": ({"log_q": torch.ones(2, 4)}, r"log_q has shape \(2, 4\)"),
    "log_q of integers": ({"log_q": LEVELS}, r"pass log_q\.float\(\)"),
    "one dimension": ({"policy": POLICY[0], "levels": LEVELS[0]}, r"pass policy\[None\]"),
    "no contexts": ({"policy": POLICY[:0], "levels": LEVELS[:0]}, r"policy has shape \(0, 3\)"),
    "no candidates": ({"policy": POLICY[:, :0], "levels": LEVELS[:, :0]}, r"shape \(2, 0\)"),
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("change", "message"), UNFIT.values(), ids=UNFIT)
def test_tensors_that_do_not_fit_are_refused(change, message, check):
    with pytest.raises(DataError, match=message):
        CandidateScores(**({"policy": POLICY, "levels": LEVELS} | change), check=check)


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
