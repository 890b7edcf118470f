"""Alignment in rounds and on held-out positions, as stages of a run."""

import json
import shutil

import numpy as np
import pytest

from palate import pipeline
from palate.config import AlignConfig, parse_config
from palate.errors import ConfigError
from palate.pipeline import go_on, run
from palate.training.rounds import rounds_of

SMALL = {
    "trackers": [],
    "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
    "sft": {"max_steps": 6, "batch_size": 8, "evaluations": 2, "learning_rate": 3e-3},
    "align": {
        "max_steps": 5,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "log_every": 1,
        "warmup": 0.0,
        "evaluations": 10,
        "negatives": {"uniform": 1, "stochastic_topk": 2},
        "sampler_options": {"stochastic_topk": {"k": 10}},
        "rounds": 2,
    },
    "evaluation": {"validation_contexts": 20, "bootstrap": 100, "protocols": ["catalogue"]},
}
POLICIES = {
    "sequence": {
        "kind": "sequence",
        "sequence": {"hidden": 16, "inner": 16, "dropout": 0.1},
    },
    "language": {"max_history": 4},
    "adapter": {"max_history": 4, "adapter": {"rank": 2}},
    "adapter kept": {"max_history": 4, "adapter": {"rank": 2, "after_sft": "keep"}},
}


def config(kind="sequence", **align):
    return parse_config({**SMALL, "policy": POLICIES[kind], "align": {**SMALL["align"], **align}})


def quiet(_line):
    pass


def lines(folder, stage):
    entries = [json.loads(line) for line in (folder / "train.jsonl").open()]
    return [entry for entry in entries if entry["stage"] == stage and "kl" in entry]


def test_steps_are_divided():
    thirds = rounds_of(AlignConfig(rounds=3, max_steps=11), seed=4)
    assert [one.options.max_steps for one in thirds] == [4, 4, 3]
    assert [one.stage for one in thirds] == ["align_1", "align_2", "align_3"]
    assert len({one.seed for one in thirds}) == 3
    assert thirds[0].seed == 4
    assert all(0 <= one.seed < 2**32 for one in thirds)
    halves = rounds_of(AlignConfig(rounds=2, epochs=3), seed=4)
    assert [one.options.epochs for one in halves] == [1.5, 1.5]
    (one,) = rounds_of(AlignConfig(max_steps=11), seed=4)
    assert (one.stage, one.seed, one.options.max_steps) == ("align", 4, 11)


HELD_TO = [
    ("sequence", "frozen"),
    ("sequence", "cached"),
    ("language", "frozen"),
    ("adapter", "cached"),
    ("adapter kept", "adapter_off"),
]


@pytest.mark.parametrize(("kind", "reference"), HELD_TO)
def test_each_round_starts_from_the_newest_policy_and_is_held_to_it(kind, reference, tmp_path):
    folder = tmp_path / "out"
    run(config(kind, reference=reference, evaluations=1), folder, say=quiet, until="align")
    for stage, steps in (("align_1", 3), ("align_2", 2)):
        found = lines(folder, stage)
        assert [line["step"] for line in found] == list(range(1, steps + 1))
        assert found[0]["kl"] == pytest.approx(0, abs=1e-5)
        assert found[0]["loss"] == pytest.approx(np.log(4), abs=1e-3)  # three negatives
        assert found[-1]["kl"] != 0
    made = json.loads((folder / "aligned" / "training.json").read_text())
    continued = json.loads((folder / "sft_continued" / "training.json").read_text())
    assert made["steps"] == continued["steps"] == 5


def test_a_reference_that_is_not_refreshed_stays_the_first(tmp_path):
    for reference in ("frozen", "cached"):
        folder = tmp_path / reference
        given = config(refresh_reference=False, reference=reference)
        run(given, folder, say=quiet, until="align")
        assert lines(folder, "align_1")[0]["kl"] == pytest.approx(0, abs=1e-5)
        assert abs(lines(folder, "align_2")[0]["kl"]) > 1e-5
    both = [[one["loss"] for one in lines(tmp_path / r, "align_2")] for r in ("frozen", "cached")]
    assert both[0] == pytest.approx(both[1], abs=1e-3)


