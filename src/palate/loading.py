"""Hugging Face models of which every tensor came from their files.

transformers fills what a checkpoint lacks with random numbers, and what has another shape than its
configuration says too, and only logs it. Whoever loads a model here learns of it and decides.
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    ImportError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)
"""What loading raises: no such model, no network, files cut or of another model."""


class Loaded(NamedTuple):
    """A model, and where its files and its configuration do not agree.

    Attributes:
        model: what was loaded; tensors that are `missing` or `reshaped` hold random numbers.
        missing: names of tensors that the files lack; tied ones are not missing.
        reshaped: names of tensors that have another shape in the files, with both shapes.
        extra: names of tensors that the model has no place for.
    """

    model: Any
    missing: list[str]
    reshaped: list[str]
    extra: list[str]

    @property
    def made_up(self) -> list[str]:
        """Names of the tensors that hold random numbers."""
        return sorted([*self.missing, *(one.split(" ")[0] for one in self.reshaped)])

    @property
    def fault(self) -> str | None:
        """What the files lack, to follow the words "its files"; None where they are whole."""
        parts = []
        if self.missing:
            parts.append(f"lack {named(self.missing)}")
        if self.reshaped:
            parts.append(f"hold {named(self.reshaped)}")
        return " and ".join(parts) or None


def loaded(load: Callable[..., Any], place: Any, **options: Any) -> Loaded:
    """A model and what `from_pretrained` had to say of it.

    Args:
        load: a `from_pretrained`.
        place: its folder or hub name.
        options: of `load`.

    Raises:
        DAMAGE: as `load` does.
    """
    model, found = load(place, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    reshaped = [
        f"{name} of shape {tuple(in_file)}, which by the configuration is {tuple(expected)}"
        for name, in_file, expected in found["mismatched_keys"]
    ]
    return Loaded(
        model, sorted(found["missing_keys"]), sorted(reshaped), sorted(found["unexpected_keys"])
    )


def named(names: Sequence[str], shown: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def is_missing_folder(name: str) -> bool:
    """Whether a name can only be a folder's, as a hub name is owner/name, and there is none."""
    is_path = name.count("/") > 1 or name.startswith((".", "~", "/")) or Path(name).is_absolute()
    return (is_path or name.endswith("/")) and not Path(name).exists()


def first_line(error: BaseException) -> str:
    """What an error says first, to be put in parentheses."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if isinstance(error, StrictDataclassError) and len(lines) > 1:  # the cause stands below
        return f"{lines[0].rstrip(':')}: {lines[1].rstrip('.')}"
    return (lines[0] if lines else type(error).__name__).rstrip(".")
