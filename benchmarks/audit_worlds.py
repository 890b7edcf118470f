"""Worlds for `audit_cases.py`: people with tastes, items with titles, and the rows of files.

Drawn with numpy's generator and code of its own, so that nothing here is what the audit itself
draws with.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator
WORDS = """
Silent Golden Broken Distant Little Hidden Burning Frozen Crimson Empty Gentle Restless Lonely
Savage Velvet Hollow Wandering Bitter Endless Electric Paper Iron Northern Midnight Painted

River Garden Mirror Engine Harbour Mountain Letter Orchard Signal Tower Winter Shadow Station
Compass Kingdom Lantern Ocean Parade Sparrow Thunder Valley Whisper Avenue Bridge Castle Desert Echo
Forest Glacier Horizon Island Journey Keeper Labyrinth Meadow Nocturne Oracle Prairie Quarry
"""
FIRST, SECOND = (part.split() for part in WORDS.split("\n\n"))


@dataclass(frozen=True)
class Moment:
    """Some items, the next one, and all that the person ever consumed."""

    history: list[int]
    answer: int
    whole: list[int]
    taste: np.ndarray


@dataclass(frozen=True)
class World:
    """A catalogue and the sizes of a file.

    Attributes:
        weights: (items,) how popular each item is.
        genres: (items,) one of eight.
        titles: title of each item.
        rows: about how many test rows there are.
        windows: windows of each person, each sliding on from the last.
        listed: candidates in a list.
    """

    weights: np.ndarray
    genres: np.ndarray
    titles: list[str]
    rows: int
    windows: int
    listed: int

    @property
    def items(self) -> int:
        """Size of the catalogue."""
        return len(self.titles)

    def moments(self, random: Random, rows: int | None = None) -> list[Moment]:
        """About as many windows as the file has rows, in the order of their persons."""
        found: list[Moment] = []
        while len(found) < (self.rows if rows is None else rows):
            taste = self.weights * random.gamma(0.5, size=8)[self.genres]
            length = self.windows + int(random.integers(3, 9))
            whole = draw(random, self.items, length, taste)
            for end in range(length - self.windows, length):
                found.append(Moment(whole[max(0, end - 10) : end], whole[end], whole, taste))
        return found


def world(
    random: Random,
    rows: tuple[int, int],
    listed: Sequence[int],
    items: tuple[int, int] = (150, 900),
) -> World:
    """A world of random sizes.

    Args:
        random: the generator.
        rows: least and most test rows.
        listed: lengths of lists to choose from.
        items: least and most items; more where lists are long.
    """
    size = int(random.choice(listed))
    n_items = max(int(random.integers(*items)), 2 * size + 20)
    weights = random.permutation(np.arange(1, n_items + 1) ** -random.uniform(0.2, 0.9))
    return World(
        weights=weights / weights.sum(),
        genres=random.integers(8, size=n_items),
        titles=names(random, n_items),
        rows=int(np.exp(random.uniform(*np.log(rows)))),
        windows=int(random.choice([1, 2, 4, 8])),
        listed=size,
    )


def names(random: Random, n: int) -> list[str]:
    """Distinct titles of two to four words, some with a number."""
    found: dict[str, None] = {}
    while len(found) < n:
        words = [str(random.choice(FIRST)), str(random.choice(SECOND))]
        if random.random() < 0.5:
            words += ["of the", str(random.choice(SECOND))]
        if random.random() < 0.2 or len(found) > 1500:
            words.append(str(random.integers(2, 60)))
        found[" ".join(words)] = None
    return list(found)


def draw(random: Random, n: int, size: int, weights: np.ndarray | None = None) -> list[int]:
    """Some of n without repetition, by their weights (the largest Gumbel-shifted logarithms)."""
    weights = np.ones(n) if weights is None else weights
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + random.gumbel(size=n)
    best = np.argsort(-keys)[:size]
    return best[np.isfinite(keys[best])].tolist()


def negatives(moment: Moment, here: World, random: Random, weights: np.ndarray | None = None):
    """Negatives outside all that the person consumed, uniform or by weights."""
    weights = np.ones(here.items) if weights is None else weights.copy()
    weights[moment.whole] = 0
    return draw(random, here.items, here.listed - 1, weights)


def retrieved(moment: Moment, here: World, random: Random, noise: float) -> list[int]:
    """The catalogue but the history, best first, by what a retriever thinks of the person."""
    thought = np.log(moment.taste + 1e-12) + random.normal(0, noise, here.items)
    thought[moment.history] = -np.inf
    return np.argsort(-thought)[: here.items - len(moment.history)].tolist()


def shuffled(items: Sequence[int], random: Random) -> list[int]:
    """A random order."""
    return random.permutation(np.array(items)).tolist()


Titler = Callable[[int, bool], str]
"""Item and whether it is the answer → how its title is written."""


def row(
    moment: Moment, listed: Sequence[int] | None, here: World, titled: Titler | None = None
) -> dict[str, Any]:
    """A row of a candidate file; without a list one to train on."""
    titled = titled or (lambda item, _: here.titles[item])
    found: dict[str, Any] = {
        "historyList": [here.titles[item] for item in moment.history],
        "trueSelection": titled(moment.answer, True),
    }
    if listed is not None:
        found["itemList"] = [titled(item, item == moment.answer) for item in listed]
    return found


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """JSON rows."""
    path.write_text("".join(f"{json.dumps(one)}\n" for one in rows), "utf-8")
