"""The one scale of ratings that need not be described: 0.5 to 5 stars."""

STARS = tuple(half / 2 for half in range(1, 11))
"""Whole and half stars."""
STAR_LEVELS = (4.0,)
"""Stars from which an item counts as liked, unless `data.levels` says otherwise."""
STAR_DISLIKED = 2.5
"""Stars up to which an item is disliked, unless `data.disliked` says otherwise."""
