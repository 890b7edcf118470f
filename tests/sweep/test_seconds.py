"""What stages took, and what that says of others."""

from palate.sweep.seconds import clocked, expected_seconds, seconds_of


def taken(**stages):
    return {name: {"seconds": seconds, "threads": 1} for name, seconds in stages.items()}


def test_what_is_ahead_takes_what_the_same_took():
    done = [taken(align=4.0, evaluate=1.0), taken(align=6.0, evaluate=None), taken(sft=30.0)]
    assert expected_seconds(["align", "align", "evaluate"], done, threads=1) == (11.0, set())
    assert expected_seconds(["align", "prepare"], done, threads=1) == (5.0, {"prepare"})
    assert expected_seconds(["align"], done, threads=2) == (0.0, {"align"})
    assert expected_seconds([], [], threads=1) == (0.0, set())


def test_a_stage_is_done_and_timed_once(tmp_path):
    done = []
    for _ in range(2):
        clocked("align", tmp_path, lambda: done.append("align"))
    assert done == ["align"]
    assert 0 <= seconds_of(tmp_path)["align"]["seconds"] < 5
    clocked("evaluate", tmp_path, lambda: done.append("evaluate"))
    assert list(seconds_of(tmp_path)) == ["align", "evaluate"]


def test_a_stage_that_went_on_has_no_time(tmp_path):
    (tmp_path / "checkpoints" / "align_2").mkdir(parents=True)
    clocked("align", tmp_path, lambda: None)
    assert seconds_of(tmp_path)["align"]["seconds"] is None
