"""All stages of a run on the same test contexts: ranks, metrics, differences."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.config import RunConfig
from palate.data.categories import item_categories
from palate.data.contexts import Context, ContextSet
from palate.data.prepared import Prepared, sample_contexts
from palate.data.simulator import Simulation
from palate.errors import ConfigError
from palate.evaluation.baselines import Markov, Oracle, Popularity, Random, TasteOracle
from palate.evaluation.candidates import (
    Candidates,
    draw_candidates,
    given_candidates,
    load_candidates,
    save_candidates,
)
from palate.evaluation.generation import (
    Generations,
    generation_difference,
    generations,
    read_generations,
    summarise_generations,
)
from palate.evaluation.metrics import chief_cutoff
from palate.evaluation.ranking import (
    CatalogueScorer,
    Ranks,
    rank_candidates,
    rank_catalogue,
    rankable,
    summarise,
)
from palate.evaluation.significance import paired_difference
from palate.files import replacing, write_json, write_table
from palate.policies import LanguagePolicy
from palate.policies.policy import PADDING_ITEM, Policy

ORDER = ("random", "popularity", "markov", "sft", "sft_continued", "aligned")
TRUTH = ("taste_oracle", "oracle")
PAIRS = (("aligned", "sft"), ("aligned", "sft_continued"), ("sft", "popularity"))
"""What is compared by every metric, and printed."""
BASELINES = ("random", "popularity", "markov")
BASELINE_PAIRS = tuple(
    (stage, one) for stage in ("aligned", "sft") for one in BASELINES if (stage, one) not in PAIRS
)
"""What is compared by the chief metric alone, so that no gain is claimed below a baseline."""
BASELINE_BATCH = 64


class Evaluation:
    """Ranks each stage once; what is ranked is kept in `checkpoints/ranks` until the run ends.

    Args:
        config: the run's configuration.
        data: its prepared data.
        folder: the run folder.
        world: the simulation behind the data, or None.
    """

    def __init__(
        self, config: RunConfig, data: Prepared, folder: Path, world: Simulation | None
    ) -> None:
        self.config = config.evaluation
        self.cutoffs = config.cutoffs
        self.seed = config.seed
        self.data = data
        self.graded = bool((data.interactions.levels > 1).any())
        self._liked = config.data.liked_from
        self._world = world
        self._folder = folder
        every = data.contexts("test")
        self.of = len(every)
        self.contexts = sample_contexts(
            every, self.config.test_contexts, config.seed, "test sample"
        )

    def validate(self, policy: Policy, contexts: ContextSet, metric: str) -> dict[str, float]:
        """Mean metrics of a policy on some contexts: the loss, and unless it is all that is
        asked for, those of the ranking, over the catalogue where the policy can. `METRIC_error`
        is the standard error of the metric asked for."""
        lists = None
        if self._by_list(policy):
            lists = self._lists(contexts, self.seed + 1)
        values = {"loss": context_losses(policy, contexts, lists, self.config.batch_size)}
        if metric != "loss":
            if lists is not None:
                ranks = rank_candidates(policy, contexts, lists, self.config.batch_size)
            else:
                ranks = rank_catalogue(
                    catalogue_scorer(policy),
                    contexts,
                    self.config.exclude_history,
                    batch_size=self.config.batch_size,
                )
            chosen = ranks.get("catalogue") or ranks["candidates"]
            graded = self.graded or metric.startswith("ndcg_graded@")
            values |= chosen.per_group(self.cutoffs, graded=graded)[0]
        found = {name: float(of_context.mean()) for name, of_context in values.items()}
        error = values[metric].std() / np.sqrt(len(values[metric]))
        return found | {f"{metric}_error": float(error)}

    def rank_policy(self, stage: str, load: Callable[[], Policy]) -> dict[str, Ranks]:
        """Ranks of a saved policy on the test contexts, from the folder if they are there."""

        def rank() -> dict[str, Ranks]:
            policy = load()
            label = f"rank {stage}"
            if self._by_list(policy):
                return rank_candidates(
                    policy, self.contexts, self.candidates(), self.config.batch_size, label
                )
            return self._rank_catalogue(catalogue_scorer(policy), self.config.batch_size, label)

        return self._once(stage, rank)

    def generate(self, stage: str, load: Callable[[], Policy]) -> None:
        """Let a saved policy write on the test contexts, unless the folder holds the result."""
        path = self._folder / "checkpoints" / "generations" / f"{stage}.parquet"
        if "generation" not in self.config.protocols or path.is_file():
            return
        policy = load()
        if not isinstance(policy, LanguagePolicy):
            raise ConfigError(
                "evaluation.protocols: only a language policy can write; leave 'generation' out."
            )
        lists = self.candidates() if policy.lists_candidates else None
        found = generations(
            policy, self.contexts, lists, self.config.batch_size, f"generate {stage}"
        )
        write_table(found.table(stage), path)

    def generated(self) -> dict[str, Generations]:
        """What the stages have written."""
        paths = sorted((self._folder / "checkpoints" / "generations").glob("*.parquet"))
        return {path.stem: read_generations(path) for path in paths}

    def rank_baselines(self) -> dict[str, dict[str, Ranks]]:
        """Ranks of everything that needs no training."""
        scorers: dict[str, CatalogueScorer] = {
            "random": Random(self.data, self.seed),
            "popularity": Popularity(self.data),
            "markov": Markov(self.data),
        }
        if self._world is not None:
            scorers["taste_oracle"] = TasteOracle(self.data, self._world)
            scorers["oracle"] = Oracle(self.data, self._world, self._liked)
        return {
            stage: self._rank_catalogue(scorer, BASELINE_BATCH, f"rank {stage}")
            for stage, scorer in scorers.items()
        }

    def candidates(self) -> Candidates:
        """The test contexts' candidate lists, made once and kept in `candidates.parquet`."""
        path = self._folder / "candidates.parquet"
        if not path.is_file():
            drawn = self._lists(self.contexts, self.seed)
            manifest = json.loads((self._folder / "data.json").read_text("utf-8"))
            manifest["sha256"]["candidates.parquet"] = save_candidates(drawn, path)
            write_json(manifest, self._folder / "data.json")
        return load_candidates(path)

    def _by_list(self, policy: Policy) -> bool:
        """Whether a policy scores candidate lists alone: it must, or is asked for no more."""
        return policy.lists_candidates or "catalogue" not in self.config.protocols

    def _lists(self, contexts: ContextSet, seed: int) -> Candidates:
        """The source's own candidate lists where every context has one, else drawn ones."""
        shown = self.data.lists
        if shown is not None and all(len(shown[user]) for user in contexts.users):
            return given_candidates(contexts)
        return draw_candidates(contexts, self.data.n_items, self.config.candidates, seed)

    def trained(self) -> dict[str, dict[str, Ranks]]:
        """Ranks of the stages that `rank_policy` has ranked."""
        paths = sorted((self._folder / "checkpoints" / "ranks").glob("*.npz"))
        return {path.stem: _read_ranks(path) for path in paths}

    def _rank_catalogue(
        self, scorer: CatalogueScorer, batch_size: int, label: str | None = None
    ) -> dict[str, Ranks]:
        protocols = [name for name in self.config.protocols if name != "generation"]
        lists = self.candidates() if "candidates" in protocols else None
        ranks = rank_catalogue(
            scorer, self.contexts, self.config.exclude_history, lists, batch_size, label
        )
        return {protocol: ranks[protocol] for protocol in protocols}

    def _once(self, stage: str, rank: Callable[[], dict[str, Ranks]]) -> dict[str, Ranks]:
        path = self._folder / "checkpoints" / "ranks" / f"{stage}.npz"
        if not path.is_file():
            _write_ranks(rank(), path)
        return _read_ranks(path)


