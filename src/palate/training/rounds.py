"""Alignment in rounds: each starts from the newest policy, with draws and a schedule of its own."""

from dataclasses import dataclass

from palate.config import AlignConfig
from palate.randomness import random_bits


@dataclass(frozen=True)
class Round:
    """One of the rounds.

    Attributes:
        number: 1 is the first.
        stage: its name in `train.jsonl` and among checkpoints; "align" where it is the only one.
        options: of the section, with this round's share of the steps.
        seed: names its order and its draws; the run's own in the first.
    """

    number: int
    stage: str
    options: AlignConfig
    seed: int


def rounds_of(options: AlignConfig, seed: int) -> list[Round]:
    """The rounds of an `align` section.

    `max_steps` is divided as evenly as it goes, the first rounds having one more; `epochs` are
    divided in equal parts, of which a round makes at least one step.
    """
    n, found = options.rounds, []
    for number in range(1, n + 1):
        share = {"epochs": options.epochs / n}
        if options.max_steps is not None:
            share["max_steps"] = options.max_steps // n + (number <= options.max_steps % n)
        own_seed = seed if number == 1 else int(random_bits(seed, "round", number)) >> 33
        stage = "align" if n == 1 else f"align_{number}"
        found.append(Round(number, stage, options.model_copy(update=share), own_seed))
    return found
