"""Every kind of causal language model that transformers knows, scored by Palate and by itself.

The truth is the model's own `model(input_ids).logits`, a title's row alone.
"""

import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from models.tiny import Unbuildable, tiny_model
from palate.data.contexts import Context
from palate.errors import ConfigError, DataWarning, PalateError
from palate.policies import LanguagePolicy, load_policy
from palate.training.noise import Silence

TITLES = [
    "Velvet Alibi",
    "Velvet Harbour",
    "Quiet Harbour",
    "Quiet",
    "Who Goes There?",
    "12 Monkeys",
    "The Burbs",
    "The Quiet Alibi",
    "Lanterns at Noon",
    "Paper Moon",
]
HISTORIES = [[0, 4], [5, 1, 8, 2, 9, 7], [3, 6, 2, 0, 9, 5, 1, 4, 8, 7, 3, 6, 2, 9]]
"""Of three people: prompts shorter than two windows, of several, and of many."""
TOLERANCE = 1e-3
"""Nats, for a title."""
GRADIENT_TOLERANCE = 1e-3
"""Share of the largest entry of a gradient."""
LEAST_SPREAD = 3.0
"""Nats between the likeliest and the least likely title, in every context."""


OWN_FAULTS = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""How transformers fails where a folder holds no causal model, or one that needs more than text:
Palate must refuse it then. Anything else is a fault of the walk and ends it."""


@dataclass(frozen=True)
class Found:
    """What a kind came to.

    Attributes:
        kind: of model.
        status: "tree" or "plain" (right, by that engine), "refused", "wrong", "crash" or "unbuilt".
        reason: why it is not by tree; a sentence of Palate's where it said one.
        apart: largest difference in nats from the model's own scores.
    """

    kind: str
    status: str
    reason: str = ""
    apart: float = 0.0


class Wrong(Exception):
    """Palate's number is not the model's own."""


def walk(kind: str) -> Found:
    """Make a tiny model of a kind, load it as a user would, and hold every score against it."""
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        try:
            tiny_model(kind, len(tokenizer())).save_pretrained(folder)
        except Exception as error:
            said = one_line(error)[:160]
            unsaved = f"{type(error).__name__}: {said}"
            return Found(kind, "unbuilt", said if isinstance(error, Unbuildable) else unsaved)
        tokenizer().save_pretrained(folder)
        return compare(kind, folder, own_model(folder))


def own_model(folder: Path) -> nn.Module | None:
    """The causal model of a folder by itself; None where transformers has none that reads text, or
    fills a part of it at random."""
    try:
        own, told = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        own.config.rescale_every = 0  # RWKV would divide its weights in place
        own.eval()(input_ids=torch.arange(3, 40)[None], use_cache=False)
    except OWN_FAULTS:
        return None
    return None if told["missing_keys"] or told["mismatched_keys"] else own


def compare(kind: str, folder: Path, own: nn.Module | None) -> Found:
    """How Palate scores the model of a folder, beside the model itself.

    Args:
        kind: its name in what is found.
        folder: a model and its tokenizer, as transformers saves them.
        own: the same model; None where it must be refused.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        try:
            policy = LanguagePolicy.create(str(folder), items(), "history", 20, seed=0)
            texts = load_policy(folder)
            if own is None:
                return Found(kind, "wrong", "it is accepted, and has no whole model of text")
            engine, worst = check(policy, texts, own)
        except Wrong as error:
            return Found(kind, "wrong", str(error))
        except PalateError as error:
            return Found(kind, "refused", one_line(error))
        except Exception as error:
            return Found(kind, "crash", f"{type(error).__name__}: {one_line(error)}")
    said = (str(one.message) for one in told if isinstance(one.message, DataWarning))
    reason = next((one for one in said if "alone" in one), "") if engine == "plain" else ""
    return Found(kind, engine, reason, worst)


def check(policy: LanguagePolicy, texts: LanguagePolicy, own: nn.Module) -> tuple[str, float]:
    """The engine that a policy scores by when left alone, and the largest difference of all of its
    scores, by that engine and by the plain one, from the model's own.

    Raises:
        Wrong: one is too large, or a ranking or a gradient differs.
    """
    nobody = np.empty(0, np.int64)
    contexts = [Context(np.array(h), nobody, nobody, i) for i, h in enumerate(HISTORIES)]
    prompts = [policy.prompt_tokens(context) for context in contexts]
    titles, end = policy.prompter.title_tokens, policy.prompter.end
    with torch.no_grad():
        truth = own_scores(own, prompts, titles, end)
    per_token = truth / torch.tensor([len(title) + 1 for title in titles])  # not by length alone
    spread = float((per_token.amax(1) - per_token.amin(1)).min()) * 6
    if not spread > LEAST_SPREAD:
        raise Wrong(f"the harness: titles lie within {spread:.2g} nats")
    worst = 0.0

    def near(name: str, found: Tensor) -> None:
        nonlocal worst
        apart = float((found.double() - truth).abs().max())
        if not apart <= TOLERANCE:
            raise Wrong(f"{name} is {apart:.2g} nats from the model's own")
        worst = max(worst, apart)

    ids = np.tile(np.arange(len(titles)), (len(contexts), 1))
    words = [policy.prompter.prompt_text(c.history, c.context_id) for c in contexts]
    expected = own_gradients(own, prompts, titles, end)
    chosen = policy.engine
    for engine in ("tree", "plain"):
        if engine == "tree" and policy.engine != "tree":
            continue
        policy.engine = texts.engine = engine
        near(f"score_texts by {engine}", texts.score_texts(words, [TITLES] * len(words)).log_probs)
        near(f"score by {engine}", policy.score(contexts, ids).log_probs)
        near(f"catalogue_log_probs by {engine}", policy.catalogue_log_probs(contexts))
        check_ranking(policy, contexts, truth, engine)
        check_gradients(policy, contexts, expected, engine)
        chosen = policy.engine if engine == "tree" else chosen  # it may find out on the way
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            again = load_policy(folder)
        near("score, saved and loaded,", again.score(contexts, ids).log_probs)
    return chosen, worst


