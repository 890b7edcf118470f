"""An alignment step of a language model: the token tree against copies of the prompt.

    python benchmarks/language_step.py [--quick] [--json PATH] [--data ../shared/data/lastfm]

Prompts are those of the Last.fm windows: ten artists heard, twenty candidates listed. A step is a
batch of 4 contexts with one positive and N negatives: forward, S-DPO against a frozen reference,
backward, AdamW. Compared, in turn in one process, on the same contexts, weights and threads:

* *copies*, as released trainers do it: every candidate a row of its own with the whole prompt,
  padded to the longest; logits and their log-softmax at all positions; the reference a second
  forward pass over the same rows;
* *tree*: `LanguagePolicy` as it trains, the reference live or with its log-probabilities known;
* *imitation*: an SFT step on the positives of the same contexts.

The allocator keeps freed memory (the script starts itself again with that setting; --allocator
default leaves it as it is). Peak memory is measured in processes of their own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from measuring import conditions, flags, in_turn, publish
from torch import Tensor

from palate.data.contexts import Context
from palate.objectives import CandidateScores, s_dpo
from palate.policies import LanguagePolicy

KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_MMAP_THRESHOLD_": str(2**34)}
CONTEXTS, HISTORY, LISTED = 4, 10, 20
NEGATIVES = (1, 5, 15, 19)
KNOWN, LIVE, COPIES, IMITATION = "tree, reference known", "tree", "copies", "imitation"


def main() -> None:
    """Measure, print, and write the table."""
    parser = flags(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/lastfm"))
    parser.add_argument("--size", default="small", help="tiny or small")
    parser.add_argument("--allocator", choices=["keeping", "default"], default="keeping")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.allocator == "keeping" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEPING})
    if given.worker:
        side, negatives = given.worker.rsplit(":", 1)
        print(json.dumps(memory_of(Steps(given, int(negatives)), side)))
        return
    counts = (1, 15) if given.quick else NEGATIVES
    turns = 1 if given.quick else 3
    figures: dict[str, Any] = {"matrix rate": matrix_rate()}
    for negatives in counts:
        steps = Steps(given, negatives)
        steps.check()
        seconds = in_turn(steps.sides(), turns)
        figures[str(negatives)] = {"seconds": seconds, **steps.sizes()}
        told = {side: f"{statistics.median(values):.2f} s" for side, values in seconds.items()}
        print(f"N = {negatives}: {told}", file=sys.stderr)
    figures["memory"] = {side: in_a_process(given, f"{side}:15") for side in (COPIES, LIVE, KNOWN)}
    publish(report(figures, counts, turns, given), figures, given, f"language_step_{given.size}")


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
        self.policy = LanguagePolicy.create(
            given.size, items, "history_and_candidates", HISTORY, seed=0
        )
        self.policy.model.train()
        self.reference = LanguagePolicy.create(
            given.size, items, "history_and_candidates", HISTORY, seed=0
        ).model.eval()
        self.optimiser = torch.optim.AdamW(self.policy.model.parameters(), lr=1e-5)
        whole = [row for row in rows if row["historyList"].count("::") == HISTORY - 1]
        chosen = whole[:: len(whole) // CONTEXTS][:CONTEXTS]
        contexts = [_context(index, row, ids) for index, row in enumerate(chosen)]
        listed = [[ids[t] for t in row["itemList"]] for row in chosen]
        self.item_ids = np.array(
            [
                [int(c.positives[0]), *[i for i in row if i != c.positives[0]][:negatives]]
                for c, row in zip(contexts, listed, strict=True)
            ]
        )
        self.levels = torch.zeros(self.item_ids.shape, dtype=torch.long)
        self.levels[:, 0] = 1
        self.tree = self.policy.collate(contexts, self.item_ids)
        self.positives = self.policy.collate(contexts, self.item_ids[:, :1])
        prompter = self.policy.prompter
        prompts = [self.policy.prompt_tokens(c) for c in contexts]
        answers = [[prompter.title_tokens[i] for i in row] for row in self.item_ids]
        self.copies = _copies(prompts, answers, prompter.end, self.policy.pad)
        with torch.no_grad():
            self.known = self.policy.log_probs(self.tree, self.reference).log_probs

    def check(self) -> None:
        """Both sides compute the same scores."""
        with torch.no_grad():
            other = _log_probs_of_copies(self.reference, self.copies)
        torch.testing.assert_close(self.known, other, atol=1e-3, rtol=0)

    def sides(self) -> dict[str, Callable[[], None]]:
        """Name → one step."""
        return {
            COPIES: self._copies_step,
            LIVE: partial(self._tree_step, live=True),
            KNOWN: partial(self._tree_step, live=False),
            IMITATION: self._imitation_step,
        }

    def sizes(self) -> dict[str, int]:
        """Tokens fed by each side in a forward pass, padding included, and nodes of the trees."""
        alone = self.positives["input_ids"]
        return {
            "copies": self.copies["input_ids"].numel(),
            "tree": self.tree["input_ids"].numel(),
            "nodes": int((self.tree["subtree_end"] > 0).sum())
            - int((self.tree["input_ids"] == self.policy.pad).sum()),
            "imitation": alone.numel(),
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


def matrix_rate() -> float:
    """Floating-point operations in a second of a large float32 matrix product, the best of ten."""
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(times)


def memory_of(steps: Steps, side: str) -> dict[str, float]:
    """MiB resident after a first step of imitation, and at the peak of two steps."""
    steps.sides()[IMITATION]()  # the optimiser's state belongs to what is loaded
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(2):
        steps.sides()[side]()
    return {"loaded": before, "peak": _resident("VmHWM")}


def in_a_process(given: argparse.Namespace, worker: str) -> dict[str, float]:
    """One side alone in a fresh process."""
    command = [sys.executable, __file__, "--worker", worker, "--size", given.size]
    command += ["--data", str(given.data), "--allocator", "default"]  # gives back what is free
    environment = {key: value for key, value in os.environ.items() if key not in KEEPING}
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}; this benchmark needs Linux.")


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
    import gzip

    if not path.exists():
        raise SystemExit(f"{path} does not exist; give the folder of the Last.fm files as --data.")
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def report(
    figures: dict[str, Any], counts: tuple[int, ...], turns: int, given: argparse.Namespace
) -> str:
    """The tables as Markdown."""

    def ratio(negatives: int, over: str, under: str) -> float:
        seconds = figures[str(negatives)]["seconds"]
        return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))

    def row(n: int) -> str:
        one = figures[str(n)]
        middle = {side: statistics.median(values) for side, values in one["seconds"].items()}
        allowed = one["copies"] / one["tree"]
        return (
            f"| {n} | {middle[COPIES]:.2f} | {middle[LIVE]:.2f} | {middle[KNOWN]:.2f} | "
            f"{ratio(n, COPIES, LIVE):.1f} × | {ratio(n, COPIES, KNOWN):.1f} × | "
            f"{one['copies']:,} | {one['tree']:,} | {one['nodes']:,} | {allowed:.1f} × |"
        )

    most = figures[str(counts[-1])]
    rate = most["matrix flops of copies"] / statistics.median(most["seconds"][COPIES])
    growth = ratio_of_growth(figures, counts)
    memory = figures["memory"]
    added = {side: one["peak"] - one["loaded"] for side, one in memory.items()}
    return f"""# An alignment step of a language model

