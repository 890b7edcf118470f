"""Verdicts on files whose faults are known."""

import pytest
from benchmarks.planted_lists import CLEAN, PLANTED

from palate.audit import audit

CASES = (*PLANTED, *CLEAN)
FEW = ("order by answer, one file", "answer last, 40 lists", "24 lists", "10 lists of 10 persons")


def check(case, folder, seed):
    found = audit(case.write(folder, seed), options={"items": "items.tsv"})
    by = {one.probe for one in found.findings if one.verdict == found.verdict}
    told = [(one.probe, one.verdict, one.score, one.null) for one in found.findings]
    assert found.verdict == case.verdict, told
    assert not case.probes or by & set(case.probes), told


@pytest.mark.parametrize("name", FEW)
def test_small_files(name, tmp_path):
    (case,) = [case for case in CASES if case.name == name]
    check(case, tmp_path, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_verdict_is_right(number, tmp_path):
    check(CASES[number], tmp_path, seed=number)


def test_twenty_and_twenty():
    assert len(PLANTED) == len(CLEAN) == 20
    assert len({case.name for case in CASES}) == 40