def context_losses(
    policy: Policy, contexts: ContextSet, lists: Candidates | None, batch_size: int
) -> NDArray[np.float64]:
    """(contexts,) mean −log π over the positives of each context.

    Where a policy's prompts list candidates, they list those of `lists`, one positive in each.
    """
    asked: list[Context] = list(contexts)
    rows = np.arange(len(contexts))
    if lists is not None:
        answers = lists.item_ids[np.arange(len(lists.row)), lists.place]
        asked = [
            replace(contexts[int(row)], positives=answer[None], candidates=ids[ids != PADDING_ITEM])
            for row, answer, ids in zip(lists.row, answers, lists.item_ids, strict=True)
        ]
        rows = lists.row
    losses = []
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        item_ids = np.full((len(batch), max(len(c.positives) for c in batch)), PADDING_ITEM)
        for row, context in enumerate(batch):
            item_ids[row, : len(context.positives)] = context.positives
        log_probs = policy.score(batch, item_ids).log_probs.double().cpu().numpy()
        losses.append(-log_probs.sum(axis=1) / (item_ids != PADDING_ITEM).sum(axis=1))
    return np.bincount(rows, weights=np.concatenate(losses)) / np.bincount(rows)


def catalogue_scorer(policy: Policy) -> CatalogueScorer:
    """A policy as a function from contexts to (B, items) scores."""

    def scores(contexts: Sequence[Context]) -> np.ndarray:
        return rankable(policy.catalogue_log_probs(contexts).float().cpu().numpy(), contexts)

    return scores


