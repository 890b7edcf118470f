"""The section of the recommender that is trained."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from palate.config.section import Section
from palate.config.vectors import TextVectorsConfig, VectorsConfig


class SequenceShape(Section):
    """Shape of a sequence model: SASRec, unless streams and experts are added.

    HM4SR (arXiv 2501.14269) has streams [id, text, image], interaction_experts and time_experts 4,
    and the three weights of contrast, category and placeholder above 0.
    """

    hidden: int = Field(default=64, ge=1)
    """Width of the item vectors."""
    layers: int = Field(default=2, ge=1)
    """Blocks of the encoder."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; divides hidden."""
    inner: int = Field(default=256, ge=1)
    """Width of the feed-forward layers, or of each expert in them."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Dropout in imitation; alignment has none."""
    streams: list[Literal["id", "text", "image"]] = Field(default=["id"], min_length=1)
    """Views of an item, with an encoder each: a learnt vector for its id, and the text and image
    vectors of policy.vectors."""
    interaction_experts: int = Field(default=0, ge=0)
    """Experts by which streams learn from each other; 0 for none."""
    time_experts: int = Field(default=0, ge=0)
    """Experts, chosen by the time between items, that scale the streams; 0 for none."""
    absolute_time: bool = False
    """Let the days since the first item choose too."""
    experts: int = Field(default=0, ge=0)
    """Experts in each feed-forward layer, such as 8; 0 for a plain layer."""
    experts_per_item: int = Field(default=2, ge=1)
    """How many of these experts each item uses."""
    balance_weight: float = Field(default=0.01, ge=0)
    """Weight of the loss by which these experts are used alike."""
    router_z_weight: float = Field(default=0.001, ge=0)
    """Weight of the loss that keeps the choice of experts from hardening."""
    contrast_weight: float = Field(default=0.0, ge=0)
    """Weight of telling a history's next item from the others of the batch."""
    category_weight: float = Field(default=0.0, ge=0)
    """Weight of predicting the next item's categories (column genres, genre, categories,
    category or brand)."""
    placeholder_weight: float = Field(default=0.0, ge=0)
    """Weight of knowing a history again when 30 % of its texts and images are hidden."""
    sampled_softmax: int | None = Field(default=None, ge=1)
    """Items that imitation draws in each step to stand for a catalogue that is larger; null for
    the whole catalogue, which takes time but no more memory."""
    sample_by: Literal["uniform", "popularity"] = "uniform"
    """How they are drawn; the loss is corrected for it."""

    @model_validator(mode="after")
    def _consistent(self) -> "SequenceShape":
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden is {self.hidden}, which {self.heads} heads do not divide; choose hidden "
                "as a multiple of heads"
            )
        if len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams are {self.streams}; name each once")
        if self.interaction_experts and len(self.streams) == 1:
            raise ValueError(
                f"interaction_experts is {self.interaction_experts}, but {self.streams[0]} is the "
                "only stream; add one to streams, or set interaction_experts to 0"
            )
        if self.placeholder_weight and self.streams == ["id"]:
            raise ValueError(
                f"placeholder_weight is {self.placeholder_weight}, but there is neither text nor "
                "image to hide; add one to streams, or set placeholder_weight to 0"
            )
        if self.absolute_time and not (self.time_experts or self.placeholder_weight):
            raise ValueError(
                "absolute_time is set, but nothing reads times; set time_experts, or absolute_time "
                "to false"
            )
        if 0 < self.experts < self.experts_per_item:
            raise ValueError(
                f"experts_per_item is {self.experts_per_item} of {self.experts} experts; choose "
                "at most as many as there are"
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


OF_OTHER_KINDS = (
    "base",
    "prompts",
    "max_history",
    "sequence",
    "vectors",
    "adapter",
    "quantize",
    "chat",
)
"""Keys that say nothing of a module of one's own."""


class PolicyConfig(Section):
    """The recommender to train."""

    kind: Literal["language", "sequence", "module"] = "language"
    """A language model that reads titles, a sequence model that knows items by their ids, or a
    torch module of your own."""
    base: str | None = None
    """Language: tiny (default) or small, made from scratch; a folder, or a Hugging Face name.
    Sequence: a folder that Palate saved, or null for new weights."""
    prompts: str = "history"
    """Language: history, history_and_candidates, dialogue, prompt (a text as it is), or a file of
    templates."""
    max_history: int | None = Field(default=None, ge=1)
    """Most recent items that are read. Null: 10 for language; 50 for sequence, or what a base
    reads."""
    sequence: SequenceShape = SequenceShape()
    """Sequence: shape of a new model; a base has its own."""
    vectors: VectorsConfig = VectorsConfig()
    """Sequence: text and image vectors of the items, for its streams text (null: TF-IDF) and
    image."""
    adapter: AdapterConfig | None = None
    """Language: train a LoRA adapter, {} for its defaults; null trains all weights."""
    quantize: bool = False
    """Language: base weights in 4 bits (QLoRA); needs CUDA, an adapter and palate[quant]."""
    chat: bool | None = None
    """Language: prompts go through the model's chat template. Null: where it has one; false for a
    base model that merely carries one."""
    factory: str | None = None
    """Module: the function that makes it, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION. It is code,
    and runs."""
    options: dict[str, Any] = Field(default={})
    """Module: what the factory takes besides the items, such as {width: 64}."""

    @model_validator(mode="after")
    def _own_module(self) -> "PolicyConfig":
        if self.kind != "module":
            if self.factory is not None or self.options:
                raise ValueError(
                    f"factory and options are for kind=module, found kind={self.kind}; set "
                    "policy.kind=module, or leave them out"
                )
            return self
        where, _, function = (self.factory or "").rpartition(":")
        if not where or not function:
            raise ValueError(
                f"kind=module needs policy.factory, found {self.factory!r}; give "
                "my_model.py:FUNCTION or package.module:FUNCTION"
            )
        if where.endswith(".py"):  # a run goes on from any folder
            self.factory = f"{Path(where).expanduser().absolute()}:{function}"
        for name in OF_OTHER_KINDS:
            if getattr(self, name) != PolicyConfig.model_fields[name].default:
                raise ValueError(
                    f"{name} is not for kind=module, whose factory decides everything; pass what "
                    "it takes as policy.options"
                )
        return self

    @model_validator(mode="after")
    def _vectors(self) -> "PolicyConfig":
        if self.kind != "sequence" and (self.vectors.text or self.vectors.image):
            raise ValueError(
                "vectors are for kind=sequence; a language model reads titles. Set "
                "policy.kind=sequence, or leave policy.vectors out"
            )
        if self.kind != "sequence" or self.base is not None:
            return self
        for name, given in (("text", self.vectors.text), ("image", self.vectors.image)):
            if given is not None and name not in self.sequence.streams:
                raise ValueError(
                    f"vectors.{name} is set, but sequence.streams is {self.sequence.streams}; add "
                    f"{name} to the streams, or leave the vectors out"
                )
        if "image" in self.sequence.streams and self.vectors.image is None:
            raise ValueError(
                f"sequence.streams is {self.sequence.streams}, but vectors.image is not set; give "
                "the path of images or their vectors, or leave image out of the streams"
            )
        if "text" in self.sequence.streams and self.vectors.text is None:
            self.vectors = VectorsConfig(text=TextVectorsConfig(), image=self.vectors.image)
        return self

    @property
    def history(self) -> int:
        """`max_history` with its default."""
        return self.max_history or {"language": 10, "sequence": 50, "module": 50}[self.kind]
