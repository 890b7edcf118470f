"""Kinds of leaks and of sound files, made anew from a seed: 15 kinds each, in four worlds each.

The audit's limits were chosen on the seeds from `TUNING` on; `FINAL` was looked at afterwards, and
is what the results and the tests report. A change of a limit after a look at `FINAL` needs another
seed there.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from audit_worlds import (
    Moment,
    Random,
    Titler,
    World,
    draw,
    negatives,
    retrieved,
    row,
    shuffled,
    world,
    write,
)

from palate.audit import Audit, audit
from palate.audit.findings import VERDICTS, worst

TUNING = 1_000
"""First of the seeds on which the limits were chosen."""
FINAL = 52_000
"""First of the seeds that are reported; no limit was chosen on them."""
WORLDS = 4
"""Worlds of each kind."""
SIZES = (2, 3, 5, 10, 20, 50, 100)
Lister = Callable[[Moment, World, Random], list[int]]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: what is in it.
        make: writes the files into a folder.
        expected: the least that must be said: "leak"; "caution" where a fault of the kind may be
            no leak, or may be taste as well; or "ok" for a sound file.
        probes: those of which one must say it; in a sound file those that may caution.
        source: the source that reads the files; None: told from them.
    """

    name: str
    make: Callable[[Path, Random], None]
    expected: str
    probes: tuple[str, ...]
    source: str | None = None


def files(
    folder: Path,
    random: Random,
    here: World,
    lister: Lister,
    titled: Titler | None = None,
    splits: Sequence[str] | None = None,
    moments: Callable[[World, Random], list[Moment]] = lambda here, random: here.moments(random),
) -> list[dict[str, Any]]:
    """Files of some splits (test alone, with validation, or with training); the test rows."""
    if splits is None:
        choices = (("test",), ("validation", "test"), ("train", "validation", "test"))
        splits = choices[int(random.integers(3))]
    rows: list[dict[str, Any]] = []
    for split in splits:
        listed = split != "train"
        rows = [
            row(moment, lister(moment, here, random) if listed else None, here, titled)
            for moment in moments(here, random)
        ]
        write(rows, folder / f"{split}.jsonl")
    return rows


def fair(moment: Moment, here: World, random: Random) -> list[int]:
    """Uniform negatives in a random order."""
    return shuffled([moment.answer, *negatives(moment, here, random)], random)


def partly(share: float, fault: Lister) -> Lister:
    """A fault in a share of the lists."""

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        return (fault if random.random() < share else fair)(moment, here, random)

    return lister


def placed(place: Callable[[Moment, int], int]) -> Lister:
    """The answer at a place that is a function of the moment."""

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        others = negatives(moment, here, random)
        first = place(moment, len(others) + 1)
        return [*others[:first], moment.answer, *others[first:]]

    return lister


def fixed_place(folder: Path, random: Random) -> None:
    here = world(random, (60, 600), SIZES)
    place, share = int(random.integers(100)), random.uniform(0.4, 1)
    files(folder, random, here, partly(share, placed(lambda _, size: place % size)))


def place_by_answer(folder: Path, random: Random) -> None:
    here = world(random, (300, 600), SIZES, (80, 160))
    salt = int(random.integers(1 << 30))

    def place(moment: Moment, size: int) -> int:
        return int(np.random.default_rng([salt, moment.answer]).integers(size))

    files(folder, random, here, partly(random.uniform(0.7, 1), placed(place)))


def list_by_answer(folder: Path, random: Random) -> None:
    here = world(random, (300, 600), (5, 10, 20, 50, 100), (80, 200))
    salt, ordered = int(random.integers(1 << 30)), random.random() < 0.5

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        own = np.random.default_rng([salt, moment.answer])
        listed = [moment.answer, *negatives(moment, here, own)]
        return shuffled(listed, own if ordered else random)

    files(folder, random, here, lister)


def from_a_part(folder: Path, random: Random) -> None:
    """Negatives from the rare, or the popular, part of the catalogue."""
    here = world(random, (200, 600), SIZES, (250, 700))
    by_weight = np.argsort(here.weights)
    part = max(2 * here.listed + 20, int(random.uniform(0.15, 0.4) * here.items))
    kept = by_weight[:part] if random.random() < 0.7 else by_weight[-part:]
    weights = np.zeros(here.items)
    weights[kept] = 1

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        return shuffled([moment.answer, *negatives(moment, here, random, weights)], random)

    files(folder, random, here, lister)


