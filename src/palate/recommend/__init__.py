"""Lists for people whose next step nobody knows: a saved policy and a log, no held-out answers."""

from palate.recommend.choice import check_out, read_ids, write_lists
from palate.recommend.lists import recommend
from palate.recommend.served import policy_of, popularity_of, shown_events, spoken_against, stage_of

__all__ = [
    "check_out",
    "policy_of",
    "popularity_of",
    "read_ids",
    "recommend",
    "shown_events",
    "spoken_against",
    "stage_of",
    "write_lists",
]
