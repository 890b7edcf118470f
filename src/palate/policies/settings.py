"""`palate.json`, which every saved policy has: it says of what kind the policy is."""

import json
from pathlib import Path
from typing import Any

from palate.errors import CheckpointError

SETTINGS = "palate.json"


def read_settings(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """What the file of a folder holds.

    Args:
        folder: of a saved policy.
        kind: what it has to be; None for any.

    Raises:
        CheckpointError: there is no such file, it is cut, or of a policy of another kind.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
        found = settings["kind"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{folder} holds no whole policy ({SETTINGS}: {str(error).splitlines()[0]}). Give a "
            "stage's folder, such as runs/demo/aligned; train or copy it again."
        ) from error
    if kind is not None and found != kind:
        raise CheckpointError(
            f"{folder} holds a {found} policy; expected a {kind} policy. Give the folder of one; "
            "palate.load_policy reads any."
        )
    return settings