def write_metrics(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """Write `ranks.parquet` and `metrics.json`; returns what the latter holds."""
    ranks = {**evaluation.rank_baselines(), **evaluation.trained()}
    stages = [stage for stage in (*ORDER, *TRUTH) if stage in ranks]
    tables = [ranks[s][protocol].table(s, protocol) for s in stages for protocol in ranks[s]]
    write_table(
        pa.concat_tables([t.unify_dictionaries() for t in tables]), folder / "ranks.parquet"
    )
    categories = _categories(evaluation.data.items)
    metrics: dict[str, Any] = {
        stage: {
            protocol: summarise(
                ranks[stage][protocol],
                evaluation.cutoffs,
                evaluation.seed,
                evaluation.config.bootstrap,
                evaluation.data.popularity,
                categories,
                evaluation.graded,
            )
            for protocol in ranks[stage]
        }
        for stage in stages
    }
    seed, draws = evaluation.seed, evaluation.config.bootstrap
    written = evaluation.generated()
    for stage, found in written.items():
        metrics[stage]["generation"] = summarise_generations(found, seed, draws)
    if written:
        tables = [found.table(stage) for stage, found in written.items()]
        write_table(pa.concat_tables(tables), folder / "generations.parquet")
    pairs = [(a, b) for a, b in PAIRS if a in ranks and b in ranks]
    differences = {f"{a}-{b}": _difference(evaluation, ranks[a], ranks[b]) for a, b in pairs}
    for a, b in pairs:
        if a in written and b in written:
            found = generation_difference(written[a], written[b], seed, draws)
            differences[f"{a}-{b}"]["generation"] = found
    differences |= {
        f"{a}-{b}": _difference(evaluation, ranks[a], ranks[b], chief=True)
        for a, b in BASELINE_PAIRS
        if a in ranks and b in ranks
    }
    if "aligned-sft" in differences:
        metrics["difference"] = differences["aligned-sft"]
    metrics["differences"] = differences
    metrics["test_contexts"] = {
        "used": len(evaluation.contexts),
        "of": evaluation.of,
        "answers": len(evaluation.contexts.positive_rows()[0]),
    }
    if any("candidates" in of_stage for of_stage in ranks.values()):
        lengths = evaluation.candidates().lengths
        metrics["candidate_lists"] = {
            "shortest": int(lengths.min()),
            "longest": int(lengths.max()),
        }
    write_json(metrics, folder / "metrics.json")
    return metrics


def _difference(
    evaluation: Evaluation, a: dict[str, Ranks], b: dict[str, Ranks], chief: bool = False
) -> dict[str, dict[str, Any]]:
    """Paired differences of two stages by protocol and metric; or by the chief metric alone."""
    cutoffs = [chief_cutoff(evaluation.cutoffs)] if chief else evaluation.cutoffs
    graded = evaluation.graded and not chief
    found: dict[str, dict[str, Any]] = {}
    for protocol in [name for name in a if name in b]:
        first, users = a[protocol].per_group(cutoffs, graded=graded)
        second, _ = b[protocol].per_group(cutoffs, graded=graded)
        found[protocol] = {
            name: paired_difference(
                first[name], second[name], users, evaluation.seed, evaluation.config.bootstrap
            )
            for name in ([f"ndcg@{cutoffs[0]}"] if chief else first)
        }
    return found


def _categories(items: pa.Table) -> list[np.ndarray] | None:
    """Numbers of each item's categories, or None where the catalogue names none."""
    column, named = item_categories(items)
    if column is None:
        return None
    numbers = {name: n for n, name in enumerate(sorted({name for one in named for name in one}))}
    return [np.array([numbers[name] for name in one], dtype=np.int64) for one in named]


def _write_ranks(ranks: dict[str, Ranks], path: Path) -> None:
    arrays = {
        f"{protocol}/{name}": value
        for protocol, one in ranks.items()
        for name, value in vars(one).items()
        if value is not None
    }
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _read_ranks(path: Path) -> dict[str, Ranks]:
    with np.load(path, allow_pickle=False) as arrays:
        protocols = dict.fromkeys(name.split("/")[0] for name in arrays.files)
        return {
            protocol: Ranks(
                **{
                    name.split("/")[1]: arrays[name]
                    for name in arrays.files
                    if name.startswith(f"{protocol}/")
                }
            )
            for protocol in protocols
        }
