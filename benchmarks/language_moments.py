"""Several moments of one history in one pass of a language model, against a tree for each moment.

    python benchmarks/language_moments.py [--quick] [--json PATH] [--data FOLDER]

Films of ml-latest-small, prompts that hold the history alone, 8 moments of each history, one
positive and N negatives each; the first of them sees max_history films. A step is forward, S-DPO
against known reference scores, backward and AdamW, on the `small` model from scratch. *One pass* is
what alignment does with `align.moments_together: 8`; *a tree each* feeds the same prompts, one tree
for each moment, as many moments a step. How far their losses are apart is in the table.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import conditions, flags, in_turn, keep_freed_memory, publish

from palate.data.contexts import Context, Ids
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources.movielens import movielens
from palate.negatives import mixture
from palate.objectives import CandidateScores, s_dpo
from palate.policies import LanguagePolicy
from palate.policies.language import layouts
from palate.policies.policy import Batch
from palate.training.preference_sets import PreferenceSets

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "ml-latest-small"
TOGETHER, HISTORIES = 8, 4
CASES = ((10, 1), (10, 5), (10, 15), (20, 1), (20, 5), (20, 15), (50, 5))
"""max_history and negatives; more of both take more than 8 GB a tree each."""


def main() -> None:
    """Measure, print, and write the table."""
    parser = flags(__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="the folder of ml-latest-small")
    parser.add_argument("--size", default="small", help="tiny or small")
    given = parser.parse_args()
    keep_freed_memory()
    turns = 1 if given.quick else 3
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        prepare(movielens(given.data), Path(temporary) / "data", Preparation(k_core=5), seed=0)
        data = Prepared(Path(temporary) / "data", window=1)
        for history, negatives in [(20, 5)] if given.quick else CASES:
            case = {"history": history, "negatives": negatives}
            figures.append({**case, **measured(data, given.size, history, negatives, turns)})
            print(case, file=sys.stderr)
    publish(report(figures, turns, given), figures, given, "language_moments")


def measured(data: Prepared, size: str, history: int, negatives: int, turns: int) -> dict[str, Any]:
    """Seconds of a step of both sides, tokens fed, and the largest difference of a loss."""
    policy = LanguagePolicy.create(size, data.items, "history", max_history=history, seed=0)
    policy.model.train()
    drawn = mixture({"uniform": negatives}, data)
    sets = PreferenceSets(data.contexts("train"), drawn, 0, policy, TOGETHER)
    whole = [
        example
        for example in range(len(sets))
        if len(sets[0, example]) == TOGETHER and sets.sizes[example] >= history + TOGETHER
    ]
    chosen = whole[:: len(whole) // HISTORIES][:HISTORIES]
    moments = [one for example in chosen for one in sets[0, example]]
    contexts = [one.context for one in moments]
    item_ids = np.stack([one.item_ids for one in moments])
    levels = torch.from_numpy(np.stack([one.levels for one in moments]))
    batches = {
        "one pass": policy.collate(contexts, item_ids),
        "a tree each": a_tree_each(policy, contexts, item_ids),
    }
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=1e-5)
    with torch.no_grad():
        known = {name: policy.log_probs(batch).log_probs for name, batch in batches.items()}
        first, second = (
            losses_of(policy, batch, torch.zeros_like(scores), levels)
            for batch, scores in zip(batches.values(), known.values(), strict=True)
        )

    def step(name: str) -> None:
        losses_of(policy, batches[name], known[name], levels).mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    sides: dict[str, Callable[[], None]] = {name: partial(step, name) for name in batches}
    return {
        "apart": float((first - second).abs().max()),
        "sets": len(moments),
        "tokens": {name: batch["input_ids"].numel() for name, batch in batches.items()},
        "seconds": in_turn(sides, turns),
    }


def a_tree_each(policy: LanguagePolicy, contexts: Sequence[Context], item_ids: Ids) -> Batch:
    """The same prompts and candidates, a row for each moment."""
    titles = policy.prompter.title_tokens
    prompts = [policy.prompt_tokens(context) for context in contexts]
    answers = [[titles[item] for item in row] for row in item_ids]
    return layouts.lay_trees(prompts, answers, policy.prompter.end, policy.pad)


def losses_of(
    policy: LanguagePolicy, batch: Batch, reference: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """(B,) S-DPO."""
    scored = policy.log_probs(batch).log_probs
    return s_dpo(CandidateScores(scored, reference, levels=levels, check=False))


def report(figures: list[dict[str, Any]], turns: int, given: Any) -> str:
    """The table as Markdown."""

    def row(one: dict[str, Any]) -> str:
        joint, lone = (one["seconds"][name] for name in ("one pass", "a tree each"))
        ratio = statistics.median(b / a for a, b in zip(joint, lone, strict=True))
        rates = [one["sets"] / statistics.median(seconds) for seconds in (lone, joint)]
        fed = one["tokens"]
        return (
            f"| {one['history']} | {one['negatives']} | {rates[0]:.1f} | {rates[1]:.1f} | "
            f"{ratio:.1f} × | {fed['a tree each']:,} | {fed['one pass']:,} | {one['apart']:.1e} |"
        )

    return f"""# Moments of one history, read together

| max_history | negatives | sets/s, a tree each | sets/s, one pass | ratio | \
tokens fed, a tree each | tokens fed, one pass | largest difference of a loss |
|---:|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(map(row, figures))}

Medians of {turns} turn{"s" if turns > 1 else ""}, ratios within a turn; `{given.size}` model, \
{HISTORIES} histories with {TOGETHER} moments each a step, known reference, float32; padding \
counts as fed.
{conditions("transformers")}"""


if __name__ == "__main__":
    main()
