"""What is shared, what is left, and which folders are refused."""

import json

import pytest
import torch
import yaml

from palate.errors import ConfigError, PalateError
from palate.run_folder import write_config
from palate.sweep.outlook import described, spoken
from palate.sweep.plan import STAGES, plan_sweep, write_plan

SMALL = {
    "data": {"options": {"n_users": 60, "n_items": 40}},
    "policy": {"kind": "sequence"},
    "align": {"negatives": {"uniform": 2}},
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def finished(plan, *jobs):
    """Folders as jobs leave them that took ten seconds a stage."""
    for job in jobs:
        folder = plan.folder / job.name
        folder.mkdir(parents=True)
        write_config(job.config, folder)
        taken = {stage: {"seconds": 10.0, "threads": 1} for stage in STAGES[job.kind]}
        (folder / "seconds.json").write_text(json.dumps(taken))


@pytest.mark.parametrize(
    ("over", "preparations", "imitations"),
    [
        ({"align.objective": ["dpo", "s_dpo"], "align.beta": [0.5, 1]}, 1, 1),
        ({"align.negatives": [{"uniform": 1}, {"hard": 1}]}, 1, 1),
        ({"sft.workers": [0, 1], "align.beta": [0.5, 1]}, 1, 1),
        ({"sft.max_steps": [3, 4]}, 1, 2),
        ({"policy.kind": ["sequence", "language"]}, 1, 2),
        ({"align.holdout": [0, 0.5]}, 1, 2),
        ({"evaluation.exclude_history": [True, False]}, 1, 2),
        ({"evaluation.protocols": [["catalogue"], ["candidates"]]}, 1, 2),
        ({"data.k_core": [2, 3], "align.beta": [0.5, 1]}, 2, 2),
        ({"data.options.n_users": [60, 61]}, 2, 2),
    ],
)
def test_runs_share_the_stages_they_agree_on(over, preparations, imitations, config, tmp_path):
    plan = plan_sweep(config, over, 2, tmp_path / "out")
    kinds = [job.kind for job in plan.jobs]
    assert kinds.count("prepare") == 2 * preparations  # seeds share nothing
    assert kinds.count("sft") == 2 * imitations
    names = [job.name for job in plan.jobs]
    assert all(job.needs is None or job.needs in names[:i] for i, job in enumerate(plan.jobs))
    assert not (tmp_path / "out").exists()


def test_a_shared_stage_is_the_same_whichever_run_asks_for_it(config, tmp_path):
    plans = [
        plan_sweep(config, {"align.beta": values}, 1, tmp_path / "out")
        for values in ([0.5, 1], [2, 0.5])
    ]
    shared = [[job for job in plan.jobs if job.kind != "run"] for plan in plans]
    assert shared[0] == shared[1]
    assert shared[0][1].config.data.options == SMALL["data"]["options"]
    assert shared[0][1].config.align.negatives != SMALL["align"]["negatives"]


def test_a_stage_is_left_only_for_runs_that_need_it(config, tmp_path):
    plan = plan_sweep(config, {"align.beta": [0.5, 1]}, 2, tmp_path / "out")
    data, sft, *runs = plan.jobs[:4]
    finished(plan, *runs)
    assert [job.kind for job in plan.left()] == ["prepare", "sft", "run", "run"]
    assert not {data.name, sft.name} & {job.name for job in plan.left()}
    finished(plan, plan.jobs[4])
    assert [job.kind for job in plan.left()] == ["sft", "run", "run"]


def test_a_plan_says_what_is_done_and_estimates_by_what_was_timed(config, tmp_path, two_threads):
    plan = plan_sweep(config, {"align.beta": [0.5, 1]}, 2, tmp_path / "out")
    before = described(plan, jobs=2)
    assert "2 settings × 2 seeds (0, 1) = 4 runs; shared: 2 preparations, 2 SFTs" in before[0]
    assert before[-1].startswith(
        "left: 2 preparations, 2 SFTs, 4 runs; how long that takes can be said once"
    )
    finished(plan, *plan.jobs[:3])
    lines = described(plan, jobs=2)
    assert [line.split()[0] for line in lines[1:4]] == ["done"] * 3
    # one preparation, one SFT and three stages of three runs, 10 s each, by two processes
    assert lines[-1].endswith("3 runs; about 55 s with --jobs 2, as long as those that are done")
    assert "can be said once" in described(plan, jobs=1)[-1]  # nothing was timed with two threads
    finished(plan, *plan.jobs[3:])
    assert described(plan)[-1] == "all is done"


def test_durations_are_spoken_in_the_unit_that_suits_them():
    assert [spoken(s) for s in (4.2, 89, 600, 7200)] == ["4 s", "89 s", "10 min", "2.0 h"]


def test_values_may_be_added_and_keys_may_change_places(config, tmp_path):
    first = plan_sweep(
        config, {"align.beta": [0.5], "align.objective": ["dpo"]}, 1, tmp_path / "out"
    )
    write_plan(first)
    finished(first, *first.jobs)
    over = {"align.objective": ["dpo", "lipo"], "align.beta": [1, 0.5]}
    more = plan_sweep(config, over, 2, tmp_path / "out")
    assert len(more.runs) == 8
    assert first.runs[0] in more.runs
    assert first.runs[0] not in more.left()
    free = plan_sweep(config, over, 1, tmp_path / "out", ["trackers=[]"])
    assert [job.name for job in free.left()] == [job.name for job in more.left()][:-6]


@pytest.mark.parametrize(
    ("over", "changes", "sentence"),
    [
        ({"align.beta": [0.5]}, ["align.epochs=9"], r"another configuration \(align.epochs\)"),
        ({"align.beta": [0.5]}, ["seed=3"], r"another configuration \(seed\)"),
        ({"align.objective": ["dpo"]}, [], "over align.beta, not over align.objective"),
        ({}, [], "over align.beta, not over seeds alone"),
    ],
)
def test_another_sweep_is_not_continued(over, changes, sentence, config, tmp_path):
    write_plan(plan_sweep(config, {"align.beta": [0.5, 1]}, 1, tmp_path / "out"))
    with pytest.raises(ConfigError, match=sentence):
        plan_sweep(config, over, 1, tmp_path / "out", changes)


def test_a_run_that_was_changed_by_hand_is_refused(config, tmp_path):
    plan = plan_sweep(config, {"align.beta": [0.5]}, 1, tmp_path / "out")
    write_plan(plan)
    finished(plan, *plan.jobs)
    kept = plan.folder / plan.runs[0].name / "config.yaml"
    kept.write_text(kept.read_text().replace("exclude_history: true", "exclude_history: false"))
    with pytest.raises(ConfigError, match=r"beta-0.5-0 holds a run with another configuration"):
        plan_sweep(config, {"align.beta": [0.5]}, 1, tmp_path / "out")


def test_what_is_no_folder_of_a_sweep_is_left_alone(config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for folder, sentence in (("mine", "is left alone"), ("small.yaml", "is a file")):
        with pytest.raises(ConfigError, match=sentence):
            plan_sweep(config, {}, 1, tmp_path / folder)


def test_what_cannot_run_here_is_known_before_anything_is_written(config, tmp_path):
    over = {"policy.kind": ["sequence", "language"]}
    with pytest.raises(PalateError, match=r"kind-sequence: evaluation.protocols: only a language"):
        plan_sweep(config, over, 1, tmp_path, ["evaluation.protocols=[catalogue, generation]"])
    with pytest.raises(ConfigError, match="--seeds 0: expected at least 1"):
        plan_sweep(config, {}, 0, tmp_path / "out")
