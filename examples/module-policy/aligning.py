"""From a policy that imitates to an aligned one, and both ranked on the same held-out items."""

from functools import partial
from pathlib import Path
from typing import Any

import rich

from palate.chosen_objective import chosen_objective
from palate.config import RunConfig
from palate.data.contexts import Prepared, sample_contexts
from palate.evaluation.stages import Evaluation, write_metrics
from palate.negatives import mixture
from palate.policies import ModulePolicy
from palate.policies.reference import REFERENCES
from palate.report.table import rich_table
from palate.training.align import align
from palate.training.sft import imitate


def align_and_compare(
    policy: ModulePolicy, data: Prepared, config: RunConfig, folder: Path, imitates: bool
) -> dict[str, Any]:
    """Write `sft/`, `aligned/`, `metrics.json` and `ranks.parquet` to a folder, print the table.

    Args:
        policy: trained in place.
        data: prepared data.
        config: options of both stages and of the evaluation.
        folder: where results go.
        imitates: whether the policy is to be trained by imitation first, or is already.
    """
    evaluation = Evaluation(config, data, folder, None)
    held_out = sample_contexts(
        data.contexts("validation"), config.evaluation.validation_contexts, config.seed, "sample"
    )
    if imitates:
        validation = partial(evaluation.validate, policy, held_out, config.sft.metric)
        imitate("sft", policy, data, validation, config.sft, folder, config.seed, ())
    policy.save(folder / "sft")
    evaluation.rank_policy("sft", lambda: policy)
    options = config.align
    align(
        policy,
        data,
        mixture(options.negatives, data, options.exclude_history, options.sampler_options),
        chosen_objective(options),
        options.beta,
        REFERENCES[options.reference](policy),
        partial(evaluation.validate, policy, held_out, options.metric),
        options,
        folder,
        config.seed,
        (),
    )
    policy.save(folder / "aligned")
    evaluation.rank_policy("aligned", lambda: policy)
    metrics = write_metrics(evaluation, folder)
    rich.print(rich_table(metrics, config.evaluation.candidates))
    return metrics