def check_ranking(
    policy: LanguagePolicy, contexts: Sequence[Context], truth: Tensor, engine: str
) -> None:
    """Raise `Wrong` where a ranking, exact or by beams, is not that of the model's own scores."""
    for method in ("exact", "beam") if engine == "tree" else ("exact",):
        top = len(TITLES) if method == "beam" else 4
        try:
            ranking = policy.rank(contexts, top, method=method, exclude_history=False)
        except ConfigError as error:
            if method == "beam" and "method='beam' needs" in str(error):
                continue  # a catalogue that is not read behind cached prompts
            raise
        best = truth.sort(dim=1, descending=True)
        apart = np.abs(ranking.scores - best.values[:, :top].numpy()).max()
        at = truth.gather(1, torch.from_numpy(ranking.item_ids))
        apart = max(apart, np.abs(ranking.scores - at.numpy()).max())
        if not apart <= TOLERANCE:
            raise Wrong(f"rank ({method}, {engine}) is {apart:.2g} nats from the model's own")


PREFERENCES = np.array([[0, 1, 4], [3, 5, 7], [8, 2, 9]])
"""Of each person, a title and two that it is preferred to."""


def check_gradients(
    policy: LanguagePolicy,
    contexts: Sequence[Context],
    expected: dict[str, Tensor] | None,
    engine: str,
) -> None:
    """Raise `Wrong` where a loss of preferences has other gradients than expected, or some where
    None are."""
    batch = policy.collate(contexts, PREFERENCES)
    if expected is None:
        try:
            Silence(policy).before(batch, policy.model)
        except ConfigError:
            return
        raise Wrong(f"by {engine}, there are gradients, and the model's own forward has none")
    Silence(policy).before(batch, policy.model)
    scores = policy.log_probs(batch).log_probs
    found = gradients_of(policy.model, scores)
    largest = max(float(one.abs().max()) for one in expected.values())
    for name in found.keys() | expected.keys():
        one, own_one = (grads.get(name, torch.zeros(1)) for grads in (found, expected))
        scale = max(float(own_one.abs().max()), 0.01 * largest)
        apart = float((one - own_one).abs().max()) / scale
        if not apart <= GRADIENT_TOLERANCE:
            raise Wrong(f"the gradient of {name} by {engine} is off by {apart:.2g} of its largest")


def own_gradients(
    own: nn.Module, prompts: Sequence[np.ndarray], titles: Sequence[np.ndarray], end: int
) -> dict[str, Tensor] | None:
    """Gradients of the loss of preferences by the model's own forward; None where it has none."""
    rows = [
        own_scores(own, [prompt], [titles[item] for item in row], end)
        for prompt, row in zip(prompts, PREFERENCES, strict=True)
    ]
    try:
        return gradients_of(own, torch.cat(rows))
    except AssertionError:
        return None


def gradients_of(model: nn.Module, scores: Tensor) -> dict[str, Tensor]:
    """Gradients of a preference loss, by weight: the first candidate against the others."""
    model.zero_grad()
    margins = (scores[:, :1] - scores[:, 1:]).double()
    # losses that saturate nowhere: titles lie many nats apart
    torch.nn.functional.softplus(-0.1 * margins).sum().backward()
    found = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return found


def own_scores(
    model: nn.Module, prompts: Iterable[np.ndarray], titles: Sequence[np.ndarray], end: int
) -> Tensor:
    """(prompts, titles) float64 log-probabilities of titles and the end token behind prompts, each
    by an ordinary forward of its own row."""
    return torch.stack(
        [
            torch.stack([own_score(model, prompt, title, end) for title in titles])
            for prompt in prompts
        ]
    )


def own_score(model: nn.Module, prompt: np.ndarray, title: np.ndarray, end: int) -> Tensor:
    """log π(title, end | prompt) of one row."""
    row = torch.from_numpy(np.concatenate([prompt, title]))[None]
    log_probs = model(input_ids=row, use_cache=False).logits[0].double().log_softmax(-1)
    target = torch.tensor([*title, end])
    return log_probs[len(prompt) - 1 :].gather(1, target[:, None]).sum()


@cache
def items() -> pa.Table:
    """The catalogue."""
    return pa.table({"title": TITLES})


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose titles have several tokens each."""
    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    one.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    one.train_from_iterator([*TITLES, "Chosen so far:\nNext:\n"] * 2, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=one, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def one_line(error: Exception) -> str:
    """What an error says, in a line."""
    return re.sub(r"\s+", " ", str(error))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of tiny configurations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
