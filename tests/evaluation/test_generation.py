"""Free generation: greedy whatever a model's defaults, and three ratios by hand."""

import numpy as np
import pytest
import torch

from palate.evaluation.generation import (
    Generations,
    generation_difference,
    generations,
    same,
    summarise_generations,
)
from palate.policies.language.decoding import generate, written_titles


def test_it_writes_the_most_probable_token_each_time(small_data, small_policy):
    contexts = small_data.contexts("test")[:3]
    small_policy.model.generation_config.repetition_penalty = 50.0  # a hub model may bring this
    small_policy.model.generation_config.do_sample = True
    found = generate(small_policy, contexts, max_tokens=6)
    for context, text in zip(contexts, found, strict=True):
        tokens = list(small_policy.prompt_tokens(context))
        start = len(tokens)
        small_policy.model.eval()
        for _ in range(6):
            with torch.no_grad():
                logits = small_policy.model(torch.tensor([tokens])).logits[0, -1]
            tokens.append(int(logits.argmax()))
            if tokens[-1] == small_policy.prompter.end:
                break
        written = small_policy.tokenizer.decode(tokens[start:], skip_special_tokens=True).strip()
        assert text == (written.splitlines() or [""])[0].strip()


def test_a_policy_that_writes_a_title_is_valid_and_hits(small_data, small_policy, monkeypatch):
    contexts = small_data.contexts("test").subset(np.arange(4))
    titles = written_titles(small_policy)
    right = [titles[int(context.positives[0])] for context in contexts]
    wrong = next(title for title in titles if title != right[1])
    written = [f"  {right[0].upper()} ", wrong, "no such thing", ""]
    monkeypatch.setattr("palate.evaluation.generation.generate", lambda *_: written)
    found = generations(small_policy, contexts, lists=None)
    assert found.valid.tolist() == [True, True, False, False]
    assert found.hit.tolist() == [True, False, False, False]
    summary = summarise_generations(found, seed=0, draws=100)
    assert summary["valid_ratio"]["value"] == 0.5
    assert summary["hit_ratio@1"]["value"] == 0.25
    assert summary["hit_ratio@1_valid"]["value"] == 0.5


def rows(valid, hit):
    users = np.arange(len(valid))
    return Generations(users, users, users, [""] * len(valid), np.array(valid), np.array(hit))


def test_without_a_valid_row_the_ratio_over_valid_rows_is_unknown():
    summary = summarise_generations(rows([False, False], [False, False]), seed=0, draws=100)
    assert summary["hit_ratio@1_valid"]["value"] is None
    assert summary["valid_ratio"]["value"] == 0


def test_the_difference_is_paired_over_all_rows():
    a, b = (
        rows([True] * 4, [True, True, True, False]),
        rows([True, False] * 2, [True] + [False] * 3),
    )
    found = generation_difference(a, b, seed=0, draws=100)
    assert found["hit_ratio@1"]["value"] == pytest.approx(0.5)
    assert found["valid_ratio"]["value"] == pytest.approx(0.5)


def test_case_and_spacing_do_not_matter():
    assert same(" The  Matrix (1999)") == same("the matrix (1999)")
    assert same("The Matrix") != same("Matrix")
