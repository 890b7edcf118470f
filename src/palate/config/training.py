"""The sections of the two stages that train."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from palate.config.pool import PoolConfig
from palate.config.section import Section

METRICS = r"^(loss|(hr|recall|ndcg|ndcg_graded|mrr|map)@[1-9]\d*)$"


class TrainingOptions(Section):
    """How a stage trains; the same for imitation and alignment."""

    epochs: float = Field(default=10, gt=0)
    """Passes over the training examples, at most."""
    max_steps: int | None = Field(default=None, gt=0)
    """Optimiser steps, at most; overrides `epochs`."""
    batch_size: int = Field(default=32, gt=0)
    """Examples in a batch, on average: histories in imitation; in alignment passes over a history,
    each with up to `moments_together` contexts. Batches hold about as many targets as one
    another."""
    accumulate: int = Field(default=1, gt=0)
    """Batches whose gradients are added before a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Largest learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate over the steps after warm-up."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of a gradient."""
    evaluations: float = Field(default=1.0, gt=0)
    """Validations in an epoch (an epoch is all examples once, even where max_steps ends it)."""
    patience: int = Field(default=3, gt=0)
    """Validations without improvement after which training stops."""
    metric: str = Field(default="ndcg@10", pattern=METRICS)
    """Validation metric that chooses the checkpoint: of the ranking (hr, recall, ndcg, ndcg_graded,
    mrr or map at a cutoff), or the loss (mean −log π of the held-out liked items), which is cheap
    and steady."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of matrix products; log-probabilities are always summed in fp32."""
    log_every: int = Field(default=10, gt=0)
    """Steps between lines of train.jsonl."""
    workers: int = Field(default=0, ge=0)
    """Processes that make batches; 0 makes them in the training process."""


class SFTConfig(TrainingOptions):
    """Imitation of every interaction."""

    max_steps: int | None = Field(default=None, ge=0)
    """Optimiser steps, at most; overrides `epochs`. 0: none, for a policy that imitates already."""
    metric: str = Field(default="loss", pattern=METRICS)
    """Validation metric that chooses the checkpoint; see align.metric."""


class DynamicPOOptions(Section):
    """DynamicPO (arXiv 2605.00327): negatives at the boundary, and a β for each."""

    margin: float = 2.0
    """γ: how far a negative must stand between positive and rest for a larger β, in nats."""
    scale: float = Field(default=0.5, ge=0, lt=1)
    """Largest relative change of β."""


class BatchBetaOptions(Section):
    """β-DPO (arXiv 2407.08639): β by the margin of the batch."""

    alpha: float = Field(default=0.6, ge=0)
    """Relative change of β for each nat of margin above the running one."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the running margin that stays, batch by batch."""


