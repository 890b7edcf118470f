"""The sections of a configuration and their defaults."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

METRICS = r"^(loss|(hr|recall|ndcg|mrr|map)@[1-9]\d*)$"


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DataConfig(Section):
    """Where the log comes from and how it becomes contexts."""

    source: str = "simulate"
    """Name of a source; `palate sources` lists them."""
    path: str | None = None
    """File or folder of a source that reads one."""
    options: dict[str, Any] = {}
    """Further options of the source."""
    aliases: dict[str, str] = {}
    """Title as candidate rows spell it → title in the catalogue; for candidate_file."""
    k_core: int | None = Field(default=None, ge=1)
    """Least interactions of every user and item; 1 keeps all. Null: 5, or 1 where the source gives
    whole contexts."""
    split: Literal["leave_one_out", "global_time", "by_user", "given"] | None = None
    """Hold out each user's last liked items; or everything after two moments; or whole users; or
    what the source holds out. Null: the source's, by_user for dialogues, else leave_one_out."""
    fractions: tuple[float, float] = (0.8, 0.9)
    """Shares before validation and before test: of the log for global_time, of users for
    by_user."""
    validation_share: float = Field(default=1.0, gt=0, le=1)
    """For leave_one_out: share of the users whose item before the test item is held out for
    validation; the others' is trained on. 1 is the protocol of most papers."""
    levels: list[float] = Field(default=[4.0], min_length=1)
    """Rating thresholds; reaching the first makes an item liked."""
    disliked: float | None = 2.5
    """Ratings up to this are observed dislikes; null for none."""
    positives: Literal["next", "window"] = "next"
    """A context's positives: the next liked item, or all liked in the next window."""
    window: int = Field(default=5, ge=2)
    """Interactions in a window."""
    duplicates: Literal["first", "last"] = "last"
    """Which of several interactions with one item stays."""
    min_history: int = Field(default=1, ge=1)
    """Interactions that must come before a target."""

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if not 0 < self.fractions[0] < self.fractions[1] < 1:
            raise ValueError(f"fractions are {self.fractions}; expected two rising shares below 1")
        if sorted(set(self.levels)) != self.levels:
            raise ValueError(f"levels are {self.levels}; expected thresholds that rise")
        if self.disliked is not None and self.disliked >= self.levels[0]:
            raise ValueError(
                f"disliked is {self.disliked}, at or above the first of levels {self.levels}; "
                "an item cannot be both liked and disliked"
            )
        return self


class SequenceShape(Section):
    """Shape of a sequence model (SASRec)."""

    hidden: int = Field(default=64, ge=1)
    """Width of the item vectors."""
    layers: int = Field(default=2, ge=1)
    """Blocks of the encoder."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; divides hidden."""
    inner: int = Field(default=256, ge=1)
    """Width of the feed-forward layers."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Dropout in imitation; alignment has none."""

    @model_validator(mode="after")
    def _divisible(self) -> "SequenceShape":
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden is {self.hidden}, which {self.heads} heads do not divide; choose hidden "
                "as a multiple of heads"
            )
        return self


