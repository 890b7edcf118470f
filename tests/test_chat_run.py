"""A run on a chat model: imitation, scores and exported rows read the same tokens."""

import json

import numpy as np
import pytest

from palate.config import parse_config
from palate.environment import check_environment
from palate.errors import ConfigError
from palate.pipeline import run
from palate.policies import LanguagePolicy, load_policy
from palate.preference_rows import export
from palate.run_folder import prepared
from policies.small_tokenizers import model_for, tokenizer_of

SMALL = {
    "trackers": [],
    "seed": 5,
    "data": {"options": {"n_users": 30, "n_items": 20, "visits": 10}, "k_core": 2},
    "sft": {"max_steps": 2, "batch_size": 4},
    "align": {"negatives": {"uniform": 3}},
    "evaluation": {"validation_contexts": 5},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = tokenizer_of("byte_level_llama3", "chatml")
    model_for(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_before_training_and_after_it_rows_are_the_messages_that_are_scored(base, tmp_path):
    policy = {"base": base, "max_history": 4}
    config = parse_config(SMALL | {"policy": policy})
    run(config, tmp_path / "run", say=lambda _: None, until="prepare")
    export(tmp_path / "run", tmp_path / "before.jsonl", split="test", one_rejected=True)
    run(config, tmp_path / "run", say=lambda _: None, until="sft", resume=True)
    export(tmp_path / "run", tmp_path / "after.jsonl", split="test", one_rejected=True)
    assert (tmp_path / "before.jsonl").read_bytes() == (tmp_path / "after.jsonl").read_bytes()
    trained = load_policy(tmp_path / "run/sft")
    assert isinstance(trained, LanguagePolicy)
    assert trained.chat is not None
    row = json.loads((tmp_path / "after.jsonl").read_text("utf-8").splitlines()[0])
    context = prepared(config, tmp_path / "run").contexts("test")[0]
    rendered = trained.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)
    tokens = trained.prompt_tokens(context).tolist()
    assert tokens == rendered["input_ids"]  # begin token included, which the base's template lacks
    by_text = trained.score_texts([row["prompt"][0]["content"]], [[row["chosen"][0]["content"]]])
    by_item = trained.score([context], np.asarray([context.positives[:1]]))
    assert float(by_text.log_probs) == pytest.approx(float(by_item.log_probs), abs=1e-5)


def test_without_chat_the_same_model_reads_plain_prompts(base, tmp_path):
    config = parse_config(SMALL | {"policy": {"base": base, "chat": False}})
    run(config, tmp_path / "run", say=lambda _: None, until="sft")
    trained = load_policy(tmp_path / "run/sft")
    assert isinstance(trained, LanguagePolicy)
    assert trained.chat is None
    assert trained.learns_whole_histories


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"chat": True}, "'tiny' is made from scratch and has no chat template"),
        ({"chat": True, "kind": "sequence"}, "policy.chat is for language models"),
    ],
)
def test_a_chat_that_cannot_be_is_refused_before_the_run(policy, sentence):
    with pytest.raises(ConfigError) as error:
        check_environment(parse_config(SMALL | {"policy": policy}))
    assert sentence in str(error.value)
