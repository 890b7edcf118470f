"""Policies: recommenders that give candidates log-probabilities."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from palate.errors import CheckpointError, ConfigError, did_you_mean
from palate.policies.finite import not_finite
from palate.policies.language.causal_lm import LanguagePolicy
from palate.policies.language.engine import Engine
from palate.policies.module_policy import ModulePolicy
from palate.policies.policy import PADDING_ITEM, Policy, Ranking, Scored
from palate.policies.policy_factory import load_by_factory, policy_factory
from palate.policies.sequence.policy import SequencePolicy
from palate.policies.settings import SETTINGS, read_settings

__all__ = [
    "PADDING_ITEM",
    "LanguagePolicy",
    "ModulePolicy",
    "Policy",
    "Ranking",
    "Scored",
    "SequencePolicy",
    "load_policy",
    "policy_factory",
]

KINDS: dict[str, Callable[[Path], Policy]] = {
    "language": LanguagePolicy.load,
    "sequence": SequencePolicy.load,
    "module": load_by_factory,
}


def load_policy(path: str | Path, engine: Engine | None = None) -> Policy:
    """A policy from a folder Palate wrote, or a bare language model from a folder or hub name.

    Args:
        path: `runs/demo/aligned`, say. A folder or hub name without `palate.json` gives a language
            policy without catalogue, which scores texts only.
        engine: of a language policy: "plain" scores each title alone, "tree" reads what they share
            once and refuses to fall back; None takes the tree where the model scores alike in it.

    Raises:
        CheckpointError: the folder is missing, incomplete or of an unknown kind, or its weights
            are not finite.
        ConfigError: the engine is unknown, is "tree" for a model that scores differently in it, or
            is asked of another policy.
    """
    policy = _loaded(path, engine)
    if (name := not_finite(policy.model)) is not None:
        raise CheckpointError(
            f"{path}: the weight {name} is not finite, so the policy can score nothing. Training "
            "diverged, or the file is damaged; train or copy it again."
        )
    return policy


def _loaded(path: str | Path, engine: Engine | None) -> Policy:
    if engine not in (None, *get_args(Engine)):
        raise ConfigError(f"engine='{engine}' is unknown.{did_you_mean(engine, get_args(Engine))}")
    if (Path(path) / SETTINGS).is_file():
        kind = read_settings(Path(path))["kind"]
        if kind not in KINDS:
            raise CheckpointError(f"{path}: kind '{kind}' is unknown; known: {list(KINDS)}.")
        if kind == "language":
            return LanguagePolicy.load(Path(path), engine)
        if engine is not None:
            raise ConfigError(f"engine='{engine}': {path} is a {kind} policy. Leave engine out.")
        return KINDS[kind](Path(path))
    files = ("config.json", "adapter_config.json")
    if Path(path).is_dir() and not any((Path(path) / name).is_file() for name in files):
        raise CheckpointError(
            f"{path} holds no policy (neither palate.json nor config.json). Give a stage's folder, "
            "such as runs/demo/aligned."
        )
    return LanguagePolicy.bare(str(path), engine)
