"""Functions that make policies of one's own, so that `load_policy` can make them again."""

import functools
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.errors import CheckpointError, ConfigError
from palate.policies.module_policy import ModulePolicy, Saved


def policy_factory(make: Callable[..., ModulePolicy]) -> Callable[..., ModulePolicy]:
    """Marks a function `(items, **arguments)` as one from which `load_policy` may make a policy.

    What it makes remembers its import path, a script's being the name of the script, and the
    arguments.

    Raises:
        ConfigError: when called, an argument is nothing that JSON can hold.
    """
    module, name = make.__module__, make.__qualname__
    if module == "__main__" and (script := getattr(sys.modules[module], "__file__", None)):
        module = Path(script).stem

    @functools.wraps(make)
    def made(items: pa.Table, **arguments: Any) -> ModulePolicy:
        try:
            kept = json.loads(json.dumps(arguments, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{name}: its arguments are saved as JSON, which cannot hold them ({error}). Give "
                "numbers, texts, lists or dictionaries."
            ) from error
        policy = make(items, **arguments)
        policy.made_by = {"factory": f"{module}:{name}", "arguments": kept}
        return policy

    vars(made)["makes_policies"] = True
    return made


def load_by_factory(folder: Path) -> ModulePolicy:
    """A policy from a folder that `ModulePolicy.save` wrote, made by its `policy_factory`.

    Raises:
        CheckpointError: no factory made it, or its factory cannot be imported, is none, or now
            makes another policy; or as `ModulePolicy.load`.
    """
    saved = Saved.read(folder)
    made_by = saved.settings["made_by"]
    by_hand = f"or give the module yourself: ModulePolicy.load('{folder}', module)"
    if made_by is None:
        raise CheckpointError(
            f"{folder} does not say how to make its module, as no policy_factory made it. Decorate "
            f"the function that makes the policy, {by_hand}."
        )
    path = made_by["factory"]
    module, _, name = path.partition(":")
    try:
        factory: Any = functools.reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: its module is made by {path}, which cannot be imported ({error}). Install "
            f"it or put its folder on PYTHONPATH, {by_hand}."
        ) from error
    # a folder from elsewhere could name any function of any package
    if not getattr(factory, "makes_policies", False):
        raise CheckpointError(
            f"{folder}: {path} is no policy_factory, so it is not called. Decorate it, {by_hand}."
        )
    policy = factory(saved.items, **made_by["arguments"])
    saved.restore(policy)
    return policy