class AlignConfig(TrainingOptions):
    """Preference optimisation of the imitating policy."""

    epochs: float = Field(default=3, gt=0)
    """Passes over the contexts, at most."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Largest learning rate."""
    objective: str | dict[str, float] = "s_dpo"
    """dpo, ipo, simpo, lipo, dmpo, mppo, s_dpo, mult_dpo or pl_dpo; or a weighted sum, of which
    sft can be a term: {mult_dpo: 1.0, sft: 0.1}."""
    objective_options: dict[str, dict[str, Any]] = Field(default={})
    """Objective → its options, such as {lipo: {lambda_weights: true}}."""
    dynamicpo: DynamicPOOptions | None = None
    """Compare with boundary negatives alone, each with its own beta: {} for the defaults; null
    for all negatives."""
    batch_beta: BatchBetaOptions | None = None
    """Let beta follow the margin of each batch (β-DPO): {} for the defaults; null for one beta."""
    beta: float = Field(default=1.0, gt=0)
    """Inverse temperature: larger keeps nearer to the reference."""
    reference: str = "frozen"
    """What the policy is held to: frozen (a copy), adapter_off (LoRA switched off), cached (each
    score computed once and kept on disk) or none."""
    reference_cache: str | None = None
    """Folder where cached keeps its scores, for other runs from the same SFT too. Null: in the run
    folder, until the run is evaluated."""
    reference_pairs: int = Field(default=20_000_000, ge=1)
    """Scores that cached keeps, at most, of about 11 bytes each; further ones are computed each
    time."""
    reference_ahead: int | None = Field(default=None, ge=0)
    """Epochs whose scores cached computes before training. Null: all, and no copy of the policy
    is held afterwards."""
    negatives: dict[str, int] = Field(default={"uniform": 10}, min_length=1)
    """Sampler → negatives per context: uniform, popularity, observed, fixed, in_batch; hard,
    stochastic_topk and self_play, which ask the policy."""
    sampler_options: dict[str, dict[str, Any]] = Field(default={})
    """Sampler → its options, such as {popularity: {alpha: 0.5}, fixed: {path: negatives.csv}}."""
    log_q: Literal["centred", "plain"] | None = None
    """Correct s_dpo, mult_dpo and pl_dpo for how often the samplers draw each item (uniform and
    popularity, and mixtures of the two): centred takes out what differs between the negatives of a
    context, so nothing with one of them; plain subtracts log q as it is. Null: no correction."""
    pool: PoolConfig = PoolConfig()
    """What samplers that ask the policy choose from."""
    exclude_history: bool = True
    """Never draw an item of the history as a negative; `observed` then draws the dislikes that
    come later in training."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each user's training history, its last part, that SFT never sees: alignment learns
    from it alone, and so does sft_continued. 0: both stages see all."""
    rounds: int = Field(default=1, ge=1)
    """Alignments one after another, from the newest policy; epochs or max_steps are divided among
    them, and each has a learning-rate schedule of its own."""
    refresh_reference: bool = True
    """Hold each round to the policy that it starts from; false: all to the SFT policy."""
    sft_between: int = Field(default=0, ge=0)
    """Steps of imitation between two rounds."""
    moments_together: int | None = Field(default=None, ge=1)
    """Moments of one history that one pass reads, at most, as one example of a batch. Null: 1 for
    language, as many as the model reads for sequence. A language policy's prompts must end with
    the history; later moments of a pass then see up to three times max_history."""

    @model_validator(mode="after")
    def _cached(self) -> "AlignConfig":
        if self.reference_cache is not None and self.reference != "cached":
            raise ValueError(
                f"reference_cache is for reference=cached, found reference={self.reference}; set "
                "align.reference=cached, or leave reference_cache out"
            )
        return self

    @model_validator(mode="after")
    def _rounds(self) -> "AlignConfig":
        if self.sft_between and self.rounds == 1:
            raise ValueError(
                f"sft_between is {self.sft_between}, but there is one round; set align.rounds=2 or "
                "more, or leave sft_between out"
            )
        if self.max_steps is not None and self.max_steps < self.rounds:
            raise ValueError(
                f"max_steps is {self.max_steps} for {self.rounds} rounds; give at least a step each"
            )
        if not self.refresh_reference and self.rounds > 1 and self.reference == "adapter_off":
            raise ValueError(
                "refresh_reference=false holds later rounds to the SFT policy, which adapter_off "
                "no longer has; set align.reference=frozen or cached"
            )
        return self

    @field_validator("objective", mode="before")
    @classmethod
    def _terms(cls, objective: Any) -> Any:
        if isinstance(objective, str):
            return objective
        if not isinstance(objective, dict) or not objective:
            raise ValueError(
                f"expected a name such as s_dpo, or weights such as {{mult_dpo: 1.0, sft: 0.1}}; "
                f"found {objective!r}"
            )
        weights = {}
        for name, weight in objective.items():
            try:
                weights[str(name)] = float(weight)  # YAML reads 1e-3 as text
            except (TypeError, ValueError):
                weights[str(name)] = math.nan
            if not 0 < weights[str(name)] < math.inf:
                raise ValueError(f"the weight of {name} is {weight!r}; expected a number above 0")
        return weights