def never_answers(folder: Path, random: Random) -> None:
    """Negatives from items that nobody consumes."""
    here = world(random, (200, 600), SIZES, (250, 700))
    dead = draw(random, here.items, 2 * here.listed + 20)
    here.weights[dead] = 1e-9
    weights = np.zeros(here.items)
    weights[dead] = 1

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        return shuffled([moment.answer, *negatives(moment, here, random, weights)], random)

    files(folder, random, here, lister)


def answer_in_history(folder: Path, random: Random) -> None:
    here = world(random, (80, 600), SIZES)
    share = random.uniform(0.4, 0.9)

    def moments(here: World, random: Random) -> list[Moment]:
        found = here.moments(random)
        for moment in found:
            if random.random() < share:
                moment.history[int(random.integers(len(moment.history)))] = moment.answer
        return found

    files(folder, random, here, fair, moments=moments)


def history_listed(folder: Path, random: Random) -> None:
    """Items of the history among the negatives: a few, as retrievers return them."""
    here = world(random, (80, 600), (5, 10, 20, 50, 100))
    share = random.uniform(0.3, 1)

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        others = negatives(moment, here, random)
        if random.random() < share:
            others[0] = int(random.choice(moment.history))
        return shuffled([moment.answer, *others], random)

    files(folder, random, here, lister)


def windows_in_training(folder: Path, random: Random) -> None:
    here = world(random, (200, 600), SIZES)
    test = files(folder, random, here, fair, splits=("validation", "test"))
    training = [row(moment, None, here) for moment in here.moments(random)]
    copied = [one for one in test if random.random() < random.uniform(0.15, 0.6)]
    training += [{key: one[key] for key in one if key != "itemList"} for one in copied]
    write(training, folder / "train.jsonl")


def answer_twice(folder: Path, random: Random) -> None:
    here = world(random, (60, 600), SIZES)
    share = random.uniform(0.3, 1)

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        listed = fair(moment, here, random)
        if random.random() < share:
            listed.insert(int(random.integers(len(listed) + 1)), moment.answer)
        return listed

    files(folder, random, here, lister)


def length_of_answer(folder: Path, random: Random) -> None:
    """Preferences, or lists, whose answers are written shorter, or longer, than all else."""
    here = world(random, (80, 600), SIZES)
    longer = random.random() < 0.5
    note = str(random.choice([" a tale for all the family", " in the complete remastered edition"]))

    def titled(item: int, is_answer: bool) -> str:
        return here.titles[item] + (note if is_answer == longer else "")

    files(folder, random, here, fair, titled, ("test",) if random.random() < 0.5 else None)


def form_of_answer(folder: Path, random: Random) -> None:
    """Answers that stand out in case or punctuation."""
    here = world(random, (80, 600), SIZES)
    written: Callable[[str], str] = [
        str.upper,
        str.lower,
        lambda title: f"{title}.",
        lambda title: f'"{title}"',
        lambda title: f"{title} (1999)",
        lambda title: title.replace(" ", "_") + "!",
    ][int(random.integers(6))]
    on_answer = random.random() < 0.5

    def titled(item: int, is_answer: bool) -> str:
        title = here.titles[item]
        return written(title) if is_answer == on_answer else title

    files(folder, random, here, fair, titled)


def added_to_retrieved(folder: Path, random: Random) -> None:
    """A retriever's list in its order, the answer put last, or first."""
    here = world(random, (100, 500), (5, 10, 20, 50))
    first, noise = random.random() < 0.4, random.uniform(0.5, 2)

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        best = [item for item in retrieved(moment, here, random, noise) if item != moment.answer]
        kept = best[: here.listed - 1]
        return [moment.answer, *kept] if first else [*kept, moment.answer]

    files(folder, random, here, lister)


def liked_listed(folder: Path, random: Random) -> None:
    """A negative that the person consumes at another time."""
    here = world(random, (150, 600), (5, 10, 20, 50, 100))
    here = World(**{**vars(here), "windows": 4})

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        others = negatives(moment, here, random)
        seen = {moment.answer, *moment.history}
        later = [item for item in moment.whole if item not in seen]
        others[: len(later[:1])] = later[:1]
        return shuffled([moment.answer, *others], random)

    files(folder, random, here, lister)


def prompt_of(moment: Moment, here: World) -> str:
    """A prompt in words."""
    return f"The user liked: {', '.join(here.titles[i] for i in moment.history)}.\nRecommend one: "


