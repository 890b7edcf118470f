"""The policy a run starts with, and what its prompts have no room for."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from palate.config import RunConfig
from palate.config.yaml_text import read_yaml
from palate.data.contexts import Ids
from palate.data.prepared import Prepared
from palate.errors import ConfigError, DataWarning
from palate.item_vectors import ItemVectors
from palate.policies import LanguagePolicy, Policy, SequencePolicy
from palate.policies.language.adapters import Adapter
from palate.policies.policy_factory import find_code, new_module_policy


def new_policy(
    config: RunConfig,
    items: pa.Table,
    vectors: Mapping[str, ItemVectors] | None = None,
    popularity: Ids | None = None,
) -> Policy:
    """The policy that a configuration describes, before any training.

    Args:
        config: everything the run depends on.
        items: the catalogue.
        vectors: stream → given vectors of the items, for a sequence policy that has such streams.
        popularity: (items,) how often each was consumed in training, for a sequence policy that
            samples its softmax by it.

    Raises:
        ConfigError: the configuration lacks something, or contradicts the saved policy it names;
            or there is no such factory, or none for this catalogue.
        CheckpointError: the saved policy is not whole, or cannot rank the items.
        DataError: vectors or popularity do not fit the catalogue.
    """
    chosen = config.policy
    if chosen.factory is not None:
        return new_module_policy(chosen.factory, items, chosen.options, config.seed)
    if chosen.kind == "language":
        adapter = chosen.adapter and Adapter(**chosen.adapter.model_dump())
        return LanguagePolicy.create(
            chosen.base or "tiny",
            items,
            chosen.prompts,
            chosen.history,
            config.seed,
            adapter,
            chosen.quantize,
            chosen.chat,
        )
    if chosen.base is not None:
        saved = SequencePolicy.load(Path(chosen.base))
        if chosen.max_history not in (None, saved.max_history):
            raise ConfigError(
                f"policy.max_history is {chosen.max_history}, but the saved policy in "
                f"{chosen.base} reads {saved.max_history} items. Leave max_history out."
            )
        return saved if saved.knows(items) else saved.on_catalogue(items, vectors)
    return SequencePolicy.create(
        items,
        chosen.history,
        vectors=vectors,
        popularity=popularity,
        seed=config.seed,
        **chosen.sequence.model_dump(),
    )


def find_code_of(folder: Path) -> None:
    """Import the file of one's own that a run folder's configuration names, if it is there."""
    config = folder / "config.yaml"
    if config.is_file():
        find_code(read_yaml(config.read_text("utf-8"))["policy"].get("factory") or "")


def warn_of_short_prompts(policy: LanguagePolicy, data: Prepared) -> None:
    """Say how many items prompts lose because the model reads no more tokens."""
    total, short, items = 0, 0, 0
    for split in ("train", "validation", "test"):
        contexts = data.contexts(split)
        found = policy.shortened(contexts)
        total, short, items = total + len(contexts), short + found[0], items + found[1]
    if short:
        warnings.warn(
            f"policy.max_history: the model reads {policy.prompter.max_tokens} tokens before a "
            f"title, so the prompts of {short:,} of {total:,} contexts leave out {items:,} of "
            "their oldest items or utterances. Lower max_history to say so yourself.",
            DataWarning,
            stacklevel=2,
        )
