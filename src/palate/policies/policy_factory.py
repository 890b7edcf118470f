"""Functions that make policies of one's own, for a configuration to name and to load them again."""

import functools
import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from palate.data.contexts import Context
from palate.errors import CheckpointError, ConfigError, did_you_mean
from palate.options import read_options
from palate.policies.module_policy import ModulePolicy, Saved

Factory = Callable[..., ModulePolicy]
"""(items, **options) → a policy over these items."""


def policy_factory(make: Factory) -> Factory:
    """Marks a function `(items, **arguments)` as one from which Palate may make a policy.

    `policy.factory` of a configuration names it; `load_policy` calls it again. What it makes
    remembers its import path, a script's being the name of the script, and the arguments.

    Raises:
        ConfigError: when called, an argument is nothing that JSON can hold, or what is made is no
            ModulePolicy.
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
        policy: Any = make(items, **arguments)
        if not isinstance(policy, ModulePolicy):
            raise ConfigError(
                f"{name} gave a {type(policy).__name__}; expected a ModulePolicy. End it with "
                "return ModulePolicy(module, items)."
            )
        policy.made_by = {"factory": f"{module}:{name}", "arguments": kept}
        return policy

    vars(made)["makes_policies"] = True
    return made


def named_factory(path: str, options: Mapping[str, Any]) -> Callable[[pa.Table], ModulePolicy]:
    """What `policy.factory` and `policy.options` name: it makes a policy for a catalogue.

    Args:
        path: FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION. A file is imported under its own name,
            its folder being searched last, so that it can import its neighbours.
        options: what the function takes besides the items.

    Raises:
        ConfigError: there is no such file, module, function or option, or `policy_factory` did not
            mark the function.
    """
    where, _, name = path.rpartition(":")
    module = _imported(where)
    make = getattr(module, name, None)
    if make is None:
        marked = [key for key, value in vars(module).items() if _is_marked(value)]
        raise ConfigError(
            f"policy.factory: {where} has no function {name}.{did_you_mean(name, marked)}"
        )
    if not _is_marked(make):
        raise ConfigError(
            f"policy.factory: {name} of {where} is not marked as a factory. Put @policy_factory, "
            "from palate.policies, above it."
        )
    read, problems = read_options(
        make, options, f"factory {name}", lambda option: f"policy.options.{option}", first=1
    )
    if problems:
        raise ConfigError("\n".join(problems))
    return functools.partial(make, **read)


def find_code(path: str) -> None:
    """Import the file of a factory, if it is one and is there: `load_policy` can then make what the
    factory made."""
    where = path.rpartition(":")[0]
    if where.endswith(".py") and Path(where).is_file():
        _imported(where)


def new_module_policy(
    path: str, items: pa.Table, options: Mapping[str, Any], seed: int = 0
) -> ModulePolicy:
    """The policy that a named factory makes for a catalogue, tried on one history.

    Args:
        path: as for `named_factory`.
        items: the catalogue.
        options: as for `named_factory`.
        seed: names torch's draws while it is made.

    Raises:
        ConfigError: as `named_factory`; or what is made is no ModulePolicy, or is of another
            catalogue.
    """
    make = named_factory(path, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = make(items)
    if policy.n_items != items.num_rows:
        raise ConfigError(
            f"policy.factory: {path} made a policy of {policy.n_items:,} items for a catalogue of "
            f"{items.num_rows:,}. Give ModulePolicy the items that it was called with."
        )
    if not any(weights.requires_grad for weights in policy.model.parameters()):
        raise ConfigError(
            f"policy.factory: {path} made a module without a weight that has gradients, so there "
            "is nothing to train. Hold its weights in nn.Parameter or torch's layers."
        )
    none = np.empty(0, np.int64)
    policy.catalogue_log_probs([Context(np.array([policy.first_item]), none, none)])
    return policy


def load_by_factory(folder: Path) -> ModulePolicy:
    """A policy from a folder that `ModulePolicy.save` wrote, made by its `policy_factory`.

    Raises:
        CheckpointError: no factory made it, or its factory cannot be imported, is none, or now
            makes another policy; or as `ModulePolicy.load`.
    """
    saved = Saved.read(folder)
    made_by = saved.made_by
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
    if not _is_marked(factory):
        raise CheckpointError(
            f"{folder}: {path} is no policy_factory, so it is not called. Decorate it, {by_hand}."
        )
    policy = factory(saved.items, **made_by["arguments"])
    saved.restore(policy)
    return policy


def _is_marked(found: Any) -> bool:
    return bool(getattr(found, "makes_policies", False))


def _imported(where: str) -> ModuleType:
    """A module by its name, or a FILE.py by its own name, neighbours within its reach."""
    file, name = Path(where), where
    if where.endswith(".py"):
        if not file.is_file():
            raise ConfigError(
                f"policy.factory: {file} does not exist. Give the file with the function that "
                "makes the policy: FILE.py:FUNCTION."
            )
        folder, name = str(file.parent.resolve()), file.stem
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        module = import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"policy.factory: {where} cannot be imported ({error}). Install what it needs, or put "
            "its folder on PYTHONPATH."
        ) from error
    other = getattr(module, "__file__", None) or "which is built in"
    if name != where and not (Path(other).is_file() and file.samefile(other)):
        raise ConfigError(
            f"policy.factory: {file} has the name of another module, {other}. Rename it."
        )
    return module
