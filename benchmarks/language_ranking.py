"""Ranking all films of ml-latest-small: the trie of titles against every title by itself.

    OMP_NUM_THREADS=1 python benchmarks/language_ranking.py [--quick] [--json PATH] [--data FOLDER]

The model is `tiny`, imitating the log for a few hundred steps; prompts hold the last 10 films.
Three ways give every film its log-probability. *Brute force* copies the prompt before every title,
a film a row, 64 rows of like length at a time, the head only where titles are read; and once more
with logits of all positions, as a plain `model(...).logits` has them. *Flat titles* passes chunks
of titles behind the prompt's keys and values. *The trie* passes what titles share once. Where only
the ten best are wanted, `rank` leaves unread what cannot be among them, or takes beams.

Brute force takes about a minute a user. It scores all films once, to be compared with; its turns
score every tenth batch of them, and their time is scaled up by tokens.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import conditions, flags, in_turn, publish
from transformers import DynamicCache

from palate.data.contexts import Context, History
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.data.sources.movielens import movielens
from palate.policies import LanguagePolicy
from palate.policies.language import layouts
from palate.policies.language.catalogue import CHUNK_TOKENS
from palate.policies.language.item_trie import ItemTrie
from palate.policies.language.prompts import Tokens
from palate.policies.language.reading import tree_masks
from palate.policies.policy import inference, top_items

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "ml-latest-small"
TOGETHER = 10
"""Users whose prompts are read together."""
ROWS = 64
"""Rows of brute force in a batch."""
FLAT_CHUNK = 128


def main() -> None:
    """Train briefly, measure, print, and write the table."""
    parser = flags(__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="the folder of ml-latest-small")
    given = parser.parse_args()
    quick = given.quick
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        prepare(movielens(given.data), folder, Preparation(k_core=1), seed=0)
        data = Prepared(folder, window=1)
        policy = LanguagePolicy.create("tiny", data.items, "history", max_history=10, seed=0)
        imitate(policy, data, steps=100 if quick else 800)
        test = data.contexts("test")
        users = [test[place] for place in range(0, len(test), len(test) // 100)][:100]
        figures = compared(policy, users[: 2 if quick else TOGETHER], quick)
        figures |= searched(policy, users[:4] if quick else users)
    publish(report(figures, policy, given), figures, given, "language_ranking")


def imitate(policy: LanguagePolicy, data: Prepared, steps: int) -> None:
    """A short imitation of training histories, 4 windows a step."""
    log = data.contexts("train").interactions
    windows = [
        window
        for first, last in zip(log.first_row, log.split_starts["validation"], strict=False)
        if last - first > 1
        for window in policy.history_windows(History(log.items[first:last], 1))
    ]
    order = np.random.default_rng(0).permutation(len(windows))
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=3e-3, weight_decay=0.1)
    policy.model.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        chosen = [windows[order[(4 * step + row) % len(order)]] for row in range(4)]
        policy.history_losses(policy.collate_histories(chosen)).mean().backward()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    policy.model.eval()


def compared(policy: LanguagePolicy, users: Sequence[Context], quick: bool) -> dict[str, Any]:
    """Seconds per user of every way, their largest difference, and the tokens they feed."""
    prompts = [policy.prompt_tokens(user) for user in users]
    titles = policy.prompter.title_tokens
    tokens_of = np.array([len(title) for title in titles])
    by_length = np.argsort(tokens_of, kind="stable")
    batches = [by_length[place : place + ROWS] for place in range(0, len(titles), ROWS)]
    some = batches[50::100] if quick else batches[5::10]

    def fed(of: Sequence[Any]) -> float:
        return sum(
            float((len(prompt) + tokens_of[batch]).sum()) for prompt in prompts for batch in of
        )

    found: dict[str, torch.Tensor] = {}

    def keep(name: str, run: Any) -> None:
        with inference(policy.model):
            found[name] = run()

    sides = {
        "brute": partial(keep, "brute", lambda: brute(policy, prompts, some, all_logits=False)),
        "all_logits": partial(keep, "all", lambda: brute(policy, prompts, some, all_logits=True)),
        "flat": partial(keep, "flat", lambda: flat(policy, prompts, titles)),
        "trie": partial(keep, "trie", lambda: policy.catalogue_log_probs(users)),
    }
    if quick:  # without a warm-up
        seconds = {name: [timed(side)] for name, side in sides.items()}
        compared_with = some
    else:
        seconds = in_turn(sides, turns=3)
        compared_with = batches
        sides["brute"] = partial(keep, "brute", lambda: brute(policy, prompts, batches, False))
        seconds["brute, all films once"] = [timed(sides["brute"])]
    for name in ("brute", "all_logits"):
        seconds[name] = [one * fed(batches) / fed(some) for one in seconds[name]]
    columns = torch.from_numpy(np.concatenate(compared_with))
    trie = ItemTrie.of(titles)
    width = max(map(len, prompts))
    repeated = sum(len(above) for _, _, above in trie.chunks(CHUNK_TOKENS))
    return {
        "seconds": {name: [one / len(users) for one in each] for name, each in seconds.items()},
        "apart": float((found["trie"][:, columns] - found["brute"]).abs().max()),
        "flat_apart": float((found["trie"] - found["flat"]).abs().max()),
        "scored": len(columns) * len(users),
        "films": len(titles),
        "together": len(users),
        "tokens": {
            "brute": fed(batches) / len(users),
            "flat": width + int(tokens_of.sum()),
            "trie": width + len(trie) + repeated,
        },
        "prompt": float(np.mean([len(prompt) for prompt in prompts])),
    }


def timed(run: Any) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def brute(
    policy: LanguagePolicy, prompts: Sequence[Tokens], batches: Sequence[Any], all_logits: bool
) -> torch.Tensor:
    """(B, films) every title behind a copy of its prompt, padded on the right."""
    titles, end = policy.prompter.title_tokens, policy.prompter.end
    rows = []
    for prompt in prompts:
        parts = []
        for batch in batches:
            answers = [[titles[item]] for item in batch]
            laid = layouts.lay_alone([prompt] * len(batch), answers, end, policy.pad)
            if not all_logits:
                parts.append(policy.log_probs(laid).log_probs[:, 0])
                continue
            logits = policy.model(
                input_ids=laid["input_ids"], attention_mask=laid["attention_mask"]
            ).logits.log_softmax(dim=-1)
            place = laid["scored_place"]
            read = logits[
                laid["read_row"][place], laid["read_column"][place], laid["scored_target"]
            ]
            parts.append(layouts.log_probs_of(laid, read)[0][:, 0])
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def flat(
    policy: LanguagePolicy, prompts: Sequence[Tokens], titles: Sequence[Tokens]
) -> torch.Tensor:
    """(B, films) chunks of whole titles behind each prompt, as this project had it before."""
    model: Any = policy.model
    width, rows, end = max(map(len, prompts)), len(prompts), policy.prompter.end
    input_ids = np.full((rows, width), policy.pad, np.int64)
    positions, is_real = np.zeros((rows, width), np.int64), np.zeros((rows, width), bool)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = prompt
        positions[row, width - len(prompt) :] = np.arange(len(prompt))
        is_real[row, width - len(prompt) :] = True
    lengths = torch.tensor([[len(prompt)] for prompt in prompts])
    seen_until = np.where(is_real, np.iinfo(np.int64).max, np.arange(1, width + 1))
    prompt_end, prompt_depth = torch.from_numpy(seen_until), torch.from_numpy(positions)
    cache = DynamicCache()

    def passed(tokens: torch.Tensor, depth: torch.Tensor, masks: Any) -> torch.Tensor:
        return model(
            input_ids=tokens, position_ids=depth, attention_mask=masks, past_key_values=cache
        ).logits.float()

    masks = tree_masks(model.config, prompt_end, prompt_depth, width, torch.float32)
    first = passed(torch.from_numpy(input_ids), prompt_depth, masks)[:, -1].log_softmax(-1)
    counts = np.array([len(title) for title in titles])
    starts, filled = [0], 0
    for item, count in enumerate(counts):
        if filled and filled + count > FLAT_CHUNK:
            starts, filled = [*starts, item], 0
        filled += count
    scores = []
    for start, stop in zip(starts, [*starts[1:], len(titles)], strict=True):
        tokens = torch.from_numpy(np.concatenate(titles[start:stop]))
        owner = torch.from_numpy(np.repeat(np.arange(stop - start), counts[start:stop]))
        ends = torch.from_numpy(np.cumsum(counts[start:stop]))
        begins = ends - torch.from_numpy(counts[start:stop])
        depth = lengths + torch.arange(len(tokens)) - begins[owner]
        every_end = torch.cat([prompt_end, (width + ends[owner]).expand(rows, -1)], dim=1)
        every_depth = torch.cat([prompt_depth, depth], dim=1)
        masks = tree_masks(model.config, every_end, every_depth, len(tokens), torch.float32)
        logits = passed(tokens.expand(rows, -1), depth, masks)
        cache.crop(-len(tokens))
        following = torch.full_like(tokens, end)
        following[:-1] = torch.where(owner[1:] == owner[:-1], tokens[1:], end)
        read = logits.gather(2, following.expand(rows, -1)[..., None])[..., 0]
        read = read - logits.logsumexp(dim=-1)
        sums = torch.zeros(rows, stop - start).index_add(1, owner, read)
        scores.append(sums + first[:, tokens[begins]])
    return torch.cat(scores, dim=1)


def searched(policy: LanguagePolicy, users: Sequence[Context]) -> dict[str, Any]:
    """Recall@10 of what `rank` finds against the scores of all films, and its seconds per user."""
    groups = [users[place : place + TOGETHER] for place in range(0, len(users), TOGETHER)]
    best = []
    for group in groups:
        best.append(top_items(policy.catalogue_log_probs(group), group, 10))
    truth = np.concatenate([ranking.item_ids for ranking in best])
    scores = np.concatenate([ranking.scores for ranking in best])
    ways: dict[str, dict[str, Any]] = {"exact": {}}
    ways |= {f"beam, width {w}": {"method": "beam", "width": w} for w in (10, 20, 50, 100, 200)}
    found: dict[str, Any] = {}
    for name, options in ways.items():
        began = time.perf_counter()
        rankings = [policy.rank(group, 10, **options) for group in groups]
        seconds = (time.perf_counter() - began) / len(users)
        ids = np.concatenate([ranking.item_ids for ranking in rankings])
        recalls = [
            len(set(a) & set(b)) / 10 for a, b in zip(ids.tolist(), truth.tolist(), strict=True)
        ]
        apart = np.abs(np.concatenate([r.scores for r in rankings]) - scores).max()
        found[name] = {
            "recall": float(np.mean(recalls)),
            "first": float((ids[:, 0] == truth[:, 0]).mean()),
            "seconds": seconds,
            "scores_apart": float(apart),
        }
    return {"ranked": found, "users": len(users)}


def report(figures: dict[str, Any], policy: LanguagePolicy, given: argparse.Namespace) -> str:
    """The tables as Markdown."""
    seconds = {name: statistics.median(each) for name, each in figures["seconds"].items()}
    tokens = {**figures["tokens"], "all_logits": figures["tokens"]["brute"]}
    names = {
        "brute": "brute force: every title behind its own copy of the prompt",
        "all_logits": "the same, with logits of all positions",
        "flat": "flat titles behind the prompt's keys and values",
        "trie": "the trie behind the prompt's keys and values",
    }
    if (once := "brute, all films once") in seconds:
        names, tokens[once] = {once: "brute force, not scaled, once", **names}, tokens["brute"]
    rows = "\n".join(
        f"| {text} | {tokens[name]:,.0f} | {seconds[name]:.2f} | "
        f"{1e6 * seconds[name] / tokens[name]:.0f} | {seconds[name] / seconds['trie']:.1f} × |"
        for name, text in names.items()
    )
    ranked = "\n".join(
        f"| `{name}` | {one['recall']:.3f} | {one['first']:.2f} | {1e3 * one['seconds']:.0f} | "
        f"{seconds['brute'] / one['seconds']:.0f} × | "
        f"{seconds['all_logits'] / one['seconds']:.0f} × |"
        for name, one in figures["ranked"].items()
    )
    size = sum(weights.numel() for weights in policy.model.parameters())
    together = figures["together"]
    return f"""# Ranking a catalogue with a language model

All {figures["films"]:,} rated films of ml-latest-small, by a `tiny` model from scratch
({size / 1e6:.1f} M parameters) after a short imitation; {together} users together, prompts of
{figures["prompt"]:.0f} tokens on average. Log-probabilities of all films, per user:

| | tokens fed | seconds | µs a token | time against the trie |
|---|---:|---:|---:|---:|
{rows}

Largest difference between the trie and brute force, over {figures["scored"]:,} scores:
{figures["apart"]:.1e}; between the trie and flat titles, over all: {figures["flat_apart"]:.1e}.

The ten best of {figures["users"]} users, their histories left out, against the scores of all films:

| `rank(top=10)` | recall@10 | first one right | ms a user | against brute force | with all logits |
|---|---:|---:|---:|---:|---:|
{ranked}

`exact` finds the floor by 100 beams and reads what is likelier than it; its scores are those of
the ten best to {figures["ranked"]["exact"]["scores_apart"]:.1e}.

{conditions("transformers")}"""


if __name__ == "__main__":
    main()
