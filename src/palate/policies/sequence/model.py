"""The sequence model: streams of item vectors, one causal encoder each, and a score for all items.

With the stream "id" alone it is SASRec (Kang and McAuley, ICDM 2018); with text, image and the
experts of interaction and time it is HM4SR (WWW 2025, arXiv 2501.14269).
"""

from collections.abc import Iterator
from dataclasses import field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from palate.policies.sequence.auxiliary import category_losses, contrast, masked_places
from palate.policies.sequence.cross_entropy import cross_entropy, log_probs
from palate.policies.sequence.encoder import CausalEncoder
from palate.policies.sequence.experts import InteractionExperts, TimeExperts
from palate.policies.sequence.moments import Moments
from palate.policies.sequence.sampled_softmax import Proposals, sampled_cross_entropy
from palate.policies.sequence.sparse_experts import balance_loss, router_z_loss
from palate.policies.sequence.streams import ProjectedVectors, Stream
from palate.policies.sequence.times import UNKNOWN, TimeVectors


class SequenceConfig(PreTrainedConfig):
    """Shape of a sequence model, and the losses it is trained with.

    Args:
        n_items: size of the catalogue.
        max_history: most recent items the model reads.
        hidden: width of the item vectors.
        layers: blocks of each encoder.
        heads: attention heads.
        inner: width of the feed-forward layers, or of each expert in them.
        dropout: dropout in training.
        streams: views of an item: "id", "text", "image".
        vector_sizes: stream → width of its given vectors.
        interaction_experts: experts over all streams; 0 for none.
        time_experts: experts that time chooses from; 0 for none.
        absolute_time: whether the days since the first item count besides the intervals.
        experts: experts in each feed-forward layer; 0 for a plain one.
        experts_per_item: how many of them each place uses.
        balance_weight: of the load-balancing loss of these experts.
        router_z_weight: of their routers' z-loss.
        contrast_weight: of the contrast of state and item.
        category_weight: of the prediction of the next item's categories.
        placeholder_weight: of the contrast with histories whose text and images are hidden.
        n_categories: categories in all.
        most_categories: categories of one item, at most.
        sampled_softmax: items that stand for a larger catalogue in training; None for all.
        sample_by: how they are drawn.
        seed: names the draws.
    """

    model_type = "palate_sequence"

    n_items: int = 1
    max_history: int = 50
    hidden: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    dropout: float = 0.5
    streams: list[str] = field(default_factory=lambda: ["id"])
    vector_sizes: dict[str, int] = field(default_factory=dict)
    interaction_experts: int = 0
    time_experts: int = 0
    absolute_time: bool = False
    experts: int = 0
    experts_per_item: int = 2
    balance_weight: float = 0.01
    router_z_weight: float = 0.001
    contrast_weight: float = 0.0
    category_weight: float = 0.0
    placeholder_weight: float = 0.0
    n_categories: int = 0
    most_categories: int = 0
    sampled_softmax: int | None = None
    sample_by: Literal["uniform", "popularity"] = "uniform"
    seed: int = 0

    @property
    def reads_times(self) -> bool:
        """Whether anything depends on when items were consumed."""
        return self.time_experts > 0 or self.placeholder_weight > 0


class Read(NamedTuple):
    """What the encoders say.

    Attributes:
        states: (N, S, d) what each stream knows at the places.
        routed: for each feed-forward layer with experts its router's logits (items read, E),
            stream by stream.
    """

    states: Tensor
    routed: list[Tensor]


