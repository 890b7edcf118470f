"""What the study of samplers runs: a reference by imitation, and from it one alignment per sampler,
watched as it draws."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from samplers_watched import Watched

from palate.chosen_objective import chosen_objective
from palate.config import AlignConfig, SFTConfig
from palate.data.contexts import ContextSet
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared, sample_contexts
from palate.data.simulator import Simulation
from palate.data.sources import load as load_source
from palate.evaluation.false_negatives import Known, LikedLater, WouldLike
from palate.evaluation.ranking import Ranks, rank_catalogue
from palate.evaluation.stages import catalogue_scorer
from palate.files import replacing
from palate.negatives import mixture
from palate.objectives.weighted_sum import Term, WeightedSum
from palate.policies import SequencePolicy
from palate.policies.reference import Frozen
from palate.training.align import align
from palate.training.holdout import split_training
from palate.training.preference_sets import PreferenceSets
from palate.training.sft import imitate
from palate.training.trainer import Validation, planned_steps

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform": ("uniform", {}),
    "popularity": ("popularity", {}),
    "hard": ("hard", {}),
    "top 10": ("stochastic_topk", {"k": 10}),
    "top 50": ("stochastic_topk", {"k": 50}),
    "top 200": ("stochastic_topk", {"k": 200}),
    "self-play": ("self_play", {}),
}
"""Name in the tables → sampler and its options."""
CONTINUED = "SFT continued"
NEVER = 10**6
"""Validations without gain after which to stop: all runs make the same steps."""
Curve = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """One of the two logs, and how a model is trained on it.

    Attributes:
        name: of the part in the cache.
        source, options: the log.
        shape: of the sequence model.
        sft, align: the two stages; `align.negatives` is the sampler's to fill in.
        every: steps of alignment between two rankings.
        tested: test contexts; None for all.
        validated: validation contexts.
        protocols: rank the test among "unseen" items, those of the history left out, or "all".
    """

    name: str
    source: str
    options: dict[str, Any]
    shape: dict[str, Any]
    sft: SFTConfig
    align: AlignConfig
    every: int
    tested: int | None
    validated: int
    protocols: tuple[str, ...] = ("unseen",)

    def world(self, seed: int) -> Simulation | None:
        """The truth behind the log, where it is known."""
        is_simulated = self.source == "simulate"
        return Simulation(**self.options, seed=seed) if is_simulated else None


class Study:
    """One log with one seed: its reference, and the runs that start from it.

    Args:
        part: what to run.
        seed: of the log, the weights and the draws.
        cache: folder of results; what it holds is not run again.
    """

    def __init__(self, part: Part, seed: int, cache: Path) -> None:
        self._part = part
        self._seed = seed
        self.name = f"{part.name}-{seed}"
        self._folder = cache / self.name
        self._folder.mkdir(parents=True, exist_ok=True)

    def reference(self) -> dict[str, Any]:
        """The policy after imitation, ranked; see `run`."""
        kept = self._folder / "sft.json"
        if not kept.is_file():
            part, began = self._part, time.perf_counter()
            policy = SequencePolicy.create(self._data.items, 50, seed=self._seed, **part.shape)

            def validation() -> dict[str, float]:
                return means(self._ranks(policy, self._validation))

            learnt = split_training(self._data, part.align.holdout)[0]
            done = self._training(
                lambda folder: imitate(
                    "sft", policy, learnt, validation, part.sft, folder, self._seed, trackers=()
                )
            )
            with replacing(self._folder / "sft") as temporary:
                temporary.mkdir()
                policy.save(temporary)
            self._keep(kept, [self._measured(0, policy)], began, {"steps": done.steps})
        return json.loads(kept.read_text("utf-8"))

    def run(self, sampler: str, count: int, **changes: float) -> dict[str, Any]:
        """Alignment with `count` negatives of a sampler, or imitation continued for as long.

        Args:
            sampler: of `SAMPLERS`, or `CONTINUED`.
            count: negatives of a context.
            changes: of the stage's options, such as learning_rate.

        Returns:
            `curve`, a list of rankings (step, validation, test and, of the last, test_ranks by
            protocol), `seconds`, and of alignment what `Watched.found` tells.
        """
        words = [sampler, str(count), *(f"{key}-{value:g}" for key, value in changes.items())]
        kept = self._folder / ("_".join(words).replace(" ", "-") + ".json")
        if not kept.is_file():
            curve = [{**self.reference()["curve"][0], "step": 0}]
            policy = SequencePolicy.load(self._folder / "sft")
            stage = self._continued if sampler == CONTINUED else self._aligned
            began = time.perf_counter()
            found = stage(policy, curve, changes, sampler, count)
            self._keep(kept, curve, began, found)
        return json.loads(kept.read_text("utf-8"))

    def _continued(
        self, policy: SequencePolicy, curve: Curve, changes: Mapping[str, float], *_: Any
    ) -> dict[str, float]:
        part = self._part
        same = part.align.model_dump(include={"max_steps", "batch_size", "metric"})
        self._training(
            lambda folder: imitate(
                "sft_continued",
                policy,
                self._held_out,
                self._validating(policy, curve),
                part.sft.model_copy(update={**same, **changes}),
                folder,
                self._seed + 1,
                trackers=(),
                early_stopping=False,
                validate_every=part.every,
            )
        )
        return {}

    def _aligned(
        self,
        policy: SequencePolicy,
        curve: Curve,
        changes: Mapping[str, float],
        sampler: str,
        count: int,
    ) -> dict[str, float]:
        part, (name, of_sampler) = self._part, SAMPLERS[sampler]
        negatives = mixture({name: count}, self._held_out, options={name: of_sampler})
        options = part.align.model_copy(
            update={**changes, "evaluations": self._per_epoch / part.every, "patience": NEVER}
        )
        watched = Watched(Frozen(policy), chosen_objective(options), self._known)
        validate = self._validating(policy, curve, skip=1)  # of the start, which is known
        self._training(
            lambda folder: align(
                policy,
                self._held_out,
                negatives,
                WeightedSum({"watched": Term(1.0, watched.losses)}),
                options.beta,
                watched,
                validate,
                options,
                folder,
                self._seed,
                trackers=(),
            )
        )
        return watched.found()

    def _validating(self, policy: SequencePolicy, curve: Curve, skip: int = 0) -> Validation:
        """Ranks and adds to the curve, but for the first `skip` times."""
        calls = 0

        def validation() -> dict[str, float]:
            nonlocal calls
            calls += 1
            if calls > skip:
                curve.append(self._measured(len(curve) * self._part.every, policy))
            return curve[-1]["validation"]

        return validation

    def _training(self, stage: Callable[[Path], Any]) -> Any:
        folder = self._folder / "training"
        shutil.rmtree(folder, ignore_errors=True)  # half a stage: begun anew, to be counted whole
        folder.mkdir()
        done = stage(folder)
        shutil.rmtree(folder)
        return done

    def _keep(self, path: Path, curve: Curve, began: float, more: Mapping[str, Any]) -> None:
        earlier = [{k: v for k, v in one.items() if k != "test_ranks"} for one in curve[:-1]]
        result = {"curve": [*earlier, curve[-1]], "seconds": time.perf_counter() - began, **more}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(result) + "\n", "utf-8")

    def _measured(self, step: int, policy: SequencePolicy) -> dict[str, Any]:
        ranks = {
            protocol: self._ranks(policy, self._test, exclude_history=protocol == "unseen")
            for protocol in self._part.protocols
        }
        return {
            "step": step,
            "validation": means(self._ranks(policy, self._validation)),
            "test": {name: means(one) for name, one in ranks.items()},
            "test_ranks": {name: one.rank.tolist() for name, one in ranks.items()},
        }

    def _ranks(
        self, policy: SequencePolicy, contexts: ContextSet, exclude_history: bool = True
    ) -> Ranks:
        was_training = policy.model.training
        policy.model.eval()
        scorer = catalogue_scorer(policy)
        ranks = rank_catalogue(scorer, contexts, exclude_history, batch_size=128)["catalogue"]
        policy.model.train(was_training)
        return ranks

    @cached_property
    def _data(self) -> Prepared:
        folder, part = self._folder / "data", self._part
        if not folder.is_dir():
            options = {**part.options, "seed": self._seed} if part.source == "simulate" else None
            with replacing(folder) as temporary:
                prepare(
                    load_source(part.source, options or part.options),
                    temporary,
                    Preparation(k_core=5 if part.source == "simulate" else 1),
                    self._seed,
                )
        return Prepared(folder, window=1)

    @cached_property
    def _held_out(self) -> Prepared:
        """What imitation has not seen and alignment learns from."""
        return split_training(self._data, self._part.align.holdout)[1]

    @cached_property
    def _per_epoch(self) -> int:
        """Steps of alignment in an epoch."""
        any_negatives = mixture({"uniform": 1}, self._data)
        policy = SequencePolicy.load(self._folder / "sft")
        contexts = self._held_out.contexts("train")
        passes = PreferenceSets(contexts, any_negatives, self._seed, policy)
        return planned_steps(self._part.align, len(passes))[0]

    @cached_property
    def _known(self) -> dict[str, Callable[..., Known]]:
        world = self._part.world(self._seed)
        known: dict[str, Callable[..., Known]] = {"later": LikedLater(self._data)}
        return known if world is None else {"truth": WouldLike(self._data, world), **known}

    @cached_property
    def _test(self) -> ContextSet:
        every = self._data.contexts("test")
        return sample_contexts(every, self._part.tested, self._seed, "test sample")

    @cached_property
    def _validation(self) -> ContextSet:
        every = self._data.contexts("validation")
        return sample_contexts(every, self._part.validated, self._seed, "validation sample")


def means(ranks: Ranks) -> dict[str, float]:
    """Mean metrics over contexts."""
    return {name: float(of.mean()) for name, of in ranks.per_group((5, 10))[0].items()}
