"""What a report says in words: of the run, its training, its negatives."""

from typing import Any

from palate.chosen_objective import described
from palate.config import RunConfig
from palate.report.drawn_negatives import FalseNegatives
from palate.report.run_files import RunFiles


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """What was done to what: terms and values for the head of a page."""
    config, counts = run.config, run.manifest.get("counts", {})
    used, of = run.metrics["test_contexts"]["used"], run.metrics["test_contexts"]["of"]
    named = [("users", "Users"), ("items", "Items"), ("interactions", "Interactions")]
    found = [("Data", config.data.source)]
    found += [(term, f"{counts[key]:,}") for key, term in named if key in counts]
    found += [("Test contexts", f"{used:,}" if used == of else f"{used:,} of {of:,}")]
    found += [("Policy", _policy(config))]
    if run.is_aligned:
        found += [
            ("Objective", f"{described(config.align)}, β {config.align.beta:g}"),
            ("Negatives", _negatives(config)),
        ]
    return [*found, ("Seed", str(config.seed))]


def training_words(run: RunFiles, false: FalseNegatives | None) -> list[str]:
    """What the charts of training do not say."""
    if not run.log:
        return ["This run has no train.jsonl, so its training cannot be drawn."]
    if not run.is_aligned:
        return ["Nothing was aligned in this run."]
    return [] if false is None else false_negative_words(false)


def false_negative_words(found: FalseNegatives) -> list[str]:
    """Shares of false negatives in a sentence or two."""
    if not found.shares:
        return []
    listed = ", ".join(
        f"{name} {100 * share:.1f}\u00a0%" for name, (share, _) in found.shares.items()
    )
    drawn = sum(n for _, n in found.shares.values())
    whose = (
        "by the simulator's truth the person would like"
        if found.is_truth
        else "the person goes on to like later in the log, a lower bound"
    )
    words = [f"False negatives, items that {whose}: {listed} ({drawn:,} draws)."]
    if found.left_out:
        words.append(f"Not asked, since they draw from the policy: {', '.join(found.left_out)}.")
    return words


def no_people(metrics: dict[str, Any]) -> str:
    """Why there are no users to look at."""
    if "catalogue" in metrics["sft"]:
        return "This run was evaluated without them; palate evaluate adds them."
    return (
        "None: the policies of this run ranked candidate lists alone, so nobody has a list over "
        "the catalogue to look at."
    )


def _policy(config: RunConfig) -> str:
    if config.policy.kind == "language":
        return f"language, {config.policy.base or 'tiny'}"
    if config.policy.kind == "sequence":
        return f"sequence, {' + '.join(config.policy.sequence.streams)}"
    return config.policy.kind


def _negatives(config: RunConfig) -> str:
    return ", ".join(f"{count} {name}" for name, count in config.align.negatives.items())