def preference_rows(here: World, random: Random, moments: Sequence[Moment]) -> list[dict[str, Any]]:
    """Rows of prompt, chosen and rejected, with another beginning for each."""
    return [
        {
            "prompt": prompt_of(moment, here),
            "chosen": here.titles[moment.answer],
            "rejected": here.titles[negatives(moment, here, random)[0]],
        }
        for moment in moments
    ]


def prompts_in_training(folder: Path, random: Random) -> None:
    """Preference files whose test rows stand in training, sometimes against other titles."""
    here = world(random, (60, 400), (2,))
    share = random.uniform(0.2, 1)
    for split in ("validation", "test"):
        moments = here.moments(random)
        write(preference_rows(here, random, moments), folder / f"{split}.jsonl")
    copied = [moment for moment in moments if random.random() < share]
    training = preference_rows(here, random, [*here.moments(random), *copied])
    write(training, folder / "train.jsonl")


def copied_users(folder: Path, random: Random) -> None:
    """A log in which many users share one basket, or each has a second id."""
    here = world(random, (150, 500), (2,), (80, 400))
    baskets = []
    for _ in range(here.rows):
        length = int(random.integers(6, 14))
        baskets.append(draw(random, here.items, length, here.weights))
    share, one = random.uniform(0.1, 0.4), random.random() < 0.5
    extra = int(share * here.rows) + 2
    baskets += [baskets[0] if one else baskets[number] for number in range(extra)]
    lines = [
        f"u{user},{here.titles[item]},{1_500_000_000 + 86_400 * place + 7 * user}"
        for user, basket in enumerate(baskets)
        for place, item in enumerate(basket)
    ]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]), "utf-8")


def plain_file(folder: Path, random: Random) -> None:
    here = world(random, (60, 900), SIZES)
    files(folder, random, here, fair)


def few_rows(folder: Path, random: Random) -> None:
    here = world(random, (8, 40), SIZES)
    files(folder, random, here, fair)


def as_often_consumed(folder: Path, random: Random) -> None:
    """Negatives drawn as often as people consume them."""
    here = world(random, (100, 600), SIZES)

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        others = negatives(moment, here, random, here.weights)
        return shuffled([moment.answer, *others], random)

    files(folder, random, here, lister)


def from_what_is_consumed(folder: Path, random: Random) -> None:
    """Negatives uniform over what anybody consumed, as a log without a catalogue gives them."""
    here = world(random, (200, 900), SIZES, (150, 500))
    consumed = np.zeros(here.items)
    for moment in here.moments(random, 1500):
        consumed[moment.whole] = 1

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        return shuffled([moment.answer, *negatives(moment, here, random, consumed)], random)

    files(folder, random, here, lister)


def of_one_genre(folder: Path, random: Random) -> None:
    """Hard negatives: of the answer's genre, whoever asks."""
    here = world(random, (100, 600), (2, 3, 5, 10, 20), (300, 900))

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        same = (here.genres == here.genres[moment.answer]).astype(float)
        return shuffled([moment.answer, *negatives(moment, here, random, same)], random)

    files(folder, random, here, lister)


def coin_pairs(folder: Path, random: Random) -> None:
    """Pairs that hardly occur twice, decided by a coin; histories of other items."""
    here = world(random, (100, 900), (2,), (200, 500))
    n = int(random.integers(200, 2000))
    rows = []
    for moment in here.moments(random):
        pair = [f"Choice {random.integers(n)} {end}" for end in ("left", "right")]
        answer = pair[int(random.integers(2))]
        history = [here.titles[item] for item in moment.history]
        rows.append({"historyList": history, "itemList": pair, "trueSelection": answer})
    write(rows, folder / "test.jsonl")


def agreed_on(folder: Path, random: Random) -> None:
    """Slates drawn uniformly, of which each person takes the best: people agree in part."""
    here = world(random, (150, 900), (2, 3, 5, 10), (30, 200))
    worth = random.normal(0, random.uniform(0.3, 1.0), here.items)

    def moments(here: World, random: Random) -> list[Moment]:
        found = []
        for moment in here.moments(random):
            blocked = np.ones(here.items)
            blocked[moment.history] = 0
            slate = draw(random, here.items, here.listed, blocked)
            best = max(slate, key=lambda item: worth[item] + random.gumbel())
            found.append(Moment(moment.history, best, slate, moment.taste))
        return found

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        return shuffled(moment.whole, random)

    files(folder, random, here, lister, moments=moments)


