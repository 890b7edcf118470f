"""Experts over the streams of a history (HM4SR, arXiv 2501.14269): what they say to each other,
and what time says to them."""

import torch
from torch import Tensor, nn


class InteractionExperts(nn.Module):
    """Each stream takes from all of them what its gate chooses.

    y_m = x_m + a_m Σ_k g_mk E_k([x_1; …; x_S]),  g_m = softmax(G_m [x_1; …; x_S])

    Args:
        start: (S,) first values of the learnt stream weights a; HM4SR has 0 for ids, 1 for
            given vectors.
        hidden: width d of the vectors.
        experts: linear experts, from all streams to d.
    """

    def __init__(self, start: list[float], hidden: int, experts: int) -> None:
        super().__init__()
        self.n_experts = experts
        self.experts = nn.Linear(len(start) * hidden, experts * hidden)
        self.gates = nn.Linear(len(start) * hidden, len(start) * experts)
        self.weights = nn.Parameter(torch.tensor(start))

    def forward(self, streams: Tensor) -> Tensor:
        """(R, L, S, d) → (R, L, S, d)."""
        *places, number, hidden = streams.shape
        joint = streams.flatten(-2)
        said = self.experts(joint).view(*places, self.n_experts, hidden)
        gates = self.gates(joint).view(*places, number, self.n_experts).softmax(dim=-1)
        return streams + self.weights[:, None] * (gates @ said)


class TimeExperts(nn.Module):
    """Time chooses how strongly each entry of each stream counts.

    y_m = x_m ⊙ Σ_k g_k s_km,  g = softmax(G t). The scales s start near 1, so that an untrained
    model reads the streams as they are.

    Args:
        number: streams S.
        hidden: width d of the vectors, those of time included.
        experts: experts, each a scale for every stream.
    """

    def __init__(self, number: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, experts)
        self.scales = nn.Parameter(1 + 0.02 * torch.randn(experts, number, hidden))

    def forward(self, streams: Tensor, times: Tensor) -> Tensor:
        """(R, L, S, d) streams and (R, L, d) times → (R, L, S, d)."""
        gates = self.gate(times).softmax(dim=-1)
        return streams * torch.einsum("rlk,ksd->rlsd", gates, self.scales)