A step with 15 negatives and a known reference costs {ratio(15, KNOWN, IMITATION):.2f} × an SFT \
step on the same batch.

| negatives | copies, s | tree, s | tree, reference known, s | copies / tree | copies / known | \
tokens fed, copies | tokens fed, tree | nodes | by tokens |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(map(row, counts))}

Medians of {turns} turn{"s" if turns > 1 else ""}, ratios within a turn; `{given.size}` model, \
{CONTEXTS} contexts, {LISTED} candidates in the prompt and a history of {HISTORY}; float32. \
"By tokens" is what the counts of fed tokens allow if both sides were equally fast per token with \
a live reference.

* Copies reach {rate / 1e9:.0f} of the {figures["matrix rate"] / 1e9:.0f} GFLOP/s of a large \
float32 matrix product ({rate / figures["matrix rate"]:.0%}), counting matrix products alone.
* From N = {counts[0]} to N = {counts[-1]} the tree's step grows {growth[0]:.2f} ×, its fed tokens \
{growth[1]:.2f} ×.
* Peak memory above the loaded models' own, N = 15: copies {added[COPIES]:,.0f} MiB, tree \
{added[LIVE]:,.0f} MiB (1/{added[COPIES] / added[LIVE]:.0f}), tree with known reference \
{added[KNOWN]:,.0f} MiB.

Allocator: {given.allocator} freed memory{"" if given.allocator == "keeping" else " handling"}.
{conditions(given, "transformers")}"""


def ratio_of_growth(figures: dict[str, Any], counts: tuple[int, ...]) -> tuple[float, float]:
    """Growth of the tree's step and of its fed tokens from the fewest to the most negatives."""
    first, last = figures[str(counts[0])], figures[str(counts[-1])]
    seconds = [statistics.median(one["seconds"][LIVE]) for one in (first, last)]
    return seconds[1] / seconds[0], last["tree"] / first["tree"]


if __name__ == "__main__":
    main()
