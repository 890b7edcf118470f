"""The simulated log: a catalogue, users and a truth that can be asked again."""

from palate.data.simulator import Simulation
from palate.data.tables import SourceTables


def simulate(
    n_users: int = 1000,
    n_items: int = 500,
    visits: int = 36,
    impressions: bool = False,
    seed: int = 0,
) -> SourceTables:
    """A log drawn from `Simulation`, with ratings 1–5, texts and a known truth.

    Args:
        n_users: number of users.
        n_items: number of items, at least 20.
        visits: mean number of visits of a user; most end with an item consumed and rated.
        impressions: also give the items shown and skipped, as rows with the event "skip".
        seed: names the world; the run's seed unless given.
    """
    world = Simulation(
        n_users=n_users, n_items=n_items, visits=visits, impressions=impressions, seed=seed
    )
    options = {
        "n_users": n_users,
        "n_items": n_items,
        "visits": visits,
        "impressions": impressions,
        "seed": seed,
    }
    return SourceTables(
        interactions=world.interactions(),
        items=world.items(),
        origin={"source": "simulate", "options": options},
    )