def test_imitation_between_rounds_counts_as_steps(tmp_path):
    folder = tmp_path / "out"
    run(config("adapter", sft_between=4), folder, say=quiet, until="align")
    steps = json.loads((folder / "sft_continued" / "training.json").read_text())["steps"]
    assert steps == 5 + 4
    entries = [json.loads(line) for line in (folder / "train.jsonl").open()]
    assert max(entry["step"] for entry in entries if entry["stage"] == "align_2_sft") == 4
    assert lines(folder, "align_2")[0]["kl"] == pytest.approx(0, abs=1e-5)


class Killed(Exception):
    """The process is gone."""


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_run_killed_in_any_round_resumes_to_the_same_weights(after, tmp_path, monkeypatch):
    """Validations: start, 1, 2, 3 of the first round; start, 1, 2 of the second."""
    given = config(sft_between=2, reference="cached")
    run(given, tmp_path / "whole", say=quiet, until="align")
    run(given, tmp_path / "cut", say=quiet, until="sft")
    validate, calls = pipeline.Evaluation.validate, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) > after:
            raise Killed
        return validate(*arguments)

    monkeypatch.setattr(pipeline.Evaluation, "validate", dies)
    with pytest.raises(Killed):
        go_on(tmp_path / "cut", "align", say=quiet)
    monkeypatch.undo()
    go_on(tmp_path / "cut", "align", say=quiet)
    for stage in ("aligned", "sft_continued"):
        weights = [tmp_path / name / stage / "model.safetensors" for name in ("whole", "cut")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert lines(tmp_path / "whole", "align_2") == lines(tmp_path / "cut", "align_2")


def test_other_options_forget_the_rounds_that_were_made(tmp_path):
    given = config()
    run(given, tmp_path / "one", say=quiet, until="align")
    shutil.rmtree(tmp_path / "one" / "aligned")
    shutil.rmtree(tmp_path / "one" / "sft_continued")
    go_on(tmp_path / "one", "align", ["align.beta=0.5"], say=quiet)
    run(config(beta=0.5), tmp_path / "other", say=quiet, until="align")
    same = [tmp_path / name / "aligned" / "model.safetensors" for name in ("one", "other")]
    assert same[0].read_bytes() == same[1].read_bytes()


def test_other_options_are_written_when_the_rounds_are_forgotten(tmp_path, monkeypatch):
    """Killed in between, a run has the options that what is left of it was made with."""
    folder = tmp_path / "out"
    run(config(), folder, say=quiet, until="sft")
    (folder / "checkpoints" / "align_1" / "end").mkdir(parents=True)

    def dies(_path):
        raise Killed

    monkeypatch.setattr(pipeline.shutil, "rmtree", dies)
    with pytest.raises(Killed):
        go_on(folder, "align", ["align.beta=0.5"], say=quiet)
    monkeypatch.undo()
    assert "beta: 0.5" not in (folder / "config.yaml").read_text()


def test_held_out_positions_are_alignments_alone(tmp_path):
    """Neither other SFT steps nor the same ones see them, so it cannot be changed later."""
    folders = [tmp_path / "all", tmp_path / "part"]
    for folder, holdout in zip(folders, (0.0, 0.4), strict=True):
        run(config(holdout=holdout, rounds=1), folder, say=quiet, until="align")
    for stage in ("sft", "aligned", "sft_continued"):
        both = [(folder / stage / "model.safetensors").read_bytes() for folder in folders]
        assert both[0] != both[1]
    with pytest.raises(ConfigError, match="sft was made with another value"):
        go_on(folders[0], "align", ["align.holdout=0.2"], tmp_path / "new", quiet)


@pytest.mark.parametrize(
    ("align", "sentence"),
    [
        ({"rounds": 1, "sft_between": 3}, "sft_between is 3, but there is one round"),
        ({"rounds": 9}, "max_steps is 5 for 9 rounds"),
        (
            {"refresh_reference": False, "reference": "adapter_off"},
            "adapter_off no longer has; set align.reference=frozen or cached",
        ),
    ],
)
def test_rounds_that_make_no_sense_are_refused(align, sentence):
    with pytest.raises(ConfigError, match=sentence.replace(".", r"\.")):
        config("adapter", **align)
