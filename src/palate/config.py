"""The configuration of a run: one YAML file, checked whole before anything starts."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from palate.errors import ConfigError, did_you_mean

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
    k_core: int = Field(default=5, ge=1)
    """Least interactions of every user and item; 1 keeps all."""
    split: Literal["leave_one_out", "global_time"] = "leave_one_out"
    """Hold out each user's last liked items, or everything after two moments."""
    fractions: tuple[float, float] = (0.8, 0.9)
    """Shares of the log before validation and before test, for global_time."""
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


class PolicyConfig(Section):
    """The recommender to train."""

    base: str = "tiny"
    """tiny or small (made from scratch), a folder, or a Hugging Face name."""
    prompts: str = "history"
    """history, history_and_candidates, or a file of templates."""
    max_history: int = Field(default=10, ge=1)
    """Most recent items a prompt may hold."""


class TrainingOptions(Section):
    """How a stage trains; the same for imitation and alignment."""

    epochs: float = Field(default=10, gt=0)
    """Passes over the training examples, at most."""
    max_steps: int | None = Field(default=None, gt=0)
    """Optimiser steps, at most; overrides `epochs`."""
    batch_size: int = Field(default=32, gt=0)
    """Examples in a batch: histories in imitation, contexts in alignment."""
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


class AlignConfig(TrainingOptions):
    """Preference optimisation of the imitating policy."""

    epochs: float = Field(default=3, gt=0)
    """Passes over the contexts, at most."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Largest learning rate."""
    objective: str = "s_dpo"
    """dpo, s_dpo or mult_dpo."""
    beta: float = Field(default=1.0, gt=0)
    """Inverse temperature: larger keeps nearer to the reference."""
    reference: str = "frozen"
    """What the policy is held to."""
    negatives: dict[str, int] = Field(default={"uniform": 10}, min_length=1)
    """Sampler → negatives per context."""
    exclude_history: bool = True
    """Never draw an item of the history as a negative; `observed` then draws the dislikes that
    come later in training."""


class EvaluationConfig(Section):
    """How the stages are compared."""

    protocols: list[Literal["catalogue", "candidates"]] = Field(
        default=["catalogue", "candidates"], min_length=1
    )
    """Rank among all items, among sampled candidates, or both."""
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


def load_config(path: Path, changes: list[str] | None = None) -> RunConfig:
    """A configuration from YAML, with changes such as "align.beta=0.5" laid over it.

    Raises:
        ConfigError: the file is missing or not YAML, or anything in it is wrong; all problems are
            named at once.
    """
    if not path.is_file():
        near = get_close_matches(str(path), [str(p) for p in path.parent.glob("*.yaml")], n=1)
        raise ConfigError(f"{path} does not exist.{f' Did you mean {near[0]}?' if near else ''}")
    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path} is not readable as YAML: {line}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no keys; expected sections such as data: and align:.")
    for change in changes or []:
        _lay_over(content, change)
    return parse_config(content)


def parse_config(content: dict[str, Any]) -> RunConfig:
    """A checked configuration from nested dictionaries; every problem is in one ConfigError."""
    problems, config = [], RunConfig()
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        problems = [_problem(entry) for entry in error.errors()]
    problems += _unknown_names(content)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _unknown_names(content: dict[str, Any]) -> list[str]:
    """What only the registries can tell: names of sources, samplers, objectives, references."""
    from palate.data.sources import check_options, sources
    from palate.negatives import samplers
    from palate.objectives import objectives
    from palate.policies.reference import REFERENCES

    sections = {"data": vars(DataConfig()), "align": vars(AlignConfig())}
    for name in sections:
        if isinstance(content.get(name), dict):
            sections[name] = {**sections[name], **content[name]}
    data, align = sections["data"], sections["align"]
    negatives = align["negatives"] if isinstance(align["negatives"], dict) else {}
    problems = []
    for key, name, known in [
        ("data.source", data["source"], sources()),
        ("align.objective", align["objective"], objectives()),
        ("align.reference", align["reference"], REFERENCES),
        *[(f"align.negatives.{name}", name, samplers()) for name in negatives],
    ]:
        if isinstance(name, str) and name not in known:
            problems.append(f"{key}: '{name}' is unknown.{did_you_mean(name, known)}")
    problems += [
        f"align.negatives.{name}: {count} negatives; expected at least 1."
        for name, count in negatives.items()
        if isinstance(count, int) and count < 1
    ]
    if data["source"] in sources() and isinstance(data["options"], dict):
        path = {} if data["path"] is None else {"path": data["path"]}
        problems += check_options(data["source"], {**path, **data["options"]})
    return problems


def source_arguments(config: RunConfig) -> dict[str, Any]:
    """What the source is called with; a source that takes a seed gets the run's unless given."""
    from palate.data.sources import source_options

    known = source_options(config.data.source)
    given = {} if config.data.path is None else {"path": config.data.path}
    seed = {"seed": config.seed} if "seed" in known else {}
    return {**seed, **given, **config.data.options}


def _problem(entry: Any) -> str:
    """One sentence for one of pydantic's complaints."""
    where = ".".join(str(part) for part in entry["loc"])
    found = entry.get("input")
    if entry["type"] == "extra_forbidden":
        section: Any = RunConfig
        for part in entry["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        hint = did_you_mean(entry["loc"][-1], section.model_fields)
        return f"{where}: there is no such key.{hint}"
    if isinstance(found, dict) and entry["type"] == "value_error":
        return f"{where}: {entry['msg'].removeprefix('Value error, ')}."
    message = entry["msg"][0].lower() + entry["msg"][1:]
    return f"{where}: {message}; found {found!r}."


def _lay_over(content: dict[str, Any], change: str) -> None:
    key, separator, value = change.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {change}: expected key=value, such as align.beta=0.5.")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"--set {change}: '{section}' is a value and has no parts.")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {change}: '{value}' is not a YAML value.") from error
