"""From the configuration to the loss."""

import pytest
import torch

from palate.chosen_objective import chosen_objective, described
from palate.config import AlignConfig, parse_config
from palate.errors import ConfigError
from palate.objectives import CandidateScores, DynamicPO, lipo, mult_dpo, s_dpo
from palate.objectives.batch_beta import BatchBeta
from palate.objectives.weighted_sum import sft

SCORES = CandidateScores(
    torch.tensor([[-1.0, -2.0, -0.5, -3.0]], dtype=torch.float64),
    torch.tensor([[-1.5, -1.0, -1.0, -2.0]], dtype=torch.float64),
    levels=torch.tensor([[1, 1, 0, 0]]),
)


def loss_of(**align):
    return float(chosen_objective(AlignConfig(**align))(SCORES))


def test_a_name_is_that_objective_with_its_beta():
    assert loss_of(objective="s_dpo", beta=0.5) == float(s_dpo(SCORES, 0.5))


def test_sft_is_the_cross_entropy_of_the_positives():
    assert float(sft(SCORES)) == 1.5  # −(−1 − 2) / 2


def test_a_sum_weighs_its_terms():
    found = loss_of(objective={"mult_dpo": 2.0, "sft": 0.1}, beta=0.5)
    assert found == pytest.approx(2 * float(mult_dpo(SCORES, 0.5)) + 0.1 * 1.5, rel=1e-12)


def test_yaml_reads_small_weights_as_text():
    section = parse_config({"align": {"objective": {"dpo": 1, "sft": "1e-3"}}}).align
    assert section.objective == {"dpo": 1.0, "sft": 0.001}


def test_options_reach_the_objective():
    found = loss_of(objective="lipo", objective_options={"lipo": {"lambda_weights": True}})
    assert found == pytest.approx(float(lipo(SCORES, lambda_weights=True)), rel=1e-12)


def test_dynamicpo_wraps_every_term_but_imitation():
    found = loss_of(objective={"s_dpo": 1.0, "sft": 0.1}, dynamicpo={"margin": 1.0}, beta=2.0)
    dynamic = DynamicPO("s_dpo", beta=2.0, margin=1.0)
    assert found == pytest.approx(float(dynamic(SCORES)) + 0.15, rel=1e-12)
    assert found != pytest.approx(loss_of(objective={"s_dpo": 1.0, "sft": 0.1}, beta=2.0))


def test_batch_beta_has_a_state_to_carry():
    objective = chosen_objective(AlignConfig(objective="dpo", batch_beta={}, beta=0.1))
    assert isinstance(objective.terms["dpo"].objective, BatchBeta)
    assert objective.state_dict() == {"dpo": {"running_margin": None}}
    objective(SCORES)
    state = objective.state_dict()
    again = chosen_objective(AlignConfig(objective="dpo", batch_beta={}, beta=0.1))
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert chosen_objective(AlignConfig(objective="dpo")).state_dict() == {}


def test_it_is_described_in_words():
    assert described(AlignConfig(objective="s_dpo")) == "s_dpo"
    config = AlignConfig(objective={"mult_dpo": 1.0, "sft": 0.1}, dynamicpo={})
    assert described(config) == "1 mult_dpo + 0.1 sft, dynamicpo"


WRONG = {
    "unknown name": ({"objective": "sdpo"}, "align.objective: 'sdpo' is unknown. Did you mean"),
    "unknown term": ({"objective": {"sdpo": 1.0}}, "align.objective: 'sdpo' is unknown"),
    "imitation alone": ({"objective": {"sft": 1.0}}, "sft alone aligns nothing"),
    "weight below zero": ({"objective": {"dpo": -1}}, "the weight of dpo is -1; expected a number"),
    "no terms": ({"objective": {}}, "align.objective: expected a name such as s_dpo"),
    "a number": ({"objective": 3}, "align.objective: expected a name such as s_dpo"),
    "options of another": (
        {"objective": "dpo", "objective_options": {"lipo": {}}},
        "align.objective_options.lipo: 'lipo' is not in align.objective, which has dpo",
    ),
    "unknown option": (
        {"objective": "lipo", "objective_options": {"lipo": {"lambda": True}}},
        "align.objective_options.lipo.lambda: objective 'lipo' has no such option",
    ),
    "option out of range": (
        {"objective": "dpo", "objective_options": {"dpo": {"label_smoothing": 0.7}}},
        "align.objective_options.dpo: label_smoothing is 0.7. Expected",
    ),
    "options that are none": (
        {"objective": "dpo", "objective_options": {"dpo": 3}},
        "align.objective_options.dpo: ",
    ),
    "options of imitation": (
        {"objective": {"dpo": 1.0, "sft": 0.1}, "objective_options": {"sft": {"foo": 1}}},
        "align.objective_options.sft: sft has no options",
    ),
    "a weight that is no number": ({"objective": {"dpo": "much"}}, "the weight of dpo is 'much'"),
    "true for a section": ({"dynamicpo": True}, "align.dynamicpo: expected keys and values"),
    "two who choose beta": ({"dynamicpo": {}, "batch_beta": {}}, "both choose beta"),
    "scale": ({"dynamicpo": {"scale": 1.5}}, "align.dynamicpo.scale: input should be less than 1"),
    "unknown key": ({"dynamicpo": {"gamma": 1}}, "align.dynamicpo.gamma: there is no such key"),
}


@pytest.mark.parametrize(("align", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_before_anything_runs(align, message):
    with pytest.raises(ConfigError) as error:
        parse_config({"align": align})
    assert message in str(error.value)
