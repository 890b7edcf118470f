"""The whole configuration, and its sections of data and evaluation."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from palate.config.policy import PolicyConfig
from palate.config.section import Section
from palate.config.training import AlignConfig, SFTConfig
from palate.data.stars import STAR_LEVELS
from palate.errors import ConfigError


def _event_name(name: Any) -> Any:
    """Events that are numbers in the log are numbers in YAML too."""
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else name


def _meaning(found: Any) -> Any:
    """A level, or one of three words."""
    is_level = isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 20
    if not is_level and found not in ("shown", "disliked", "rated"):
        raise ValueError(
            f"found {found!r}; expected a level from 0 to 20, shown, disliked or rated"
        )
    return found


Event = Annotated[str, BeforeValidator(_event_name)]
Meaning = Annotated[int | Literal["shown", "disliked", "rated"], BeforeValidator(_meaning)]


class DataConfig(Section):
    """Where the log comes from and how it becomes contexts."""

    source: str = "simulate"
    """Name of a source; `palate sources` lists them."""
    path: str | None = None
    """File or folder of a source that reads one."""
    options: dict[str, Any] = Field(default={})
    """Further options of the source."""
    aliases: dict[str, str] = Field(default={})
    """Title as candidate rows spell it → title in the catalogue; for candidate_file."""
    k_core: int | None = Field(default=None, ge=1)
    """Least interactions of every user and item; 1 keeps all. Null: 5, or 1 where the source gives
    whole contexts."""
    split: Literal["leave_one_out", "global_time", "by_user", "random", "given"] | None = None
    """Hold out each user's last liked items; or everything after two moments; or whole users; or a
    share of each user's liked items at random; or what the source holds out. Null: the source's,
    by_user for dialogues, else leave_one_out, which needs an order in time."""
    order: Literal["rows"] | None = None
    """rows: the rows of the log stand in order of time, where times are missing or equal. Null:
    only times and positions say what came first, and formats that are sequences."""
    fractions: tuple[float, float] = (0.8, 0.9)
    """Shares before validation and before test: of the log for global_time, of users for
    by_user, of each user's liked items for random."""
    validation_share: float = Field(default=1.0, gt=0, le=1)
    """For leave_one_out: share of the users whose item before the test item is held out for
    validation; the others' is trained on. 1 is the protocol of most papers."""
    levels: list[float] | None = Field(default=None, min_length=1)
    """Thresholds of ratings or weights, ascending; reaching the first makes an item liked. Null: 4
    for ratings of 0.5 to 5 stars, each of up to ten different weights; any other scale needs
    them."""
    disliked: float | Literal["auto"] | None = "auto"
    """Ratings up to this are observed dislikes; null for none. auto: 2.5 for ratings of 0.5 to 5
    stars; any other scale needs it."""
    events: dict[Event, Meaning] = Field(default={})
    """What each event of a column `event` says: a level (0: neither liked nor disliked), shown (and
    passed over), disliked, or rated (the row's rating or weight says it). A log with one kind of
    event beside skip needs none."""
    positives: Literal["next", "window"] = "next"
    """A context's positives: the next liked item, or all liked in the next window."""
    window: int = Field(default=5, ge=2)
    """Interactions in a window."""
    duplicates: Literal["strongest", "last", "first", "all"] | None = None
    """Which of several interactions with one item stays; strongest: that of the highest level, the
    latest of equals. Null: strongest where events or weights give levels, else last."""
    min_history: int = Field(default=1, ge=1)
    """Interactions that must come before a target."""

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if not 0 < self.fractions[0] < self.fractions[1] < 1:
            raise ValueError(f"fractions are {self.fractions}; expected two rising shares below 1")
        levels = list(STAR_LEVELS) if self.levels is None else self.levels
        if sorted(set(levels)) != levels:
            raise ValueError(f"levels are {levels}; expected thresholds that rise")
        if isinstance(self.disliked, float) and self.disliked >= levels[0]:
            raise ValueError(
                f"disliked is {self.disliked}, at or above the first of levels {levels}; "
                "an item cannot be both liked and disliked. Set both on the scale of your ratings"
            )
        return self

    @property
    def liked_from(self) -> float:
        """The rating from which an item counts as liked, where ratings are stars."""
        return STAR_LEVELS[0] if self.levels is None else self.levels[0]


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
    """Everything a run depends on.

    Raises:
        ConfigError: a source, sampler, objective or reference is unknown, or an option of one.
        pydantic.ValidationError: a key is unknown, or a value is of a wrong kind.
    """

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Names every random draw of the run."""
    device: str = "auto"
    """auto, cpu or cuda; CUDA_VISIBLE_DEVICES chooses among several."""
    trackers: list[str] = Field(default=["tensorboard"])
    """Where training is logged besides train.jsonl: tensorboard, wandb, mlflow, trackio."""
    data: DataConfig = DataConfig()
    policy: PolicyConfig = PolicyConfig()
    sft: SFTConfig = SFTConfig()
    align: AlignConfig = AlignConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _names(self) -> "RunConfig":
        """Names are looked up here, so that from Python too nothing is trained before."""
        from palate.config.names import unknown_names

        if problems := unknown_names(self.model_dump()):
            raise ConfigError("\n".join(problems))
        return self

    @property
    def cutoffs(self) -> list[int]:
        """All cutoffs that are reported or chosen by."""
        chosen = [options.metric.partition("@")[2] for options in (self.sft, self.align)]
        return sorted({*self.evaluation.cutoffs, *(int(cutoff) for cutoff in chosen if cutoff)})
