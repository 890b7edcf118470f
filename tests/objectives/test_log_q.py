"""What a sampler's bias is corrected by: two forms, by hand and by what is left of the bias."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from objectives.handmade import one_context
from palate.config import parse_config
from palate.errors import ConfigError
from palate.negatives import Mixture, Observed, Popularity, Uniform
from palate.objectives import CandidateScores, DynamicPO, mult_dpo, pl_dpo, s_dpo
from palate.pipeline import run

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text("utf-8")
LOG_2 = math.log(2)


def test_with_one_negative_the_plain_form_alone_takes_something_out():
    """h_p = 1, h_i = 0, q = 1/8: log(1 + e^−1), or log(1 + 8 e^−1)."""
    centred, plain = (
        one_context([1.0, 0.0], [1, 0], log_q=[0.0, -3 * LOG_2], centre_log_q=centre)
        for centre in (True, False)
    )
    assert float(s_dpo(centred)) == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)
    assert float(s_dpo(plain)) == pytest.approx(math.log(1 + 8 * math.exp(-1)), abs=1e-6)


def test_the_plain_form_divides_each_weight_by_q():
    """Weights 2 and 3 of the positives, 4 and 1 of negatives drawn with 1/2 and 1/8: 8 and 8."""
    h = [math.log(w) for w in (2, 3, 4, 1)]
    options = {"log_q": [0.0, 0.0, -LOG_2, -3 * LOG_2], "centre_log_q": False}
    scores = one_context(h, [1, 1, 0, 0], **options)
    expected = (math.log(1 + 16 / 2) + math.log(1 + 16 / 3)) / 2
    assert float(s_dpo(scores)) == pytest.approx(expected, abs=1e-5)
    both = -math.log(2 * 2 * 3 / (2 + 3 + 16) ** 2)
    assert float(mult_dpo(scores)) == pytest.approx(both, abs=1e-5)
    # Plackett–Luce over both orders of the positives, before 16 of negatives
    exact = 2 / 21 * 3 / 19 + 3 / 21 * 2 / 18
    assert float(pl_dpo(scores)) == pytest.approx(-math.log(exact), abs=1e-5)
    # a constant is no longer without effect
    moved = one_context(h, [1, 1, 0, 0], **options | {"log_q": [0.0, 0.0, -2 * LOG_2, -4 * LOG_2]})
    expected = (math.log(1 + 32 / 2) + math.log(1 + 32 / 3)) / 2
    assert float(s_dpo(moved)) == pytest.approx(expected, abs=1e-5)


def test_dynamicpo_keeps_the_plain_form():
    """Negative 1 alone is scored above the positive: log(1 + 4 e^{β_1 (2 − 1)})."""
    options = {"log_q": [0.0, -2 * LOG_2, -LOG_2], "centre_log_q": False}
    scores = one_context([1.0, 2.0, -5.0], [1, 0, 0], **options)
    objective = DynamicPO("s_dpo")
    assert objective.boundary(scores).tolist() == [[False, True, False]]
    beta = float(objective.betas(scores)[0, 1])
    assert float(objective(scores)) == pytest.approx(math.log(1 + 4 * math.exp(beta)), abs=1e-5)


def left_of_bias(negatives, lead, centre):
    """How uneven the mean pull down on items is, against that without a correction (total
    variation from the uniform), for 200 items drawn by popularity^0.75."""
    generator = torch.Generator().manual_seed(0)
    q = torch.arange(1, 201).double() ** -0.75
    q /= q.sum()
    drawn = q.multinomial(60_000 * negatives, replacement=True, generator=generator)
    drawn = drawn.reshape(-1, negatives)
    policy = torch.zeros(len(drawn), negatives + 1, dtype=torch.double)
    policy[:, 0] = lead
    policy.requires_grad_()
    log_q = torch.cat([torch.zeros(len(drawn), 1).double(), q.log()[drawn]], dim=1)
    levels = torch.zeros(policy.shape, dtype=torch.long)
    levels[:, 0] = 1
    scores = CandidateScores(policy, levels=levels, log_q=log_q, centre_log_q=centre, check=False)
    (pull,) = torch.autograd.grad(s_dpo(scores).sum(), policy)
    of_item = torch.zeros(200).double().index_add(0, drawn.flatten(), pull[:, 1:].flatten())
    even = torch.full_like(q, 1 / 200)
    return float((of_item / of_item.sum() - even).abs().sum() / (q - even).abs().sum())


@pytest.mark.parametrize(
    ("row", "lead", "centre"),
    [
        ("taken out, centred", 0.0, True),
        ("taken out, plain", 0.0, False),
        ("taken out, plain, the positive 10 nats ahead", 10.0, False),
    ],
)
def test_what_is_taken_out_with_few_negatives_is_what_the_guide_says(row, lead, centre):
    cells = re.search(rf"^\| {row} \| (.*) \|$", PAGE, re.MULTILINE)
    assert cells is not None
    said = [float(cell.removesuffix(" %")) / 100 for cell in cells[1].split(" | ")]
    found = [1 - left_of_bias(negatives, lead, centre) for negatives in (1, 2, 5, 10, 20)]
    assert found == pytest.approx(said, abs=0.01)


def test_how_often_a_mixture_draws_an_item():
    """3 uniform of 4 items and 2 by counts 1, 1, 2, 4: item 3 is drawn 3/4 + 2·4/8 times."""
    popular = Popularity(np.array([1, 1, 2, 4]), alpha=1.0)
    both = Mixture({"uniform": (Uniform(4), 3), "popularity": (popular, 2)})
    assert np.exp(both.log_q()) == pytest.approx([1.0, 1.0, 1.25, 1.75], abs=1e-12)
    with pytest.raises(ConfigError, match="how often 'observed' draws an item is not known"):
        Mixture({"uniform": (Uniform(4), 3), "observed": (Observed([]), 2)}).log_q()


@pytest.mark.parametrize(
    ("negatives", "log_q", "loss"),
    [
        # q of an item is 4 of n: at h = 0 the plain loss is log(1 + 4 · n/4)
        ({"uniform": 4}, "plain", lambda n: math.log(1 + n)),
        ({"uniform": 4}, "centred", lambda n: math.log(5)),
        ({"uniform": 2, "popularity": 2}, "centred", lambda n: math.log(5)),
        ({"uniform": 4}, None, lambda n: math.log(5)),
    ],
)
def test_a_run_starts_at_the_loss_of_its_form(negatives, log_q, loss, tmp_path):
    config = parse_config(
        {
            "trackers": [],
            "data": {"options": {"n_users": 30, "n_items": 24, "visits": 12}, "k_core": 2},
            "policy": {"kind": "sequence", "sequence": {"hidden": 8, "inner": 8}},
            "sft": {"max_steps": 2, "batch_size": 4},
            "align": {"negatives": negatives, "log_q": log_q, "max_steps": 1, "log_every": 1},
            "evaluation": {"validation_contexts": 5},
        }
    )
    run(config, tmp_path / "run", say=lambda _: None, until="align")
    n_items = json.loads((tmp_path / "run/data.json").read_text())["counts"]["items"]
    lines = map(json.loads, (tmp_path / "run/train.jsonl").read_text().splitlines())
    first = next(line["loss"] for line in lines if line["stage"] == "align" and "loss" in line)
    assert first == pytest.approx(loss(n_items), abs=1e-4)


@pytest.mark.parametrize(
    ("align", "sentence"),
    [
        ({"objective": "dpo"}, r"align\.log_q: log_q corrects a softmax over negatives, which dpo"),
        ({"negatives": {"observed": 2}}, r"align\.log_q: how often 'observed' draws an item"),
        ({"negatives": {"hard": 2}}, r"align\.log_q: how often 'hard' draws an item"),
    ],
)
def test_what_cannot_be_corrected_is_refused_before_a_run(align, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_config({"align": {"log_q": "plain", **align}})
