"""How the contexts of a split stand to what was trained on."""

import numpy as np

from palate.audit import structure
from palate.audit.copies import alike_users
from palate.audit.findings import NEVER, Finding, per_cent, share_finding
from palate.audit.material import Material


def of_split(subject: Material, skipped: dict[str, str], seed: int) -> list[Finding]:
    """Findings on how the contexts stand to what was trained on."""
    contexts, log = subject.contexts, subject.contexts.interactions
    users, split = contexts.users, subject.split
    copies = alike_users(log)[users]
    rows = np.arange(len(log.items))
    starts = log.split_starts
    in_training = (rows >= starts["train"][log.users]) & (rows < starts["validation"][log.users])
    if split == "train" or not in_training.any():
        for probe in ("shared windows", "shared prompts", "shared histories", "unseen answers"):
            skipped[probe] = "no training data beside it"
        return []
    training = rows[in_training]
    trains = starts["validation"] > starts["train"]
    trained_on = rows[trains[log.users] & (rows < starts["validation"][log.users])]
    answers = np.array([context.positives[0] for context in contexts])
    findings = [
        share_finding(
            "shared windows",
            "split",
            structure.shared_windows(contexts, training),
            users,
            (0.01, 0.05),
            f"{{share}} of the {split} windows, history and answer, stand in another user's "
            "training data.",
            "What was trained on is asked again. Remove these windows from one of the files, or "
            "split by user with --set data.split=by_user.",
            seed,
            copies=copies,
        ),
        share_finding(
            "shared histories",
            "split",
            structure.shared_histories(contexts, trained_on),
            users,
            (0.05, NEVER),
            f"{{share}} of the {split} histories stand in the training data of a user with another "
            "id.",
            "The same people seem to be on both sides of a split by user. Give them one id, and "
            "split again.",
            seed,
            copies=copies,
        ),
        share_finding(
            "unseen answers",
            "split",
            ~np.isin(answers, log.items[trained_on]),
            users,
            (0.05, NEVER),
            f"{{share}} of the {split} answers never occur in training.",
            "A policy that knows items by id alone cannot rank them. Say so beside the result, or "
            "use a policy that reads titles.",
            seed,
            copies=copies,
        ),
    ]
    prompts = structure.shared_prompts(contexts, training, subject.data.titles())
    if prompts is None:
        skipped["shared prompts"] = "nothing is said before the answers"
    else:
        flags, by_chance = prompts
        findings.append(
            share_finding(
                "shared prompts",
                "split",
                flags,
                users,
                (0.01, 0.05),
                f"{{share}} of the {split} prompts stand in training with the same answer, by "
                f"chance {per_cent(float(np.mean(by_chance)))}.",
                "What was trained on is asked again. Remove these rows from one of the files, or "
                "keep each once before the split.",
                seed,
                null=float(np.mean(by_chance)),
                copies=copies,
                less=by_chance,
            )
        )
    if (later := structure.later_training(contexts, training)) is not None:
        findings.append(
            share_finding(
                "training after the test",
                "split",
                later,
                users,
                (0.05, NEVER),
                f"{{share}} of the training interactions came after the {split} moment they are "
                "judged by, on average.",
                "A policy has seen what others did later. For figures that hold in use take "
                "--set data.split=global_time.",
                seed,
                copies=copies,
            )
        )
    return findings
