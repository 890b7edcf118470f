"""Which runs a grid consists of, and what they are called."""

import pytest

from palate.errors import ConfigError
from palate.sweep.grid import read_over, settings_of, short_names, without


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("align: {negatives: {uniform: 2}}\n")
    return path


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("align.beta=0.5,1", [0.5, 1]),
        ("align.objective=dpo", ["dpo"]),
        ("align.negatives={uniform: 5, observed: 5},{uniform: 9}",
         [{"uniform": 5, "observed": 5}, {"uniform": 9}]),
        ("evaluation.cutoffs=[1, 5],[10]", [[1, 5], [10]]),
        ("align.objective=s_dpo,{mult_dpo: 1, sft: 0.1}", ["s_dpo", {"mult_dpo": 1, "sft": 0.1}]),
        ("policy.adapter=null,{}", [None, {}]),
        ("data.path='a,b.csv',it's.csv", ["a,b.csv", "it's.csv"]),
        ("data.options={path: 'x}, y'},{path: z}", [{"path": "x}, y"}, {"path": "z"}]),
    ],
)  # fmt: skip
def test_commas_in_brackets_and_quotes_separate_nothing(text, values):
    assert read_over([text]) == {text.partition("=")[0]: values}


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["align.beta"], "expected key=value,value"),
        (["align.beta="], "expected key=value,value"),
        (["=1"], "expected key=value,value"),
        (["align.beta=1,,2"], "a value is empty; write null for none"),
        (["align.beta=1", "align.beta=2"], "align.beta is given twice"),
        (["align.negatives={uniform: 1"], "is not a YAML value"),
    ],
)
def test_what_is_no_grid_is_refused(texts, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_over(texts)


def test_all_combinations_have_their_values_and_names(config):
    over = read_over(["align.objective=dpo,mult_dpo", "align.learning_rate=1e-3,0.0002"])
    found = settings_of(config, over, ["align.beta=2"])
    assert [setting.name for setting in found] == [
        "objective-dpo+learning_rate-0.001",
        "objective-dpo+learning_rate-0.0002",
        "objective-mult_dpo+learning_rate-0.001",
        "objective-mult_dpo+learning_rate-0.0002",
    ]
    assert found[0].values == {"align.objective": "dpo", "align.learning_rate": 0.001}
    assert [one.config.align.learning_rate for one in found] == [0.001, 0.0002] * 2
    assert {one.config.align.beta for one in found} == {2.0}


def test_any_value_makes_a_name_for_a_folder(config):
    negatives = [{"uniform": 5, "observed": 4}, {"uniform": 9}]
    found = settings_of(config, {"align.negatives": negatives, "align.dynamicpo": [None, {}]})
    assert [setting.name for setting in found] == [
        "negatives-uniform-5-observed-4+dynamicpo-null",
        "negatives-uniform-5-observed-4+dynamicpo-default",
        "negatives-uniform-9+dynamicpo-null",
        "negatives-uniform-9+dynamicpo-default",
    ]
    odd = ["a/b c", "a?b*c", "x" * 90, "x" * 91]
    names = [setting.name for setting in settings_of(config, {"policy.base": odd})]
    assert names[:2] == ["base-a-b-c", "base-a-b-c~2"]
    assert len(set(names)) == 4
    assert max(map(len, names)) < 60
    assert settings_of(config, {})[0].name == "base"


def test_one_key_of_a_dictionary_can_be_swept_over(config):
    found = settings_of(config, {"align.negatives.uniform": [1, 3]})
    assert [setting.config.align.negatives for setting in found] == [{"uniform": 1}, {"uniform": 3}]
    assert found[1].name == "uniform-3"


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ({"align.beta": [1, 1.0]}, "are the same configuration; name one"),
        ({"align.beta": []}, "there is no value"),
        ({"seed": [1, 2]}, "use --seeds N"),
        ({"align.objective": ["dpo", "dop"]}, 'with align.objective="dop": .*Did you mean'),
        ({"align.bta": [1]}, "there is no such key. Did you mean 'beta'"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(over, sentence, config):
    with pytest.raises(ConfigError, match=sentence):
        settings_of(config, over)


def test_short_names_tell_keys_apart():
    assert short_names(["align.beta", "align.max_steps", "sft.max_steps"]) == {
        "align.beta": "beta",
        "align.max_steps": "align.max_steps",
        "sft.max_steps": "sft.max_steps",
    }


def test_without_takes_out_nested_keys_alone():
    content = {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": None}
    assert without(content, ["a.c.d", "f.g", "x"]) == {"a": {"b": 1, "c": {"e": 3}}, "f": None}
    assert content["a"]["c"] == {"d": 2, "e": 3}