def in_retrieved_order(folder: Path, random: Random) -> None:
    """What a retriever returned, in its order; rows without the answer are left out."""
    _retrieved(folder, random, lambda listed, _: listed)


def retrieved_and_shuffled(folder: Path, random: Random) -> None:
    _retrieved(folder, random, shuffled)


def _retrieved(
    folder: Path, random: Random, order: Callable[[list[int], Random], list[int]]
) -> None:
    here = world(random, (150, 500), (5, 10, 20, 50), (100, 400))
    noise = random.uniform(0.3, 1.5)

    def moments(here: World, random: Random) -> list[Moment]:
        found: list[Moment] = []
        while len(found) < here.rows:
            for moment in here.moments(random):
                best = retrieved(moment, here, random, noise)[: here.listed]
                if moment.answer in best:
                    found.append(Moment(moment.history, moment.answer, best, moment.taste))
        return found

    files(
        folder,
        random,
        here,
        lambda moment, here, random: order(moment.whole, random),
        moments=moments,
    )


def sound_preferences(folder: Path, random: Random) -> None:
    """Pairs of which the person took what they like better; one file, or three."""
    here = world(random, (200, 800), (2,), (60, 500))

    def rows() -> list[dict[str, Any]]:
        found = []
        for moment in here.moments(random):
            pair = draw(random, here.items, 2)
            chosen, rejected = sorted(
                pair, key=lambda item: -np.log(moment.taste[item] + 1e-9) - random.gumbel()
            )
            titles = (here.titles[chosen], here.titles[rejected])
            found.append(dict(zip(("chosen", "rejected"), titles, strict=True)))
            found[-1]["prompt"] = prompt_of(moment, here)
        return found

    names = ("rows",) if random.random() < 0.5 else ("train", "validation", "test")
    for name in names:
        write(rows(), folder / f"{name}.jsonl")


def of_any_length(folder: Path, random: Random) -> None:
    here = world(random, (80, 600), (10, 20, 50))

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        others = negatives(moment, here, random)[: int(random.integers(1, here.listed))]
        return shuffled([moment.answer, *others], random)

    files(folder, random, here, lister)


def small_catalogue(folder: Path, random: Random) -> None:
    """Nearly all that the person has not consumed is listed."""
    here = world(random, (60, 400), (10, 20), (25, 60))
    files(folder, random, here, fair)


def taken_again(folder: Path, random: Random) -> None:
    """People repeat items, and negatives come from their history as often as answers."""
    here = world(random, (100, 600), (2, 3, 5, 10, 20))
    share = random.uniform(0.3, 0.7)

    def moments(here: World, random: Random) -> list[Moment]:
        found = []
        for moment in here.moments(random):
            again = random.random() < share
            answer = int(random.choice(moment.history)) if again else moment.answer
            found.append(Moment(moment.history, answer, moment.whole, moment.taste))
        return found

    def lister(moment: Moment, here: World, random: Random) -> list[int]:
        own = [item for item in moment.history if item != moment.answer]
        others = [item for item in negatives(moment, here, random) if item != moment.answer]
        count = min(len(own), int(random.binomial(here.listed - 1, share)))
        kept = [*draw_from(own, count, random), *others][: here.listed - 1]
        return shuffled([moment.answer, *kept], random)

    files(folder, random, here, lister, moments=moments)


def draw_from(items: Sequence[int], count: int, random: Random) -> list[int]:
    """Some of them, without repetition."""
    return random.permutation(np.array(items, int))[:count].tolist()


