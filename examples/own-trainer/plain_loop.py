"""Palate's objectives in a plain PyTorch loop: several liked items against many others.

    python examples/own-trainer/plain_loop.py

The log is made up: each user was shown 30 items, popular ones more often, and liked the 6 that fit
best. Two likes are held out. The recommender starts as a popularity list and is trained on the four
other likes against what the user passed over and 8 items drawn at random, by Mult-DPO on boundary
negatives. Printed: the share of held-out likes among the first ten that are new to the user.
"""

import copy

import torch

from palate.objectives import CandidateScores, DynamicPO

USERS, ITEMS, WIDTH = 1000, 150, 8


class Recommender(torch.nn.Module):
    def __init__(self, counts: torch.Tensor) -> None:
        super().__init__()
        self.users = torch.nn.Parameter(0.1 * torch.randn(USERS, WIDTH))
        self.items = torch.nn.Parameter(0.1 * torch.randn(ITEMS, WIDTH))
        self.bias = torch.nn.Parameter(torch.log(counts + 1))

    def forward(self, users: torch.Tensor) -> torch.Tensor:
        """log π(item | user): a softmax over the catalogue."""
        return (self.users[users] @ self.items.T + self.bias).log_softmax(dim=1)


torch.manual_seed(0)
torch.set_num_threads(1)  # of a model this small, threads would only wait for each other
taste = torch.randn(USERS, 3) @ torch.randn(3, ITEMS) + 0.5 * torch.randn(USERS, ITEMS)
shown = torch.softmax(torch.randn(ITEMS), dim=0).expand(USERS, -1).multinomial(30)
shown = shown.gather(1, taste.gather(1, shown).argsort(dim=1, descending=True))  # best first
order = torch.cat([torch.rand(USERS, 6).argsort(dim=1), torch.arange(6, 30).expand(USERS, -1)], 1)
held_out, seen = shown.gather(1, order).split([2, 28], dim=1)  # seen: 4 liked, 24 passed over

model = Recommender(torch.bincount(seen.flatten(), minlength=ITEMS))
reference = copy.deepcopy(model).requires_grad_(False)
objective = DynamicPO("mult_dpo", beta=1.0)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(20):
    for users in torch.randperm(USERS).split(50):
        items = torch.cat([seen[users], torch.randint(ITEMS, (50, 8))], dim=1)  # (B, K)
        levels = (torch.arange(36) < 4).long().repeat(50, 1)
        again = (items[:, :, None] == items[:, None, :]).tril(-1).any(dim=2)
        levels[again] = -1  # drawn, but standing further left already: padding
        s, r = (net(users).gather(1, items) for net in (model, reference))
        loss = objective(CandidateScores(s, r, levels=levels)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
for stage, net in ("before", reference), ("after", model):
    first = net(torch.arange(USERS)).detach().scatter(1, seen, -torch.inf).topk(10).indices
    hits = (held_out[:, :, None] == first[:, None]).any(dim=2)
    print(f"Recall@10 {stage}: {hits.float().mean():.4f}")
