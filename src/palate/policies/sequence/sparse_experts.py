"""A feed-forward layer of many experts of which each token uses few.

Top-k routing with the chosen gates normalised; no token is dropped. Load balance in the form of
the Switch transformer (arXiv 2101.03961, Eq. 4–6), router z-loss of ST-MoE (arXiv 2202.08906,
Eq. 5).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SparseFeedForward(nn.Module):
    """Σ_{e in top k} softmax_k(r)_e W2_e gelu(W1_e x) for each token, r = R x.

    Tokens are sorted by expert, so that an expert is two matrix products whatever the number of
    its tokens; on a CPU that is faster than filling all experts up to the fullest.

    Args:
        hidden: width d of the tokens.
        inner: width of each expert.
        dropout: share of the output dropped in training.
        experts: how many there are.
        per_item: how many each token uses.
    """

    def __init__(
        self, hidden: int, inner: int, dropout: float, experts: int = 8, per_item: int = 2
    ) -> None:
        super().__init__()
        self.per_item = per_item
        self.router = nn.Linear(hidden, experts, bias=False)
        self.inner = nn.Parameter(0.02 * torch.randn(experts, hidden, inner))
        self.inner_bias = nn.Parameter(torch.zeros(experts, inner))
        self.outer = nn.Parameter(0.02 * torch.randn(experts, inner, hidden))
        self.outer_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """What the experts say, and the router's logits.

        Args:
            state: (…, d).
            real: (…) whether a place holds a token; others use no expert and give 0.

        Returns:
            (…, d), and (tokens, experts).
        """
        flat = state.flatten(0, -2)
        (places,) = real.flatten().nonzero(as_tuple=True)
        tokens = flat[places]
        logits = self.router(tokens).float()
        best, chosen = logits.topk(self.per_item, dim=1)
        experts, order = chosen.flatten().sort(stable=True)
        token = order // self.per_item
        load = experts.bincount(minlength=logits.shape[1]).tolist()
        stacked = (self.inner, self.inner_bias, self.outer, self.outer_bias)
        weights = zip(*(one.unbind() for one in stacked), strict=True)
        read = zip(tokens[token].split(load), weights, strict=True)
        said = torch.cat([_expert(x, *of_one) for x, of_one in read])
        said = said * best.softmax(dim=1).flatten()[order, None].to(said.dtype)
        mixed = said.new_zeros(flat.shape).index_add(0, places[token], said)
        return self.dropout(mixed.view_as(state)), logits


def _expert(
    tokens: Tensor, inner: Tensor, inner_bias: Tensor, outer: Tensor, outer_bias: Tensor
) -> Tensor:
    between = F.gelu(torch.addmm(inner_bias, tokens, inner))
    return torch.addmm(outer_bias, between, outer)


def load_counts(logits: Tensor, per_item: int) -> Tensor:
    """(tokens, experts) router logits → (experts,) how many tokens choose each."""
    return logits.topk(per_item, dim=1).indices.flatten().bincount(minlength=logits.shape[1])


def balance_loss(logits: Tensor, per_item: int) -> Tensor:
    """E Σ_e (share of the choices of e) (mean probability of e): 1 for an even load."""
    counts = load_counts(logits, per_item)
    shares = counts / counts.sum()
    return logits.shape[1] * (shares * logits.softmax(dim=1).mean(dim=0)).sum()


def router_z_loss(logits: Tensor) -> Tensor:
    """Mean squared logsumexp of the router's logits: large logits make rounding choose."""
    return logits.logsumexp(dim=1).square().mean()


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Parameters of a model: all of them, and those that one token uses."""
    total = sum(weights.numel() for weights in model.parameters())
    idle = 0
    for module in model.modules():
        if isinstance(module, SparseFeedForward):
            stacked = (module.inner, module.inner_bias, module.outer, module.outer_bias)
            one = sum(weights[0].numel() for weights in stacked)
            idle += (len(module.inner) - module.per_item) * one
    return total, total - idle
