"""A planted collapse: easy negatives added to a small controlled recommender.

    python benchmarks/collapse.py [--quick] [--json PATH]

Users like items by taste, and items also have a hype that gets them shown and then disappoints.
The recommender has a weight for each and starts from imitation of liked items. Alignment compares
a liked item with `HARD` items that were shown and not liked, and with easy ones: items without
hype that nobody is shown. Weighing hype more separates all easy negatives at once and ranks the
hard ones above what is liked; weighing taste more is what ranks better. What an objective does as
easy negatives are added says where its gradient goes. Quality is NDCG@10 of the ranking of all
items, with the true probability of liking as gain.

The thresholds of `CollapseMonitor` were chosen on seeds 0 to 9 and 100 to 102, not on the table's.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import conditions, flags, publish
from torch import Tensor
from torch.nn.functional import cross_entropy

from palate.objectives import CandidateScores, DynamicPO, dmpo, s_dpo
from palate.objectives.collapse import CollapseMonitor
from palate.objectives.diagnostics import boundary_diagnostics

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "collapse.svg"
USERS, ITEMS, TASTES, HARD, SHOWN = 400, 400, 8, 4, 24
EASY = (1, 3, 7, 15, 31, 63)
STEPS, BATCH, LOG_EVERY, VALIDATE_EVERY = 300, 32, 5, 25
FRESH_SEEDS = range(10, 15)
OBJECTIVES: dict[str, Callable[[CandidateScores], Tensor]] = {
    "DMPO": partial(dmpo, beta=1.0),
    "DynamicPO (DMPO)": DynamicPO("dmpo", beta=1.0),
    "S-DPO": partial(s_dpo, beta=1.0),
}
COLLAPSES = 0.95
"""A run collapsed where its quality ends below this share of what it started with."""


@dataclass(frozen=True)
class Outcome:
    """One run: quality before and after, shares of the gradient, and what the monitor said."""

    seed: int
    objective: str
    easy: int
    before: float
    after: float
    first_loss: float
    last_loss: float
    boundary_share: float
    flagged_at: int | None
    when_flagged: float | None


class World:
    """Users, items, what is shown and what is liked.

    Args:
        generator: draws it.
    """

    def __init__(self, generator: torch.Generator) -> None:
        tastes = torch.randn(ITEMS, TASTES, generator=generator) / TASTES**0.5
        hype = torch.randn(ITEMS, generator=generator)
        self.first_easy = ITEMS // 2
        hype[self.first_easy :] = 0.3 * hype[self.first_easy :] - 3
        tastes[self.first_easy :] *= 0.25
        self.users = torch.randn(USERS, TASTES, generator=generator)
        self.features = torch.cat([tastes, hype[:, None]], dim=1)
        fit = 2 * self.users @ tastes.T
        self.likes = torch.sigmoid(2 * fit - 2 * hype)  # (users, items), true probability
        self.shows = torch.softmax(fit + 1.5 * hype, dim=1)
        self._generator = generator

    def some_users(self, count: int) -> Tensor:
        """Ids of users, with repetition."""
        return torch.randint(USERS, (count,), generator=self._generator)

    def slates(self, users: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Items shown to each user, and whether each was liked."""
        shown = torch.multinomial(self.shows[users], width, generator=self._generator)
        chance = self.likes[users].gather(1, shown)
        return shown, torch.rand(shown.shape, generator=self._generator) < chance

    def candidates(self, easy: int) -> tuple[Tensor, Tensor, Tensor]:
        """Users, (B, 1 + HARD + easy) items with the liked one first, and their levels."""
        users = self.some_users(BATCH)
        shown, liked = self.slates(users, SHOWN)
        usable = liked.any(dim=1) & ((~liked).sum(dim=1) >= HARD)
        users, shown, liked = users[usable], shown[usable], liked[usable]
        positive = shown.gather(1, liked.byte().argmax(dim=1, keepdim=True))
        hard = shown.gather(1, liked.byte().sort(dim=1, stable=True).indices[:, :HARD])
        drawn = torch.randint(self.first_easy, ITEMS, (len(users), easy), generator=self._generator)
        items = torch.cat([positive, hard, drawn], dim=1)
        levels = torch.zeros_like(items)
        levels[:, 0] = 1
        return users, items, levels.masked_fill((items == positive) & (levels == 0), -1)


