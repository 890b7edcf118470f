"""Verdicts on files whose faults are known."""

import importlib.util
import sys
from pathlib import Path

import pytest

from palate.audit import audit

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "planted_lists.py"
spec = importlib.util.spec_from_file_location("planted_lists", SCRIPT)
assert spec is not None
assert spec.loader is not None
planted_lists = sys.modules["planted_lists"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(planted_lists)
PLANTED, CLEAN = planted_lists.PLANTED, planted_lists.CLEAN
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
