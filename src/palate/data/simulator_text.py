"""Titles and descriptions of simulated items, composed from their attributes.

A title reads `{adjective of the mood} {noun of the genre} of {place of the maker}`, as in
"Velvet Alibi of Marrow". Every adjective belongs to one mood, every noun to one genre and every
place to one maker, so a title tells three of the four attributes to whoever has learnt the words.
The era stands in the description only.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count, islice, product

import numpy as np
from numpy.typing import NDArray

from palate.randomness import integers

GENRES: dict[str, tuple[str, ...]] = {
    "drama": (
        *("Inheritance", "Reckoning", "Household", "Daughters"),
        *("Confession", "Threshold", "Orchard", "Silence"),
    ),
    "comedy": (
        *("Mishap", "Nuisance", "Wager", "Buffoon"),
        *("Blunder", "Charade", "Pickle", "Landlady"),
    ),
    "crime": (
        *("Alibi", "Heist", "Ransom", "Forger"),
        *("Syndicate", "Accomplice", "Contraband", "Getaway"),
    ),
    "romance": (
        *("Courtship", "Letters", "Elopement", "Sweetheart"),
        *("Betrothal", "Embrace", "Suitor", "Valentine"),
    ),
    "adventure": (
        *("Expedition", "Voyage", "Castaway", "Treasure"),
        *("Compass", "Caravan", "Summit", "Explorer"),
    ),
    "science fiction": (
        *("Orbit", "Android", "Colony", "Starship"),
        *("Signal", "Paradox", "Reactor", "Satellite"),
    ),
    "mystery": (
        *("Riddle", "Cipher", "Clue", "Detective"),
        *("Vanishing", "Sleuth", "Enigma", "Witness"),
    ),
    "horror": (
        *("Crypt", "Haunting", "Ghoul", "Exorcist"),
        *("Shriek", "Coffin", "Revenant", "Possession"),
    ),
    "fantasy": (
        *("Dragon", "Sorcerer", "Amulet", "Prophecy"),
        *("Griffin", "Spellbook", "Enchantress", "Rune"),
    ),
    "war": (
        *("Regiment", "Siege", "Trench", "Armistice"),
        *("Sergeant", "Battalion", "Deserter", "Garrison"),
    ),
    "musical": (
        *("Chorus", "Serenade", "Ballad", "Overture"),
        *("Encore", "Refrain", "Cabaret", "Lullaby"),
    ),
    "western": (
        *("Outlaw", "Saddle", "Sheriff", "Stagecoach"),
        *("Frontier", "Gunslinger", "Corral", "Homestead"),
    ),
}
"""Genre to the nouns of its titles; the most frequent genre first."""

MOODS: dict[str, tuple[str, ...]] = {
    "tender": ("Velvet", "Gentle", "Fond", "Hushed", "Warm", "Silken"),
    "dark": ("Ashen", "Sunless", "Grim", "Obsidian", "Bleak", "Starless"),
    "tense": ("Ticking", "Razor", "Breathless", "Coiled", "Narrow", "Brittle"),
    "playful": ("Giddy", "Madcap", "Jaunty", "Topsy-Turvy", "Merry", "Cheeky"),
    "melancholy": ("Faded", "Wistful", "Rainy", "Forlorn", "Autumn", "Weary"),
    "hopeful": ("Golden", "Radiant", "Rising", "Bright", "Unbroken", "Dawning"),
    "strange": ("Crooked", "Uncanny", "Paper", "Hollow", "Mirrored", "Sideways"),
    "grand": ("Towering", "Imperial", "Thunderous", "Endless", "Marble", "Colossal"),
}
"""Mood to the adjectives of its titles."""

ERAS: tuple[str, ...] = ("1970s", "1980s", "1990s", "2000s", "2010s", "2020s")

_PLACES = (
    *("Marrow", "Saltmere", "Quillon", "Ostrava", "Tamsin", "Verdigris", "Lowmoor", "Cinder Bay"),
    *("Haldane", "Pellucid", "Juniper", "Novara", "Brackwater", "Ismere", "Corvane", "Elsinby"),
    *("Tallow", "Umberly", "Wexcombe", "Yarrow", "Zephyrine", "Dunmore", "Fenwick", "Gossamer"),
)
_STARTS = (
    *("Al", "Bel", "Car", "Dar", "Ed", "Fal", "Gar", "Hol", "Ir", "Jas", "Kel", "Lor", "Mon"),
    *("Nor", "Or", "Pen", "Quar", "Ros", "Sil", "Tor", "Ul", "Ver", "Wil", "Xan", "Yel", "Zan"),
)
_MIDDLES = ("a", "e", "i", "o", "u", "an", "en", "in", "on", "un")
_ENDS = (
    *("burgh", "combe", "dale", "fell", "gate", "haven", "kirk", "ledge", "mouth", "ness"),
    *("port", "quay", "ridge", "stead", "thorpe", "vale", "worth", "field", "bridge", "strand"),
)

_DESCRIPTIONS = (
    "This {mood} {genre} title was made by {maker} in the {era}.",
    "Made by {maker} in the {era}, this is a {mood} {genre} title.",
    "{maker} released this {mood} {genre} title in the {era}.",
)
_ROMAN = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L")),
    *((40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)


def maker_places(n_makers: int) -> list[str]:
    """One place name per maker, all different; composed from syllables after the listed ones."""
    return list(islice(_all_places(), n_makers))


def maker_names(n_makers: int) -> list[str]:
    """One name per maker: its place and "House"."""
    return [f"{place} House" for place in maker_places(n_makers)]


def compose_titles(
    genre: NDArray[np.int64], mood: NDArray[np.int64], maker: NDArray[np.int64], seed: int
) -> list[str]:
    """A unique title per item; the second item with the same words gets "II", and so on.

    Args:
        genre, mood, maker: (n_items,) index of each item's value.
        seed: names the choice among the words of a value.
    """
    adjectives, nouns = list(MOODS.values()), list(GENRES.values())
    places = maker_places(int(maker.max()) + 1)
    adjective = integers(len(adjectives[0]), seed, "title adjective", np.arange(len(mood)))
    noun = integers(len(nouns[0]), seed, "title noun", np.arange(len(genre)))
    seen: Counter[str] = Counter()
    titles = []
    for m, a, g, n, k in zip(
        mood.tolist(),
        adjective.tolist(),
        genre.tolist(),
        noun.tolist(),
        maker.tolist(),
        strict=True,
    ):
        words = f"{adjectives[m][a]} {nouns[g][n]} of {places[k]}"
        seen[words] += 1
        titles.append(words if seen[words] == 1 else f"{words} {roman(seen[words])}")
    return titles


def compose_descriptions(
    genre: Sequence[str], mood: Sequence[str], maker: Sequence[str], era: Sequence[str], seed: int
) -> list[str]:
    """One sentence per item that names all four attributes, in one of three word orders."""
    order = integers(len(_DESCRIPTIONS), seed, "description", np.arange(len(genre)))
    return [
        _DESCRIPTIONS[o].format(genre=g, mood=m, maker=k, era=e)
        for o, g, m, k, e in zip(order.tolist(), genre, mood, maker, era, strict=True)
    ]


def roman(number: int) -> str:
    """The Roman numeral of a positive integer."""
    numeral = ""
    for value, letters in _ROMAN:
        times, number = divmod(number, value)
        numeral += letters * times
    return numeral


def _all_places() -> Iterator[str]:
    """Endless place names without repetition, shortest compositions first."""
    seen = set()
    composed = (
        start + "".join(middles) + end
        for n_middles in count()
        for *middles, end, start in product(*[_MIDDLES] * n_middles, _ENDS, _STARTS)
    )
    for source in (_PLACES, composed):
        for place in source:
            if place not in seen:
                seen.add(place)
                yield place