class Recommender(torch.nn.Module):
    """log π(item | user), from a bilinear form of user vector and item features."""

    def __init__(self, world: World, generator: torch.Generator) -> None:
        super().__init__()
        width = TASTES + 1
        self.form = torch.nn.Parameter(0.1 * torch.randn(TASTES, width, generator=generator))
        self.common = torch.nn.Parameter(torch.zeros(width))
        self._world = world

    def forward(self, users: Tensor) -> Tensor:
        """(B, items)"""
        weights = self._world.users[users] @ self.form + self.common
        return (weights @ self._world.features.T).log_softmax(dim=1)

    @torch.no_grad()
    def quality(self) -> tuple[float, float]:
        """NDCG@10, gains the true probability of liking: mean over all users, standard error."""
        likes = self._world.likes
        discounts = 1 / torch.log2(torch.arange(10) + 2.0)
        top = self(torch.arange(USERS)).topk(10).indices
        ideal = likes.topk(10).values @ discounts
        of_user = likes.gather(1, top) @ discounts / ideal
        return float(of_user.mean()), float(of_user.std() / USERS**0.5)


def main() -> None:
    """Measure, print, draw, and write the table."""
    arguments = flags(__doc__).parse_args()
    torch.set_num_threads(1)  # tensors are small
    seeds = [0] if arguments.quick else list(FRESH_SEEDS)
    outcomes = []
    for seed in seeds:
        for name in OBJECTIVES:
            for easy in EASY:
                outcomes.append(run(seed, name, easy))
                told = f"{name}, {easy} easy: {outcomes[-1].before:.3f} → {outcomes[-1].after:.3f}"
                print(f"seed {seed}: {told}", file=sys.stderr)
    figures = [asdict(outcome) for outcome in outcomes]
    publish(report(outcomes, len(seeds), arguments), figures, arguments, "collapse")
    if not arguments.quick:
        draw(outcomes)


def run(seed: int, name: str, easy: int) -> Outcome:
    """Imitation, then alignment with so many easy negatives, watched."""
    generator = torch.Generator().manual_seed(seed)
    world = World(generator)
    policy = Recommender(world, generator)
    imitate(policy, world)
    reference = Recommender(world, generator)
    reference.load_state_dict(policy.state_dict())
    before, monitor = policy.quality()[0], CollapseMonitor()
    monitor.validation(0, *policy.quality())
    flagged_at = when_flagged = None
    optimiser = torch.optim.Adam(policy.parameters(), lr=2e-2)
    kept: list[dict[str, float]] = []
    lines: list[dict[str, float]] = []
    for step in range(1, STEPS + 1):
        users, items, levels = world.candidates(easy)
        policy_scores = policy(users).gather(1, items)
        with torch.no_grad():
            reference_scores = reference(users).gather(1, items)
        scores = CandidateScores(policy_scores, reference_scores, levels=levels, check=False)
        losses = OBJECTIVES[name](scores)
        (gradient,) = torch.autograd.grad(losses.sum(), policy_scores, retain_graph=True)
        seen = boundary_diagnostics(scores, gradient)
        kept.append({"loss": losses.mean().item(), **{k: float(v) for k, v in seen.items()}})
        optimiser.zero_grad()
        losses.mean().backward()
        optimiser.step()
        found = None
        if step % LOG_EVERY == 0:
            lines.append({key: statistics.fmean(k[key] for k in kept) for key in kept[0]})
            line, kept = lines[-1], []
            found = monitor.training(
                step, line["loss"], line["boundary/margin"], line["easy/margin"]
            )
        if step % VALIDATE_EVERY == 0:
            found = monitor.validation(step, *policy.quality()) or found
        if found is not None:
            flagged_at, when_flagged = found.step, policy.quality()[0]
    return Outcome(
        seed,
        name,
        easy,
        before,
        policy.quality()[0],
        statistics.fmean(line["loss"] for line in lines[:10]),
        statistics.fmean(line["loss"] for line in lines[-10:]),
        statistics.fmean(line["boundary/share"] for line in lines),
        flagged_at,
        when_flagged,
    )