class SequenceModel(PreTrainedModel):
    """Scores every item of the catalogue at chosen places of some histories."""

    config_class = SequenceConfig

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        width = config.hidden
        self.streams = nn.ModuleDict({name: _stream(name, config) for name in config.streams})
        if config.interaction_experts:
            start = [float(name != "id") for name in config.streams]
            self.interaction = InteractionExperts(start, width, config.interaction_experts)
        if config.reads_times:
            self.times = TimeVectors(width, config.absolute_time)
        if config.time_experts:
            self.time_experts = TimeExperts(len(config.streams), width, config.time_experts)
        if config.placeholder_weight:
            self.placeholders = nn.ModuleDict(
                {name: nn.Linear(width, width) for name in config.streams if name != "id"}
            )
        if config.category_weight:
            self.category_logits = nn.Linear(len(config.streams) * width, config.n_categories)
            none = torch.full((config.n_items, config.most_categories), -1)
            self.categories: Tensor
            self.register_buffer("categories", none)
        if config.sampled_softmax:
            self.proposals = Proposals(config.n_items, config.sampled_softmax, config.seed)
        self.post_init()

    def forward(
        self,
        history: Tensor,
        rows: Tensor,
        columns: Tensor,
        intervals: Tensor | None = None,
        days: Tensor | None = None,
        item_ids: Tensor | None = None,
        target_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits over the catalogue; a softmax of them is π(item | history).

        Args:
            history, rows, columns, intervals, days: the places to answer at; see `Moments`.
            item_ids: (N, K) items whose log-probabilities are wanted in place of all logits.
            target_ids: (N,) items whose losses are wanted: −log π, and in training all auxiliary
                losses.

        Returns:
            (N, items) logits, the sum over the streams; or (N, K) log-probabilities; or (N,)
            losses.
        """
        moments = Moments(history, rows, columns, intervals, days)
        read = self.read(moments)
        if target_ids is not None and self.training:
            return self._training_losses(moments, read, target_ids)
        states, table = read.states.flatten(1), self.item_vectors()
        if target_ids is not None:
            return cross_entropy(states, table, target_ids)
        if item_ids is not None:
            return log_probs(states, table, item_ids)
        return states @ table.T

    def read(self, moments: Moments, hidden: Tensor | None = None) -> Read:
        """What is known at some places.

        Args:
            moments: the places.
            hidden: (R, L) items whose text and image a placeholder hides; None for none.
        """
        number = moments.parts_worth()
        if number == 1:
            return self._read_together(moments, hidden)
        asked, states, routed = [], [], []
        for part in moments.parts(number):
            length = part.moments.history.shape[1]
            of_part = None if hidden is None else hidden[part.histories, :length]
            read = self._read_together(part.moments, of_part)
            asked.append(part.asked)
            states.append(read.states)
            routed.append(read.routed)
        in_order = torch.cat(asked).argsort()
        return Read(
            torch.cat(states)[in_order], [torch.cat(of) for of in zip(*routed, strict=True)]
        )

    def _read_together(self, moments: Moments, hidden: Tensor | None) -> Read:
        """`read` in one piece."""
        streams = self._vectors(moments, hidden)
        real = None
        if self.config.experts:
            places = torch.arange(moments.history.shape[1], device=streams.device)
            real = places < moments.lengths()[:, None]
        states, routed = [], []
        for number, stream in enumerate(self._streams()):
            asked = (moments.rows, moments.columns)
            state, logits = stream.encoder(streams[:, :, number], asked, real)
            states.append(state)
            routed += logits
        return Read(torch.stack(states, dim=1), routed)

    def item_vectors(self, item_ids: Tensor | None = None) -> Tensor:
        """(items, S·d) vectors of the catalogue, or of (M,) items: those of all streams abreast."""
        of = [stream.vectors for stream in self._streams()]
        found = [one.weight if item_ids is None else one(item_ids) for one in of]
        return torch.cat(found, dim=1) if len(found) > 1 else found[0]

    def _vectors(self, moments: Moments, hidden: Tensor | None) -> Tensor:
        """(R, L, S, d) what the encoders read."""
        found = {name: s.vectors(moments.history) for name, s in self._named_streams()}
        times = None
        if self.config.reads_times:
            unknown = torch.full_like(moments.history, UNKNOWN)
            intervals = unknown if moments.intervals is None else moments.intervals
            days = unknown.float() if moments.days is None else moments.days
            times = self.times(intervals, days)
        if hidden is not None:
            for name, placeholder in self.placeholders.items():
                found[name] = torch.where(hidden[..., None], placeholder(times), found[name])
        streams = torch.stack(list(found.values()), dim=2)
        if self.config.interaction_experts:
            streams = self.interaction(streams)
        if self.config.time_experts:
            streams = self.time_experts(streams, times)
        return streams

    def _training_losses(self, moments: Moments, read: Read, targets: Tensor) -> Tensor:
        """(N,) cross-entropy, over a sample where the catalogue is large, and what goes with it."""
        config = self.config
        losses = self._cross_entropy(read.states.flatten(1), targets)
        if config.experts:
            for logits in read.routed:
                balance = balance_loss(logits, config.experts_per_item)
                losses = losses + config.balance_weight * balance
                losses = losses + config.router_z_weight * router_z_loss(logits)
        if config.contrast_weight:
            losses = losses + config.contrast_weight * self._item_contrast(read.states, targets)
        if config.category_weight:
            logits = self.category_logits(read.states.flatten(1))
            found = category_losses(logits, self.categories[targets])
            losses = losses + config.category_weight * found
        if config.placeholder_weight:
            found = self._placeholder_contrast(moments, read.states)
            losses = losses + config.placeholder_weight * found
        return losses

    def _cross_entropy(self, states: Tensor, targets: Tensor) -> Tensor:
        samples = self.config.sampled_softmax
        if not samples or samples >= self.config.n_items:
            return cross_entropy(states, self.item_vectors(), targets)
        drawn, log_q = self.proposals()
        is_target = targets[:, None] == drawn
        of_targets, of_drawn = self.item_vectors(targets), self.item_vectors(drawn)
        return sampled_cross_entropy(states, of_targets, of_drawn, log_q, is_target)

    def _item_contrast(self, states: Tensor, targets: Tensor) -> Tensor:
        """(N,) each stream's state against the batch's targets, averaged over the streams."""
        items, own = targets.unique(return_inverse=True)
        vectors = self.item_vectors(items).view(len(items), *states.shape[1:])
        found = [contrast(states[:, s], vectors[:, s], own) for s in range(states.shape[1])]
        return torch.stack(found).mean(dim=0)

    def _placeholder_contrast(self, moments: Moments, states: Tensor) -> Tensor:
        """() each history's end against the ends of histories with hidden text and images."""
        is_end = moments.columns == moments.lengths()[moments.rows] - 1
        ends = moments._replace(rows=moments.rows[is_end], columns=moments.columns[is_end])
        whole = states[is_end]
        hidden = self.read(ends, masked_places(moments.history.shape, whole.device)).states
        own = torch.arange(len(whole), device=whole.device)
        given = [s for s, name in enumerate(self.config.streams) if name != "id"]
        found = [contrast(hidden[:, s], whole[:, s], own).mean() for s in given]
        return torch.stack(found).mean()

    def _named_streams(self) -> Iterator[tuple[str, Stream]]:
        items: Any = self.streams.items()
        return iter(items)

    def _streams(self) -> list[Stream]:
        return [stream for _, stream in self._named_streams()]

    def _init_weights(self, module: Any) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def _stream(name: str, config: SequenceConfig) -> Stream:
    encoder = CausalEncoder(
        config.hidden,
        config.layers,
        config.heads,
        config.inner,
        config.dropout,
        config.max_history,
        config.experts,
        config.experts_per_item,
    )
    if name == "id":
        return Stream(nn.Embedding(config.n_items, config.hidden), encoder)
    size = config.vector_sizes[name]
    return Stream(ProjectedVectors(config.n_items, size, config.hidden), encoder)
