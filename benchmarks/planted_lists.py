"""Candidate files whose faults are known: 20 with one planted in each, 20 clean ones.

Drawn with numpy's generator and code of its own, so that nothing here is what the audit itself
draws with.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TRAINING_PERSONS = 300
Random = np.random.Generator
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Moment:
    """A history, its answer, and all that the person ever consumed."""

    history: list[int]
    answer: int
    whole: list[int]


@dataclass(frozen=True)
class World:
    """Sizes of a file and how popular its items are.

    Attributes:
        items: items in the catalogue.
        persons: persons in each of validation and test.
        windows: windows of each person, each sliding on from the last.
        listed: candidates in a list.
        skew: exponent of popularity by rank (Zipf); 0 is uniform.
    """

    items: int = 400
    persons: int = 120
    windows: int = 4
    listed: int = 20
    skew: float = 0.8

    def moments(self, random: Random, persons: int, windows: int) -> list[Moment]:
        """The windows of some persons."""
        weights = np.arange(1, self.items + 1) ** -self.skew
        found = []
        for _ in range(persons):
            length = int(random.integers(3, 8)) + windows
            chances = weights / weights.sum()
            whole = random.choice(self.items, length, replace=False, p=chances).tolist()
            for end in range(length - windows, length):
                found.append(Moment(whole[max(0, end - 10) : end], whole[end], whole))
        return found


Draw = Callable[[Moment, World, Random], list[int]]
"""The candidates of a moment in the order shown."""


def fair(moment: Moment, world: World, random: Random) -> list[int]:
    """Uniform negatives outside all that the person consumed, in a random order."""
    return shuffled([moment.answer, *uniform(moment, world, random)], random)


def uniform(moment: Moment, world: World, random: Random, pool: Sequence[int] = ()) -> list[int]:
    """Negatives from a pool, or from the catalogue."""
    left = np.setdiff1d(pool if len(pool) else np.arange(world.items), moment.whole)
    return random.choice(left, min(world.listed - 1, len(left)), replace=False).tolist()


def shuffled(items: list[int], random: Random) -> list[int]:
    """A random order."""
    return random.permutation(items).tolist()


def of_answer(moment: Moment) -> Random:
    """The fault of the published files: a generator seeded with the answer."""
    return np.random.default_rng(moment.answer)


def order_of_answer(moment: Moment, world: World, random: Random) -> list[int]:
    """Random negatives; the place of the answer depends on the answer."""
    place = int(of_answer(moment).integers(world.listed))
    negatives = uniform(moment, world, random)
    return [*negatives[:place], moment.answer, *negatives[place:]]


def list_of_answer(moment: Moment, world: World, random: Random) -> list[int]:
    """Negatives depend on the answer; a random order."""
    return shuffled([moment.answer, *uniform(moment, world, of_answer(moment))], random)


def both_of_answer(moment: Moment, world: World, random: Random) -> list[int]:
    """Negatives and order depend on the answer."""
    seeded = of_answer(moment)
    return shuffled([moment.answer, *uniform(moment, world, seeded)], seeded)


def at(place: int) -> Draw:
    """The answer at one place."""

    def draw(moment: Moment, world: World, random: Random) -> list[int]:
        negatives = uniform(moment, world, random)
        first = place % world.listed
        return [*negatives[:first], moment.answer, *negatives[first:]]

    return draw


def sometimes(share: float, fault: Draw) -> Draw:
    """A fault in a part of the lists."""

    def draw(moment: Moment, world: World, random: Random) -> list[int]:
        return (fault if random.random() < share else fair)(moment, world, random)

    return draw


def from_pool(first: float, last: float) -> Draw:
    """Negatives from a part of the catalogue, by popularity."""

    def draw(moment: Moment, world: World, random: Random) -> list[int]:
        pool = np.arange(int(first * world.items), int(last * world.items))
        return shuffled([moment.answer, *uniform(moment, world, random, pool)], random)

    return draw


def liked_too(moment: Moment, world: World, random: Random) -> list[int]:
    """One negative is something the person consumes at another time."""
    seen = {moment.answer, *moment.history}
    others = [item for item in moment.whole if item not in seen]
    negatives = uniform(moment, world, random)
    return shuffled([moment.answer, *others[:1], *negatives[len(others[:1]) :]], random)


def from_history(moment: Moment, world: World, random: Random) -> list[int]:
    """The history stands among the negatives."""
    negatives = uniform(moment, world, random)
    return shuffled([moment.answer, *moment.history, *negatives[len(moment.history) :]], random)


def answer_twice(moment: Moment, world: World, random: Random) -> list[int]:
    """The answer listed twice."""
    return shuffled([moment.answer, *fair(moment, world, random)], random)


def negative_twice(moment: Moment, world: World, random: Random) -> list[int]:
    """Some item listed twice, seldom the answer."""
    drawn = fair(moment, world, random)
    return shuffled([int(random.choice(drawn)), *drawn], random)


def by_popularity(moment: Moment, world: World, random: Random) -> list[int]:
    """Negatives drawn as often as people consume them."""
    weights = np.arange(1, world.items + 1) ** -world.skew
    weights[moment.whole] = 0
    chances = weights / weights.sum()
    drawn = random.choice(world.items, world.listed - 1, replace=False, p=chances)
    return shuffled([moment.answer, *drawn.tolist()], random)


def as_popular(moment: Moment, world: World, random: Random) -> list[int]:
    """Negatives as popular as the answer: from a band of ranks around a place near it."""
    width = 6 * world.listed
    middle = moment.answer + int(random.integers(-width // 2, width // 2))
    first = int(np.clip(middle - width, 0, world.items - 2 * width))
    pool = range(first, first + 2 * width)
    return shuffled([moment.answer, *uniform(moment, world, random, pool)], random)


def of_any_length(moment: Moment, world: World, random: Random) -> list[int]:
    """Lists of 5 to all candidates."""
    drawn = uniform(moment, world, random)[: int(random.integers(4, world.listed))]
    return shuffled([moment.answer, *drawn], random)


@dataclass(frozen=True)
class Case:
    """A file and the verdict that is right.

    Attributes:
        name: what is in it.
        draw: draws the test lists, and unless `clean_validation` those of validation.
        verdict: the right verdict.
        probes: the probes of which at least one must give it; empty for clean files.
        world: sizes.
        splits: splits with a file.
        repeat_answers: share of the windows whose answer stands in the history.
        shared: share of the test windows that are training windows too.
        clean_validation: whether validation lists are drawn fairly.
    """

    name: str
    draw: Draw = fair
    verdict: str = "ok"
    probes: tuple[str, ...] = ()
    world: World = field(default_factory=World)
    splits: tuple[str, ...] = ("train", "validation", "test")
    repeat_answers: float = 0.0
    shared: float = 0.0
    clean_validation: bool = False

    def write(self, folder: Path, seed: int) -> Path:
        """Write the files, one for each split; returns their folder."""
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        training: Rows = []
        for split in self.splits:
            if split == "train":
                moments = self.world.moments(random, TRAINING_PERSONS, windows=3)
                rows = [self._row(moment, fair, random) for moment in moments]
                training = [{key: row[key] for key in row if key != "itemList"} for row in rows]
                continue
            draw = fair if self.clean_validation and split == "validation" else self.draw
            moments = self.world.moments(random, self.world.persons, self.world.windows)
            rows = [self._row(moment, draw, random) for moment in moments]
            if split == "test" and self.shared:
                copied = rows[:: round(1 / self.shared)]
                training += [{key: row[key] for key in row if key != "itemList"} for row in copied]
            _write(rows, folder / f"{split}.jsonl")
        if training:
            _write(training, folder / "train.jsonl")
        titles = "".join(f"{title_of(item)}\n" for item in range(self.world.items))
        (folder / "items.tsv").write_text(f"title\n{titles}", "utf-8")
        return folder

    def _row(self, moment: Moment, draw: Draw, random: Random) -> dict[str, Any]:
        listed = draw(moment, self.world, random)
        history = list(moment.history)
        if random.random() < self.repeat_answers:
            history[int(random.integers(len(history)))] = moment.answer
        return {
            "historyList": [title_of(item) for item in history],
            "itemList": [title_of(item) for item in listed],
            "trueSelection": title_of(moment.answer),
        }


def title_of(item: int) -> str:
    """A title that stands in no other."""
    return f"Title {item:05d}"


def _write(rows: Rows, path: Path) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


ORDER = ("position of the answer",)
OVERLAP = ("list overlap",)
PLANTED = (
    Case("order by answer, 20 listed", order_of_answer, "leak", ORDER),
    Case("order by answer, 5 listed", order_of_answer, "leak", ORDER, World(listed=5)),
    Case("order by answer, 100 listed", order_of_answer, "leak", ORDER, World(listed=100)),
    Case(
        "order by answer, 4 of 10 lists",
        sometimes(0.4, order_of_answer),
        "leak",
        ORDER,
        World(items=200, persons=200),
    ),
    Case("order by answer, test alone", order_of_answer, "leak", ORDER, clean_validation=True),
    Case(
        "order by answer, one file",
        order_of_answer,
        "leak",
        ORDER,
        World(persons=60),
        splits=("test",),
    ),
    Case("answer first", at(0), "leak", ("position",)),
    Case("answer last, 40 lists", at(-1), "leak", ("position",), World(persons=20, windows=2)),
    Case("answer fourth in 3 of 10 lists", sometimes(0.3, at(3)), "leak", ("position",)),
    Case("list by answer, 20 listed", list_of_answer, "leak", OVERLAP),
    Case(
        "list by answer, 5 of 10 lists",
        sometimes(0.5, list_of_answer),
        "leak",
        OVERLAP,
        World(items=300, persons=200),
    ),
    Case(
        "order and list by answer",
        both_of_answer,
        "leak",
        OVERLAP + ORDER,
        World(items=2000, persons=200, windows=8),
    ),
    Case("negatives from the rare half", from_pool(0.5, 1.0), "leak", ("popularity",)),
    Case(
        "negatives from the popular tenth",
        from_pool(0.0, 0.1),
        "leak",
        ("popularity",),
        World(skew=0.4),
    ),
    Case(
        "negatives from 60 items that are no answers",
        from_pool(0.85, 1.0),
        "leak",
        ("seen as answer",),
        World(skew=0.3),
    ),
    Case("answer in the history", fair, "leak", ("answer in history",), repeat_answers=0.5),
    Case(
        "history among the negatives",
        from_history,
        "leak",
        ("answer in history",),
        World(listed=10, windows=8),
    ),
    Case("a tenth of test in training", fair, "leak", ("shared windows",), shared=0.1),
    Case("answer listed twice", sometimes(0.4, answer_twice), "leak", ("repeated titles",)),
    Case("liked items as negatives", liked_too, "caution", ("liked items as negatives",)),
)
CLEAN = (
    Case("20 listed"),
    Case("5 listed", world=World(listed=5)),
    Case("100 listed", world=World(listed=100)),
    Case("2 listed", world=World(listed=2)),
    Case("lists of any length", of_any_length),
    Case("one test file", splits=("test",)),
    Case("no training file", splits=("validation", "test")),
    Case("24 lists", world=World(persons=12, windows=2)),
    Case("10 lists of 10 persons", world=World(persons=10, windows=1)),
    Case("10 lists, one file", world=World(persons=10, windows=1), splits=("test",)),
    Case("3 persons, 30 windows each", world=World(persons=3, windows=30)),
    Case("one window a person", world=World(persons=500, windows=1)),
    Case("few very popular answers", world=World(skew=1.1, items=200)),
    Case("answers of equal popularity", world=World(skew=0.0)),
    Case(
        "long tail, new items in test",
        fair,
        "caution",
        ("unseen answers",),
        World(items=8000, skew=0.5),
    ),
    Case("60 items, 20 listed", world=World(items=60, windows=2)),
    Case("40 items, all the rest listed", world=World(items=40, windows=2, listed=28)),
    Case("negatives by popularity", by_popularity),
    Case("negatives as popular as the answer", as_popular, world=World(items=500)),
    Case("2,000 windows", world=World(persons=250, windows=8)),
)
