"""The sides of `language_step.py`: ways to make an alignment step of the same batch.

Copies are what released trainers of S-DPO make: every candidate a row of its own with the whole
prompt, padded to the longest; logits and their log-softmax at all positions.
"""

import argparse
import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from language_step_trl import PairTrainer
from torch import Tensor

from palate.data.contexts import Context
from palate.objectives import CandidateScores, s_dpo
from palate.policies import LanguagePolicy
from palate.policies.language.from_scratch import SIZES, Size

CONTEXTS, HISTORY, LISTED = 4, 10, 20
KNOWN, LIVE, COPIES, IMITATION = "tree, reference known", "tree", "copies", "imitation"
SIZES["100m"] = Size(hidden=768, layers=12, heads=12, inner=2432, vocabulary=4096)


class Steps:
    """One batch, a policy and its reference, and the ways to make a step of them.

    Args:
        given: flags.
        negatives: N.
    """

    def __init__(self, given: argparse.Namespace, negatives: int) -> None:
        rows = json.loads(_unzipped(given.data / "sdpo_val.json.gz"))
        titles = sorted(
            {t for row in rows for t in row["itemList"] + row["historyList"].split("::")}
        )
        ids = {title: index for index, title in enumerate(titles)}
        items = pa.table({"item_id": np.arange(len(titles)), "title": titles})
        self.policy, other = (
            LanguagePolicy.create(given.size, items, "history_and_candidates", HISTORY, seed=0)
            for _ in range(2)
        )
        self.policy.model.train()
        self.reference = other.model.eval()
        self.optimiser = torch.optim.AdamW(self.policy.model.parameters(), lr=1e-5)
        whole = [row for row in rows if row["historyList"].count("::") == HISTORY - 1]
        chosen = whole[:: len(whole) // CONTEXTS][:CONTEXTS]
        contexts = [_context(index, row, ids) for index, row in enumerate(chosen)]
        listed = [[ids[t] for t in row["itemList"]] for row in chosen]
        item_ids = np.array(
            [
                [int(c.positives[0]), *[i for i in row if i != c.positives[0]][:negatives]]
                for c, row in zip(contexts, listed, strict=True)
            ]
        )
        self.levels = torch.zeros(item_ids.shape, dtype=torch.long)
        self.levels[:, 0] = 1
        self.tree = self.policy.collate(contexts, item_ids)
        self.positives = self.policy.collate(contexts, item_ids[:, :1])
        prompter = self.policy.prompter
        prompts = [self.policy.prompt_tokens(c) for c in contexts]
        answers = [[prompter.title_tokens[i] for i in row] for row in item_ids]
        self.copies = _copies(prompts, answers, prompter.end, self.policy.pad)
        with torch.no_grad():
            self.known = self.policy.log_probs(self.tree, self.reference).log_probs
            copied = _log_probs_of_copies(self.reference, self.copies)
        torch.testing.assert_close(self.known, copied, atol=1e-3, rtol=0)
        self.pairs = None
        if given.trl:
            tokenizer = self.policy.tokenizer
            pairs = [
                {"prompt": tokenizer.decode(p[1:]), "chosen": titles[c], "rejected": titles[r]}
                for p, (c, r) in zip(prompts, item_ids[:, :2], strict=True)
            ]
            same = (self.policy.model, self.reference, self.optimiser, tokenizer)
            self.pairs = PairTrainer(*same, pairs)
            self.pairs.check(self.known[:, :2])

    def sides(self) -> dict[str, Callable[[], None]]:
        """Name → one step."""
        own = {
            COPIES: self._copies_step,
            LIVE: partial(self._tree_step, live=True),
            KNOWN: partial(self._tree_step, live=False),
            IMITATION: self._imitation_step,
        }
        return own | (self.pairs.sides() if self.pairs else {})

    def sizes(self) -> dict[str, int]:
        """Tokens fed by each side in a forward pass, padding included, nodes of the trees, and
        parameters of the model."""
        nodes = int((self.tree["subtree_end"] > 0).sum())
        return {
            "copies": self.copies["input_ids"].numel(),
            "tree": self.tree["input_ids"].numel(),
            "nodes": nodes - int((self.tree["input_ids"] == self.policy.pad).sum()),
            "imitation": self.positives["input_ids"].numel(),
            "TRL": self.pairs.batch["input_ids"].numel() if self.pairs else 0,
            "parameters": sum(w.numel() for w in self.policy.model.parameters()),
            "matrix flops of copies": _matrix_flops(self.policy.model, self.copies["input_ids"]),
        }

    def _copies_step(self) -> None:
        with torch.no_grad():
            reference = _log_probs_of_copies(self.reference, self.copies)
        policy = _log_probs_of_copies(self.policy.model, self.copies)
        self._learn(policy, reference)

    def _tree_step(self, live: bool) -> None:
        reference = self.known
        if live:
            with torch.no_grad():
                reference = self.policy.log_probs(self.tree, self.reference).log_probs
        self._learn(self.policy.log_probs(self.tree).log_probs, reference)

    def _imitation_step(self) -> None:
        (-self.policy.log_probs(self.positives).log_probs).mean().backward()
        self._move()

    def _learn(self, policy: Tensor, reference: Tensor) -> None:
        s_dpo(CandidateScores(policy, reference, levels=self.levels, check=False)).mean().backward()
        self._move()

    def _move(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad()


def _copies(prompts: list[Any], answers: list[list[Any]], end: int, pad: int) -> dict[str, Tensor]:
    """Rows of prompt, title and end token, padded on the right, with labels at the answer."""
    rows = [
        (p, np.append(t, end)) for p, titles in zip(prompts, answers, strict=True) for t in titles
    ]
    width = max(len(p) + len(t) for p, t in rows)
    input_ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for index, (prompt, title) in enumerate(rows):
        both = torch.from_numpy(np.concatenate([prompt, title]))
        input_ids[index, : len(both)] = both
        labels[index, len(prompt) : len(both)] = both[len(prompt) :]
    lengths = torch.tensor([len(p) + len(t) for p, t in rows])
    real = (torch.arange(width) < lengths[:, None]).long()
    return {"input_ids": input_ids, "labels": labels, "attention_mask": real}


def _log_probs_of_copies(model: Any, copies: dict[str, Tensor]) -> Tensor:
    """(contexts, candidates): logits everywhere, log-softmax everywhere, the labels' summed."""
    logits = model(
        input_ids=copies["input_ids"], attention_mask=copies["attention_mask"], use_cache=False
    ).logits
    labels = copies["labels"][:, 1:]
    kept = labels != -100
    log_probs = logits[:, :-1].float().log_softmax(dim=-1)
    read = log_probs.gather(2, labels.masked_fill(~kept, 0)[..., None])[..., 0]
    return (read * kept).sum(dim=1).view(CONTEXTS, -1)


def _matrix_flops(model: Any, input_ids: Tensor) -> int:
    """Operations in the matrix products of a step of copies: three passes and the reference's."""
    config, (rows, width) = model.config, input_ids.shape
    weights = sum(
        w.numel() for name, w in model.named_parameters() if w.ndim == 2 and "embed" not in name
    )
    weights += config.vocab_size * config.hidden_size  # the head, which shares the embeddings
    attention = 2 * config.num_hidden_layers * config.hidden_size * width // 2  # causal half
    return 4 * 2 * rows * width * (weights + attention)


def _context(index: int, row: dict[str, Any], ids: dict[str, int]) -> Context:
    return Context(
        context_id=index,
        user_id=index,
        history=np.array([ids[title] for title in row["historyList"].split("::")]),
        positives=np.array([ids[row["trueSelection"]]]),
        levels=np.ones(1, np.int64),
        candidates=np.array([ids[title] for title in row["itemList"]]),
    )


def _unzipped(path: Path) -> str:
    if not path.exists():
        raise SystemExit(f"{path} does not exist; give the folder of the Last.fm files as --data.")
    return gzip.decompress(path.read_bytes()).decode("utf-8")
