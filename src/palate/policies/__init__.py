"""Policies: recommenders that give candidates log-probabilities."""

import json
from collections.abc import Callable
from pathlib import Path

from palate.errors import CheckpointError
from palate.policies.language.causal_lm import LanguagePolicy
from palate.policies.policy import PADDING_ITEM, Policy, Ranking, Scored
from palate.policies.sequence.policy import SequencePolicy

__all__ = [
    "PADDING_ITEM",
    "LanguagePolicy",
    "Policy",
    "Ranking",
    "Scored",
    "SequencePolicy",
    "load_policy",
]

KINDS: dict[str, Callable[[Path], Policy]] = {
    "language": LanguagePolicy.load,
    "sequence": SequencePolicy.load,
}


def load_policy(path: str | Path) -> Policy:
    """A policy from a folder Palate wrote, or a bare language model from a folder or hub name.

    Args:
        path: `runs/demo/aligned`, say. A folder or hub name without `palate.json` gives a language
            policy without catalogue, which scores texts only.

    Raises:
        CheckpointError: the folder is missing, incomplete or of an unknown kind.
    """
    settings = Path(path) / "palate.json"
    if settings.is_file():
        kind = json.loads(settings.read_text("utf-8")).get("kind")
        if kind not in KINDS:
            raise CheckpointError(f"{settings}: kind '{kind}' is unknown; known: {list(KINDS)}.")
        return KINDS[kind](Path(path))
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise CheckpointError(
            f"{path} holds no policy (neither palate.json nor config.json). Give a stage's folder, "
            "such as runs/demo/aligned."
        )
    return LanguagePolicy.bare(str(path))
