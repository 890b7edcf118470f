"""The backbone of a sequence policy: a causal transformer over the items of a history.

Every position sees itself and what came before, so one pass answers for all moments of a history,
and padding on the right is never seen by what is real.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.policies.sequence.sparse_experts import SparseFeedForward

Places = tuple[Tensor, Tensor]
"""(N,) rows and (N,) columns in (R, L)."""


class CausalEncoder(nn.Module):
    """Item vectors (R, L, d) → what is known after some of them (N, d).

    Args:
        hidden: width d.
        layers: number of blocks.
        heads: attention heads; divides `hidden`.
        inner: width of the feed-forward layers, or of each expert in them.
        dropout: share of activations and of attention weights dropped in training.
        max_length: longest input.
        experts: experts in each feed-forward layer; 0 for a plain one.
        experts_per_item: how many of them each place uses.
    """

    def __init__(
        self,
        hidden: int,
        layers: int,
        heads: int,
        inner: int,
        dropout: float,
        max_length: int,
        experts: int = 0,
        experts_per_item: int = 2,
    ) -> None:
        super().__init__()
        self.positions = nn.Embedding(max_length, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(hidden, heads, inner, dropout, experts, experts_per_item) for _ in range(layers)
        )

    def forward(
        self, vectors: Tensor, places: Places, real: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """What is known at some places, and the router logits of each layer with experts.

        Args:
            vectors: (R, L, d).
            places: what is asked. Where they are no more than the rows, the last layer leaves the
                others out.
            real: (R, L) which places hold an item, where there are experts.

        Returns:
            (N, d), and (places read, experts) for each such layer.
        """
        at = torch.arange(vectors.shape[1], device=vectors.device)
        state = self.dropout(self.norm(vectors + self.positions(at)))
        few = len(places[0]) <= len(vectors)
        routed = []
        for block in self.blocks:
            is_last = block is self.blocks[-1]
            state, logits = block(state, real, places if few and is_last else None)
            if logits is not None:
                routed.append(logits)
        return state if few else state[places], routed


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each added to its input and normalised."""

    def __init__(
        self, hidden: int, heads: int, inner: int, dropout: float, experts: int, per_item: int
    ) -> None:
        super().__init__()
        self.attention = CausalAttention(hidden, heads, dropout)
        self.feed_forward = (
            SparseFeedForward(hidden, inner, dropout, experts, per_item)
            if experts
            else FeedForward(hidden, inner, dropout)
        )
        self.attention_norm = nn.LayerNorm(hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden)

    def forward(
        self, state: Tensor, real: Tensor | None, places: Places | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(R, L, d) → (R, L, d) or (N, d) at the places, and the router's logits where there are
        experts."""
        attended = self.attention(state, places)
        if places is not None:
            state, real = state[places], None if real is None else real[places]
        state = self.attention_norm(state + attended)
        said, logits = self.feed_forward(state, real)
        return self.feed_forward_norm(state + said), logits


class CausalAttention(nn.Module):
    """Multi-head self-attention in which no position sees a later one."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.attention_dropout = dropout
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, places: Places | None = None) -> Tensor:
        """(R, L, d) → (R, L, d), or (N, d) at the places."""
        if places is not None:
            return self._at(state, *places)
        rows, length, hidden = state.shape
        projected = self.queries_keys_values(state).view(rows, length, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=dropout, is_causal=True
        )
        return self.dropout(self.output(mixed.transpose(1, 2).reshape(rows, length, hidden)))

    def _at(self, state: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(N, d): one query each, against the keys and values of its row up to its column."""
        hidden, length = state.shape[2], state.shape[1]
        of_queries, of_others = self.queries_keys_values.weight.split([hidden, 2 * hidden])
        query_bias, other_bias = self.queries_keys_values.bias.split([hidden, 2 * hidden])
        queries = F.linear(state[rows, columns], of_queries, query_bias)
        others = F.linear(state, of_others, other_bias)[rows]
        keys, values = others.view(len(rows), length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = torch.arange(length, device=state.device) <= columns[:, None]
        mixed = F.scaled_dot_product_attention(
            queries.view(len(rows), self.heads, 1, -1),
            keys,
            values,
            attn_mask=seen[:, None, None],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        return self.dropout(self.output(mixed.reshape(len(rows), hidden)))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, position by position."""

    def __init__(self, hidden: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, inner)
        self.outer = nn.Linear(inner, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, real: Tensor | None = None) -> tuple[Tensor, None]:
        """(…, d) → (…, d), and no router's logits; `real` is for layers with experts."""
        return self.dropout(self.outer(F.gelu(self.inner(state)))), None
