"""Golden cases, one test each.

Ask for `sdpo_case`, `dynamicpo_case`, `setwise_case` or `two_level_case`.
"""

import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


def pytest_generate_tests(metafunc):
    for name, cases in (
        ("sdpo_case", lambda: golden_cases("sdpo.json")),
        ("dynamicpo_case", lambda: golden_cases("dynamicpo.json")),
        ("setwise_case", lambda: golden_cases("setwise.json")),
        ("two_level_case", lambda: golden_cases("setwise.json", has_two_levels)),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases())


def has_two_levels(case):
    return len(set(case["group"])) == 2


def golden_cases(name, wanted=lambda case: True):
    path = GOLDEN / name
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no golden values at {path}"))]
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return [pytest.param(case, id=f"{case['kind']}-{case['id']}") for case in cases if wanted(case)]
