"""Time of every objective, of DynamicPO's selection, and their part of a training step.

    python benchmarks/objectives.py [--quick] [--json PATH]

Losses are timed forward and backward on scores drawn at random, as in training: not checked. The
training step is a real one of the `small` language model from scratch (forward, backward, AdamW),
4 contexts of 1 positive and 15 negatives, with the frozen reference.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import conditions, flags, in_turn, publish
from torch import Tensor

from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.simulator import Simulation
from palate.data.tables import SourceTables
from palate.negatives import mixture
from palate.objectives import OBJECTIVES, CandidateScores, DynamicPO, s_dpo, setwise_bound_gap
from palate.objectives.dynamicpo import boundary_negatives, dual_margin_beta
from palate.objectives.weighted_sum import Term, WeightedSum
from palate.policies import LanguagePolicy
from palate.policies.reference import Frozen
from palate.training.alignment_logs import alignment_logs
from palate.training.preference_sets import PreferenceSets, collate_sets

SHAPES = {
    "4 × 16, k 1": (4, 16, 1),
    "64 × 100, k 10": (64, 100, 10),
    "256 × 101, k 1": (256, 101, 1),
}
"""Contexts × candidates, and positives among them."""


def main() -> None:
    """Measure, print, and write the table."""
    arguments = flags(__doc__).parse_args()
    turns = 5 if arguments.quick else 25
    figures = {shape: losses(*SHAPES[shape], turns) for shape in SHAPES}
    steps = training_step(3 if arguments.quick else 15)
    text = report(figures, steps, turns, arguments)
    publish(text, {"losses": figures, "step": steps}, arguments, "objectives")


def losses(contexts: int, candidates: int, positives: int, turns: int) -> dict[str, list[float]]:
    """Seconds of each loss with its gradient, and of selection and β."""
    generator = torch.Generator().manual_seed(0)
    policy = 3 * torch.randn(contexts, candidates, generator=generator)
    reference = 3 * torch.randn(contexts, candidates, generator=generator)
    levels = (torch.arange(candidates) < positives).long().expand(contexts, -1)

    def scores() -> tuple[CandidateScores, Tensor]:
        leaf = policy.clone().requires_grad_()
        return CandidateScores(leaf, reference, levels=levels, check=False), leaf

    def with_gradient(objective: Callable[[CandidateScores], Tensor]) -> None:
        read, leaf = scores()
        torch.autograd.grad(objective(read).sum(), leaf)

    dynamic = {f"DynamicPO({name})": DynamicPO(name) for name in ("dmpo", "s_dpo", "pl_dpo")}
    sides: dict[str, Callable[[], Any]] = {
        name: partial(with_gradient, objective)
        for name, objective in {**OBJECTIVES, **dynamic}.items()
    }
    sides["selection and β"] = selection_of(scores()[0])
    sides["bound gap, no gradient"] = lambda: setwise_bound_gap(scores()[0])
    return in_turn(sides, turns, calls=4)


def selection_of(scores: CandidateScores) -> Callable[[], Tensor]:
    """What DynamicPO does beyond its base: boundary negatives and their β.

    The places of positives are known beforehand, as any loss looks them up.
    """
    assert scores.filled.any()
    return lambda: dual_margin_beta(scores, boundary_negatives(scores))


def training_step(turns: int) -> dict[str, list[float]]:
    """Seconds of an alignment step of the `small` language model, and of what is done to scores."""
    with tempfile.TemporaryDirectory() as temporary:
        world = Simulation(seed=3)
        tables = SourceTables(world.interactions(), world.items())
        prepare(tables, Path(temporary) / "data", Preparation(k_core=2), seed=3)
        data = Prepared(Path(temporary) / "data", window=1)
        policy = LanguagePolicy.create("small", data.items, "history", max_history=10, seed=1)
        sets = PreferenceSets(data.contexts("train"), mixture({"uniform": 15}, data), seed=0)
        batch = collate_sets(policy, [sets[0, example] for example in range(100, 104)])
    policy.start_stage("align")
    policy.model.train()
    reference = Frozen(policy)
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=1e-5)

    def scored() -> CandidateScores:
        return CandidateScores(
            policy.log_probs(batch).log_probs,
            reference.log_probs(batch),
            levels=batch["levels"],
            check=False,
        )

    def step() -> None:
        s_dpo(scored()).mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    scores = scored()
    leaf = scores.policy.detach().requires_grad_()
    objective = WeightedSum({"s_dpo": Term(1.0, DynamicPO("s_dpo"))})

    def fresh() -> CandidateScores:
        return CandidateScores(leaf, scores.reference, levels=batch["levels"], check=False)

    def logs() -> None:
        read = fresh()
        parts = objective.parts(read)
        (gradient,) = torch.autograd.grad(objective.total(parts).sum(), leaf)
        alignment_logs(objective, parts, read, gradient, 1.0)

    return in_turn(
        {"step": step, "selection and β": selection_of(fresh()), "loss and logs": logs}, turns
    )


def report(
    figures: dict[str, dict[str, list[float]]],
    steps: dict[str, list[float]],
    turns: int,
    given: argparse.Namespace,
) -> str:
    """The tables as Markdown."""
    names = next(iter(figures.values()))
    rows = "\n".join(
        f"| `{name}` | "
        + " | ".join(f"{1e3 * statistics.median(figures[shape][name]):.2f}" for shape in SHAPES)
        + " |"
        for name in names
    )

    def share(name: str) -> str:
        ratios = [part / step for part, step in zip(steps[name], steps["step"], strict=True)]
        return (
            f"| {name} | {1e3 * statistics.median(steps[name]):.2f} | "
            f"{statistics.median(ratios):.2%} |"
        )

    return f"""# Time of the objectives

Milliseconds of a loss with its gradient (median of {turns} turns); contexts × candidates, k
positives in each.

| | {" | ".join(SHAPES)} |
|---|{"---:|" * len(SHAPES)}
{rows}

A step of the `small` language model (4 contexts, 1 positive and 15 negatives each, frozen
reference) takes {1e3 * statistics.median(steps["step"]):.0f} ms; of that, as the median of the
ratios of {len(steps["step"])} turns:

| | ms | share of the step |
|---|---:|---:|
{share("selection and β")}
{share("loss and logs")}

"Loss and logs" is DynamicPO on S-DPO with everything that training logs of it: rewards, gradient
shares, boundary and quantiles of β.

{conditions("transformers")}"""


if __name__ == "__main__":
    main()
