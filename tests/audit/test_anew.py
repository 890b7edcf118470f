"""60 planted faults and 60 sound files, made anew from seeds on which no limit was chosen."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::palate.errors.DataWarning")
def test_faults_are_found_and_sound_files_are_left_alone(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from audit_cases import CLEAN, FINAL, PLANTED, WORLDS, judged

    for kinds in (PLANTED, CLEAN):
        verdicts = [judged(kind, world, FINAL) for kind in kinds for world in range(WORLDS)]
        wrong = [(one.kind.name, one.world) for one in verdicts if not one.is_right]
        assert len(verdicts) == 60
        assert len(wrong) <= 2, wrong
