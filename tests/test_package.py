"""Importing the package is light, and its names are there when asked for."""

import subprocess
import sys

import palate


def test_import_loads_no_heavy_library():
    code = (
        "import sys, palate; "
        "print(sorted({'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve():
    assert palate.load_policy.__module__ == "palate.policies"
    assert palate.run.__module__ == "palate.pipeline"
    assert set(palate.OBJECTIVES) >= {"dpo", "s_dpo", "mult_dpo"}
    assert palate.RunConfig().align.objective in palate.OBJECTIVES
    assert palate.CandidateScores.__module__ == "palate.objectives.scores"
    assert (
        set(palate.__all__)
        == set(dir(palate))
        == {name for name in dir(palate) if palate_has(name)}
    )


def palate_has(name: str) -> bool:
    return hasattr(palate, name)


def test_an_unknown_name_is_an_attribute_error():
    assert not palate_has("load_polcy")
