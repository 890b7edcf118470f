"""The backbone of a sequence policy: a causal transformer over the items of a history.

Every position sees itself and what came before, so one pass answers for all moments of a history,
and padding on the right is never seen by what is real.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.policies.sequence.sparse_experts import SparseFeedForward


class CausalEncoder(nn.Module):
    """Item vectors (R, L, d) → what is known after each of them (R, L, d).

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

    def forward(self, vectors: Tensor, real: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """What is known after each item, and the router logits of each layer with experts.

        Args:
            vectors: (R, L, d).
            real: (R, L) which places hold an item, where there are experts.

        Returns:
            (R, L, d), and (real places, experts) for each such layer.
        """
        places = torch.arange(vectors.shape[1], device=vectors.device)
        state = self.dropout(self.norm(vectors + self.positions(places)))
        routed = []
        for block in self.blocks:
            state, logits = block(state, real)
            if logits is not None:
                routed.append(logits)
        return state, routed


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

    def forward(self, state: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(R, L, d) → (R, L, d), and the router's logits where there are experts."""
        state = self.attention_norm(state + self.attention(state))
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

    def forward(self, state: Tensor) -> Tensor:
        """(R, L, d) → (R, L, d)."""
        rows, length, hidden = state.shape
        projected = self.queries_keys_values(state).view(rows, length, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=dropout, is_causal=True
        )
        return self.dropout(self.output(mixed.transpose(1, 2).reshape(rows, length, hidden)))


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
