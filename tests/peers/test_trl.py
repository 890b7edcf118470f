"""Rows that Palate exports score in TRL's DPOTrainer as in Palate.

TRL is no dependency of Palate. `make test-trl` runs these in an environment that has it, beside the
packages of Palate's own; elsewhere they are skipped.
"""

import importlib.util
import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from palate.config import parse_config
from palate.negatives import mixture
from palate.objectives import CandidateScores, dpo, ipo
from palate.pipeline import run
from palate.policies import LanguagePolicy, load_policy
from palate.preference_rows import export
from palate.run_folder import prepared
from palate.training.holdout import split_training
from policies.small_tokenizers import CHATS, model_for, tokenizer_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None,
    reason="TRL is not installed here; make test-trl makes an environment that has it",
)
with suppress(ImportError):
    import datasets
    import trl

ROWS = 24
SMALL = {
    "trackers": [],
    "seed": 5,
    "data": {"options": {"n_users": 30, "n_items": 20, "visits": 10}, "k_core": 2},
    "sft": {"max_steps": 20, "batch_size": 4},
    "align": {"negatives": {"uniform": 3}},
    "evaluation": {"validation_contexts": 5},
}
DAY = "{{ strftime_now('%d %b %Y') }}\n"
BASES = {
    "made from scratch": None,
    # GPT-2 and its like have a begin token that their tokenizer does not put anywhere
    "plain, begin token not put": ("byte_level_gpt2", None, True),
    "plain, no begin token": ("byte_level_llama3", None, False),
    "a chat whose turns end in a line break": ("byte_level_llama3", CHATS["chatml"], True),
    "a chat that tells the day": ("byte_level_llama3", DAY + CHATS["chatml"], False),
    "a chat whose answers end in nothing": ("byte_level_gpt2", CHATS["words"], True),
}


def base_of(name, folder):
    """A model that a run starts from: "tiny", or a folder with a tokenizer of a kind."""
    if BASES[name] is None:
        return "tiny"
    kind, chat, begins = BASES[name]
    tokenizer = tokenizer_of(kind, None, begins)
    tokenizer.chat_template = chat
    torch.manual_seed(0)
    model_for(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=BASES)
def exported(request, tmp_path_factory):
    """A policy after imitation, rows for TRL, and Palate's scores (rows, 2) of chosen and rejected
    titles."""
    folder = tmp_path_factory.mktemp("trl")
    policy = {"base": base_of(request.param, folder / "base"), "max_history": 4}
    config = parse_config(SMALL | {"policy": policy})
    run(config, folder / "run", say=lambda _: None, until="sft")
    export(folder / "run", folder / "rows.jsonl", one_rejected=True)
    lines = (folder / "rows.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:ROWS]]
    data = prepared(config, folder / "run")
    policy = load_policy(folder / "run" / "sft")
    assert isinstance(policy, LanguagePolicy)
    return folder / "run" / "sft", rows, scores_of(policy, config, data, rows), policy


def scores_of(policy, config, data, rows):
    """Log-probabilities of each row's two titles, by item id, from what alignment draws."""
    negatives = mixture(config.align.negatives, data)
    titles, found, every = data.titles(), [], iter(rows)
    for context in split_training(data, 0.0)[1].contexts("train"):
        drawn = negatives.draw(context, (config.seed, 0))
        for item in context.positives:
            scored = policy.score([context], np.append(item, drawn)[None]).log_probs[0]
            for place, other in enumerate(drawn, start=1):
                row = next(every, None)
                if row is None:
                    return torch.tensor(found)
                assert (words(row["chosen"]), words(row["rejected"])) == (
                    titles[item],
                    titles[other],
                )
                found.append([float(scored[0]), float(scored[place])])
    raise AssertionError("there are fewer rows than were exported")


def words(answer):
    return answer if isinstance(answer, str) else answer[0]["content"]


def trainer_of(folder, rows, out, policy=None, **options):
    """TRL's trainer as a user of the exported rows makes it: from the run's folder alone."""
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if policy is not None:
        model.load_state_dict(policy)
    return trl.DPOTrainer(
        model,
        reference,
        trl.DPOConfig(
            str(out),
            per_device_train_batch_size=len(rows),
            bf16=False,
            activation_checkpointing=False,
            use_cpu=True,
            report_to="none",
            **options,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


def batch_of(trainer):
    return trainer.data_collator(list(trainer.train_dataset))


def test_sequence_log_probabilities_are_the_same(exported, tmp_path):
    folder, rows, expected, _ = exported
    trainer = trainer_of(folder, rows, tmp_path)
    found = torch.stack(trainer.compute_ref_log_probs(trainer.ref_model, batch_of(trainer)), dim=1)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    assert float(expected.std()) > 0.5  # titles lie apart


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_losses_differ_by_what_the_guide_says(exported, tmp_path, loss):
    """`dpo` is TRL's sigmoid loss; of `ipo` TRL divides each log-ratio by the answer's tokens."""
    folder, rows, reference, saved = exported
    torch.manual_seed(1)
    moved = {
        name: weight + 0.02 * torch.randn_like(weight)
        for name, weight in AutoModelForCausalLM.from_pretrained(folder).state_dict().items()
    }
    trainer = trainer_of(folder, rows, tmp_path, moved, loss_type=[loss], beta=0.3)
    batch = batch_of(trainer)
    policy = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch), dim=1)
    theirs = trainer.compute_loss(trainer.model, batch).item()
    lengths = [
        [len(tokens) + 1 for tokens in saved.prompter.tokenize_titles([chosen, rejected])]
        for chosen, rejected in ((words(row["chosen"]), words(row["rejected"])) for row in rows)
    ]
    levels = torch.tensor([[1, 0]]).expand(len(rows), -1)
    divided = torch.tensor(lengths, dtype=torch.float32)
    assert (divided[:, 0] != divided[:, 1]).any()
    summed = CandidateScores(policy, reference, levels=levels)
    averaged = CandidateScores(policy / divided, reference / divided, levels=levels)
    if loss == "sigmoid":
        assert theirs == pytest.approx(float(dpo(summed, beta=0.3).mean()), abs=1e-3)
    else:
        assert theirs == pytest.approx(float(ipo(averaged, beta=0.3).mean()), abs=1e-3)
        assert abs(theirs - float(ipo(summed, beta=0.3).mean())) > 0.01
