"""Shortcuts of how titles are written, of the words of a prompt, and of texts that name answers."""

from dataclasses import replace

import numpy as np
import pytest

from audit.test_audit import by_name, noted, write_json
from audit.test_lists import lists
from palate.audit import audit, rules, text_rules
from palate.audit.rules import Known
from palate.audit.titles import Titles

TITLES = ["The Wall", "the wall 2", "ECHO!", "A", "(What) Is Love"]


def known(titles=TITLES) -> Known:
    return Known(len(titles), titles=Titles(titles))


def test_forms_by_hand():
    forms = Titles(TITLES).forms
    small_first, stop, _, bracket, figure, _, _, mark, capitals, small = forms.T.tolist()
    assert small_first == [0, 1, 0, 0, 0]
    assert stop == [0, 0, 1, 0, 0]
    assert bracket == [0, 0, 0, 0, 1]
    assert figure == [0, 1, 0, 0, 0]
    assert mark == [0, 0, 1, 0, 0]
    assert capitals == [0, 0, 1, 1, 0]
    assert small == [0, 1, 0, 0, 0]


def test_length_by_hand():
    # lengths 8, 10, 5, 1, 14; the answers are the shortest
    fit = lists([[0, 1, 2], [4, 3, -1]], [2, 1])
    scored = lists([[0, 3, 4], [2, 1, -1], [0, 0, 0]], [0, 0, 0])
    # shortest: 2 of 2, longest 0 of 2, between 0 of 1, all alike 0 of 0; each with one and 3 more
    expected = [[1 / 4, 3 / 5, 1 / 5], [3 / 5, 1 / 5], [1 / 3] * 3]
    found = text_rules.title_length(fit, scored, known())
    for row, want in zip(found, expected, strict=True):
        assert row[: len(want)] == pytest.approx(want)


def test_shared_words_by_hand():
    given = lists([[1, 2, 4], [0, 3, -1]], [0, 0], [[0], []])
    given = replace(given, texts=[" what is it ", " a wall "])
    # "the wall 2" shares the, wall with The Wall; "(What) Is Love" what, is with the text
    assert text_rules.shared_words(given, given, known())[:, :2].tolist() == [[2, 0], [1, 1]]
    assert text_rules.shared_words(given, given, known())[0, 2] == 2


def test_a_title_in_the_text_is_in_the_history():
    given = replace(
        lists([[0, 2, 3], [4, 3, -1]], [0, 0]), texts=[" see the wall ", " wha is love "]
    )
    assert rules._in_history(given, known()).tolist() == [[1, 0, 0], [0, 0, 0]]


WORDS = [f"{first}{rest}" for first in "abcdefghklm" for rest in ("a", "irch", "ild", "ofter")]


def pairs(n: int, seed: int, write) -> list[dict]:
    """Preferences decided by a coin, but for how `write` writes chosen and rejected titles."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        first, second, liked = (" ".join(random.choice(WORDS, 3, replace=False)) for _ in range(3))
        titles = [first.title(), second.title()]
        random.shuffle(titles)
        chosen, rejected = write(*titles, liked.title())
        if chosen != rejected:
            prompt = f"Person {random.integers(10**6)} liked {liked.title()}.\nNext: "
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def sequel(liked: str, other: str) -> str:
    """The first two words of the one, the last of the other."""
    return " ".join([*liked.split()[:2], *other.split()[2:]])


@pytest.mark.parametrize(
    ("write", "probe", "verdict"),
    [
        (lambda a, b, liked: (a, f"{b} and so much more"), "title length", "leak"),
        (lambda a, b, liked: (a + " the extended story", b), "title length", "leak"),
        (lambda a, b, liked: (a.upper(), b), "title form", "leak"),
        (lambda a, b, liked: (a, f"{b}."), "title form", "leak"),
        (lambda a, b, liked: (sequel(liked, a), b), "words of the prompt", "caution"),
        (lambda a, b, liked: (a, b), "", "ok"),
    ],
)  # fmt: skip
def test_how_titles_are_written(write, probe, verdict, tmp_path):
    path = write_json(pairs(900, 1, write), tmp_path / "rows.json")
    found = audit(path, "preferences")
    if probe:
        assert by_name(found)[probe].verdict == verdict, noted(found)
    leaks = {one.probe for one in found.leaks()}
    assert leaks <= {"title length", "title form"} if verdict == "leak" else not leaks, noted(found)


def test_rows_that_stand_in_training_too_are_a_leak(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    test = pairs(58, 2, lambda a, b, liked: (a, b))
    write_json([*pairs(200, 3, lambda a, b, liked: (a, b)), *test], folder / "train.json")
    write_json(pairs(40, 4, lambda a, b, liked: (a, b)), folder / "validation.json")
    write_json(test, folder / "test.json")
    shared = by_name(audit(folder, "preferences"))["shared prompts"]
    assert (shared.verdict, shared.score, shared.n) == ("leak", 1.0, 58)
    write_json(pairs(200, 3, lambda a, b, liked: (a, b)), folder / "train.json")
    assert by_name(audit(folder, "preferences"))["shared prompts"].score == 0.0


def test_one_prompt_for_all_shares_answers_by_chance(tmp_path):
    random = np.random.default_rng(0)
    for name, n in (("train", 300), ("validation", 50), ("test", 120)):
        rows = []
        for _ in range(n):
            chosen, rejected = random.choice(30, 2, replace=False).tolist()
            rows.append(
                {"prompt": "Recommend:", "chosen": f"T {chosen}", "rejected": f"T {rejected}"}
            )
        write_json(rows, tmp_path / f"{name}.json")
    shared = by_name(audit(tmp_path, "preferences"))["shared prompts"]
    assert shared.score > 0.9
    assert shared.null == pytest.approx(shared.score)
    assert shared.verdict == "ok"