def sequels(folder: Path, random: Random) -> None:
    """Every third answer is a sequel of something in the history."""
    here = world(random, (100, 600), (5, 10, 20, 50))
    bases = draw(random, here.items, here.items // 3)
    after = {base: item for base, item in zip(bases, reversed(bases), strict=True) if base != item}
    for base, item in after.items():
        if base < item:
            here.titles[item] = f"{here.titles[base]} Part Two"

    def moments(here: World, random: Random) -> list[Moment]:
        found = []
        for moment in here.moments(random):
            follows = [after[item] for item in moment.history if item in after]
            new = [item for item in follows if item not in moment.whole]
            answer = new[0] if new and random.random() < 0.5 else moment.answer
            found.append(Moment(moment.history, answer, [*moment.whole, answer], moment.taste))
        return found

    files(folder, random, here, fair, moments=moments)


def plain_log(folder: Path, random: Random) -> None:
    """A log with times; some do the same few things, in orders of their own."""
    here = world(random, (100, 500), (2,), (60, 400))
    lines = ["user_id,item_id,timestamp"]
    for user in range(here.rows):
        taste = here.weights * random.gamma(0.5, size=8)[here.genres]
        basket = draw(random, here.items, int(random.integers(6, 16)), taste)
        times = np.sort(random.integers(1_400_000_000, 1_600_000_000, len(basket)))
        lines += [f"u{user},{here.titles[i]},{t}" for i, t in zip(basket, times, strict=True)]
    (folder / "log.csv").write_text("\n".join(lines), "utf-8")


@dataclass(frozen=True)
class Verdict:
    """What the audit said of one file.

    Attributes:
        kind: the kind.
        world: its number.
        is_right: whether a planted fault was found by a probe named for it, or a sound file was
            left alone: nothing leaks, and no probe of its lists cautions but those named.
        found: the audit.
    """

    kind: Kind
    world: int
    is_right: bool
    found: Audit


def judged(kind: Kind, number: int, first: int) -> Verdict:
    """Make a file and audit it.

    Args:
        kind: its kind.
        number: its world.
        first: `TUNING` or `FINAL`.
    """
    name = [first + number, *kind.name.encode()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kind.make(folder, np.random.default_rng(name))
        log = folder / "log.csv"
        found = audit(log if log.is_file() else folder, kind.source)
    findings = {one.probe: one for one in found.findings}
    if kind.expected != "ok":
        worst_said = worst(findings[probe].verdict for probe in kind.probes)
        is_right = VERDICTS.index(worst_said) >= VERDICTS.index(kind.expected)
    else:
        told = [one for one in found.findings if one.about == "lists" and one.verdict != "ok"]
        is_right = not found.leaks() and {one.probe for one in told} <= {*kind.probes, *ANYWHERE}
    return Verdict(kind, number, is_right, found)


ANYWHERE = ("popularity",)
"""A caution that popularity wins most lists is no fault of how they were drawn."""
ORDER, AGREED = ("position", "position of the answer"), ("seen as answer", "popularity")
LIKED = ("liked items as negatives",)
PLANTED = (
    Kind("answer at one place", fixed_place, "leak", ("position",)),
    Kind("place by the answer", place_by_answer, "leak", ("position of the answer",)),
    Kind("list by the answer", list_by_answer, "leak", ("list overlap",)),
    Kind("negatives from a part of the catalogue", from_a_part, "caution", AGREED),
    Kind("negatives nobody consumes", never_answers, "leak", AGREED),
    Kind("answer in the history", answer_in_history, "leak", ("answer in history",)),
    Kind("history listed", history_listed, "caution", ("history items as negatives",)),
    Kind("test windows in training", windows_in_training, "leak", ("shared windows",)),
    Kind("answer listed twice", answer_twice, "leak", ("repeated titles",)),
    Kind("length of the answer", length_of_answer, "leak", ("title length",)),
    Kind("form of the answer", form_of_answer, "leak", ("title form",)),
    Kind("answer added to a retriever's list", added_to_retrieved, "leak", ("position",)),
    Kind("liked items listed", liked_listed, "caution", ("liked items as negatives",)),
    Kind("prompts in training", prompts_in_training, "leak", ("shared prompts",), "preferences"),
    Kind("copied users", copied_users, "caution", ("copied users",), "files"),
)
CLEAN = (
    Kind("uniform negatives", plain_file, "ok", ()),
    Kind("few rows", few_rows, "ok", ()),
    Kind("negatives as often consumed", as_often_consumed, "ok", ()),
    Kind("negatives of one genre", of_one_genre, "ok", ()),
    Kind("pairs decided by a coin", coin_pairs, "ok", ()),
    Kind("slates people agree on", agreed_on, "ok", AGREED),
    Kind("a retriever's order", in_retrieved_order, "ok", ORDER + LIKED),
    Kind("a retriever's lists, shuffled", retrieved_and_shuffled, "ok", LIKED),
    Kind("preferences of taste", sound_preferences, "ok", (), "preferences"),
    Kind("lists of any length", of_any_length, "ok", ()),
    Kind("small catalogue", small_catalogue, "ok", ()),
    Kind("taken again", taken_again, "ok", ()),
    Kind("sequels", sequels, "ok", ("words of the prompt", "nested titles")),
    Kind("negatives from what all consume", from_what_is_consumed, "ok", ()),
    Kind("a log with times", plain_log, "ok", (), "files"),
)