class AdapterConfig(Section):
    """LoRA: small matrices that train in place of a language model's own weights."""

    rank: int = Field(default=16, ge=1)
    """Rank of the updates."""
    alpha: int = Field(default=32, ge=1)
    """Updates are multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter in imitation; alignment has none."""
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Layers that get an adapter, such as [q_proj, v_proj]."""
    after_sft: Literal["merge", "keep"] = "merge"
    """What becomes of imitation's adapter: merged into the weights, or kept beside alignment's."""


class PolicyConfig(Section):
    """The recommender to train."""

    kind: Literal["language", "sequence"] = "language"
    """A language model that reads titles, or a sequence model that knows items by their ids."""
    base: str | None = None
    """Language: tiny (default) or small, made from scratch; a folder, or a Hugging Face name.
    Sequence: a folder that Palate saved, or null for new weights."""
    prompts: str = "history"
    """Language: history, history_and_candidates, dialogue, prompt (a text as it is), or a file of
    templates."""
    max_history: int | None = Field(default=None, ge=1)
    """Most recent items that are read. Null: 10 for language, 50 for sequence."""
    sequence: SequenceShape = SequenceShape()
    """Shape of a new sequence model."""
    adapter: AdapterConfig | None = None
    """Language: train a LoRA adapter, {} for its defaults; null trains all weights."""
    quantize: bool = False
    """Language: base weights in 4 bits (QLoRA); needs CUDA, an adapter and palate[quant]."""
    chat: bool | None = None
    """Language: prompts go through the model's chat template. Null: where it has one; false for a
    base model that merely carries one."""

    @property
    def history(self) -> int:
        """`max_history` with its default."""
        return self.max_history or {"language": 10, "sequence": 50}[self.kind]


class TrainingOptions(Section):
    """How a stage trains; the same for imitation and alignment."""

    epochs: float = Field(default=10, gt=0)
    """Passes over the training examples, at most."""
    max_steps: int | None = Field(default=None, gt=0)
    """Optimiser steps, at most; overrides `epochs`."""
    batch_size: int = Field(default=32, gt=0)
    """Examples in a batch: histories in imitation; in alignment passes over a history, each with up
    to `moments_together` contexts."""
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
    """Validation metric that chooses the checkpoint: of the ranking, or the loss (mean −log π of
    the held-out liked items), which is cheap and steady."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of matrix products; log-probabilities are always summed in fp32."""
    log_every: int = Field(default=10, gt=0)
    """Steps between lines of train.jsonl."""
    workers: int = Field(default=0, ge=0)
    """Processes that make batches; 0 makes them in the training process."""


class SFTConfig(TrainingOptions):
    """Imitation of every interaction."""

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
    objective_options: dict[str, dict[str, Any]] = {}
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
    """Sampler → negatives per context."""
    sampler_options: dict[str, dict[str, Any]] = {}
    """Sampler → its options, such as {popularity: {alpha: 0.5}, fixed: {path: negatives.csv}}."""
    exclude_history: bool = True
    """Never draw an item of the history as a negative; `observed` then draws the dislikes that
    come later in training."""
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


class EvaluationConfig(Section):
    """How the stages are compared."""

    protocols: list[Literal["catalogue", "candidates", "generation"]] = Field(
        default=["catalogue", "candidates"], min_length=1
    )
    """Rank among all items, among candidates, or see what a language model writes freely; the
    last beside one of the others."""
    candidates: int = Field(default=20, ge=2)
    """Items in a candidate list."""
    cutoffs: list[PositiveInt] = Field(default=[1, 5, 10, 20], min_length=1)
    """K of the metrics."""
    exclude_history: bool = True
    """Leave items of the history out of the catalogue."""
    test_contexts: int | None = Field(default=None, ge=1)
    """Seeded sample of test contexts; null for all."""
    validation_contexts: int | None = Field(default=200, ge=1)
    """Seeded sample of validation contexts; null for all."""
    bootstrap: int = Field(default=1000, ge=100)
    """Draws behind an interval."""
    batch_size: int = Field(default=32, ge=1)
    """Contexts scored at once."""

    @model_validator(mode="after")
    def _ranks(self) -> "EvaluationConfig":
        if self.protocols == ["generation"]:
            raise ValueError(
                "protocols has generation alone; a checkpoint is chosen by ranking, so add "
                "candidates or catalogue"
            )
        return self


class RunConfig(Section):
    """Everything a run depends on."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Names every random draw of the run."""
    device: str = "auto"
    """auto, cpu or cuda; CUDA_VISIBLE_DEVICES chooses among several."""
    trackers: list[str] = ["tensorboard"]
    """Where training is logged besides train.jsonl: tensorboard, wandb, mlflow, trackio."""
    data: DataConfig = DataConfig()
    policy: PolicyConfig = PolicyConfig()
    sft: SFTConfig = SFTConfig()
    align: AlignConfig = AlignConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def cutoffs(self) -> list[int]:
        """All cutoffs that are reported or chosen by."""
        chosen = [options.metric.partition("@")[2] for options in (self.sft, self.align)]
        return sorted({*self.evaluation.cutoffs, *(int(cutoff) for cutoff in chosen if cutoff)})