def imitate(policy: Recommender, world: World) -> None:
    """Cross-entropy on shown and liked items."""
    optimiser = torch.optim.Adam(policy.parameters(), lr=5e-2)
    for _ in range(200):
        users = world.some_users(128)
        shown, liked = world.slates(users, 1)
        kept = liked[:, 0]
        loss = cross_entropy(policy(users[kept]), shown[kept, 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def report(outcomes: list[Outcome], seeds: int, given: argparse.Namespace) -> str:
    """The tables as Markdown."""

    def cells(key: str) -> str:
        rows = []
        for name in OBJECTIVES:
            means = [statistics.fmean(values_of(outcomes, name, easy, key)) for easy in EASY]
            rows.append(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
        return "\n".join(rows)

    header = f"| easy negatives | {' | '.join(map(str, EASY))} |\n|---|{'---:|' * len(EASY)}"
    before = statistics.fmean(outcome.before for outcome in outcomes)
    verdicts = "\n".join(
        f"| {what} | {len(runs)} | {sum(o.flagged_at is not None for o in runs)} | "
        f"{sum((o.when_flagged or o.before) < o.before for o in runs)} |"
        for what, runs in by_verdict(outcomes).items()
    )
    falling = sum(outcome.last_loss < outcome.first_loss for outcome in outcomes)
    return f"""# A planted collapse

Quality (NDCG@10 by true liking) after {STEPS} steps of alignment, mean over {seeds} \
seed{"s" if seeds > 1 else ""}; before alignment it is {before:.3f}. {HARD} hard negatives in \
every context besides the easy ones.

{header}
{cells("after")}

Share of the gradient on negatives that falls on boundary ones, mean over all steps:

{header}
{cells("boundary_share")}

What `CollapseMonitor` said, by how a run ended ({falling} of {len(outcomes)} runs ended with a \
lower loss than they began):

| quality at the end | runs | flagged | of them below their start when flagged |
|---|---:|---:|---:|
{verdicts}

The monitor saw a validation every {VALIDATE_EVERY} steps and a log entry every {LOG_EVERY}; its \
thresholds are the defaults of the library, chosen on other seeds (0–9 and 100–102).

{conditions()}"""


def values_of(outcomes: list[Outcome], name: str, easy: int, key: str) -> list[Any]:
    """A field of every seed of one objective and number of easy negatives."""
    return [getattr(o, key) for o in outcomes if (o.objective, o.easy) == (name, easy)]


def by_verdict(outcomes: list[Outcome]) -> dict[str, list[Outcome]]:
    """Runs by how their quality ended."""
    limit = f"{1 - COLLAPSES:.0%}"
    return {
        f"below its start by more than {limit} (collapsed)": [
            o for o in outcomes if o.after < COLLAPSES * o.before
        ],
        f"below its start by less than {limit}": [
            o for o in outcomes if COLLAPSES * o.before <= o.after <= o.before
        ],
        "above its start": [o for o in outcomes if o.after > o.before],
    }


def draw(outcomes: list[Outcome]) -> None:
    """Quality and boundary share against the number of easy negatives, a line per objective."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "palate"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
    before = statistics.fmean(outcome.before for outcome in outcomes)
    for panel, key, title in zip(
        panels,
        ("after", "boundary_share"),
        ("NDCG@10 by true liking, after alignment", "gradient share of boundary negatives"),
        strict=True,
    ):
        for name in OBJECTIVES:
            values = [values_of(outcomes, name, easy, key) for easy in EASY]
            means = [statistics.fmean(v) for v in values]
            panel.fill_between(EASY, [min(v) for v in values], [max(v) for v in values], alpha=0.2)
            panel.plot(EASY, means, marker="o", label=name)
        panel.set(xscale="log", xticks=EASY, xticklabels=EASY, xlabel="easy negatives", title=title)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].axhline(before, color="grey", linestyle="--", label="before alignment")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
