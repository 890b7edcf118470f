"""One evaluated run, which tests of the report read and none changes."""

from pathlib import Path

import pytest

from report.shops import shop


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with every file a report reads."""
    return shop(tmp_path_factory.mktemp("shop"))
