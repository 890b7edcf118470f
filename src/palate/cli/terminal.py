"""What the commands share: the application, its flags, and how it speaks."""

import os
import sys
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

import palate
from palate.errors import DataWarning

Changes = Annotated[list[str] | None, Parameter(name="--set", negative="")]
Flag = Annotated[bool, Parameter(negative="")]
console = Console()
app = App(
    name="palate",
    help="Align a recommender with what people prefer, and prove user by user what got better.",
    help_epilogue="Start with: palate run examples/demo.yaml",
    version=palate.__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says so in a sentence
)


def say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def fail(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"palate: {message}", markup=False)
    sys.exit(2)


def quiet() -> None:
    """Keep the libraries' own bars and notices out of ours."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import warnings

    from huggingface_hub.utils.logging import set_verbosity_error
    from transformers.utils import logging

    set_verbosity_error()
    warnings.showwarning = show_warning

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Palate's own warnings as one line; the libraries' go to their developers, not to users."""
    if issubclass(category, DataWarning):
        Console(stderr=True, soft_wrap=True).print(f"warning: {message}", markup=False)
