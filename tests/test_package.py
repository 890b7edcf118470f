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
    for name in palate.__all__:
        assert getattr(palate, name) is not None
    assert set(palate.__all__) == set(dir(palate))
