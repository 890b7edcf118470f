"""YAML is read as people mean it: numbers as JSON's, texts verbatim, no key twice."""

import json
import shlex

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import command
from palate.config import load_config
from palate.config.yaml_text import read_value, read_yaml, write_yaml
from palate.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sft:\n  epochs: 1\nsft:\n  batch_size: 4\n", "lines 1 and 3: the key 'sft' is given"),
        ("align:\n  beta: 1\n\n  beta: 2\n", "lines 2 and 4: the key 'beta' is given twice"),
        ("align: {beta: 1, beta: 2}\n", "line 1: the key 'beta' is given twice"),
        ("data:\n  options: {a: {b: 1,\n b: 2}}\n", "lines 2 and 3: the key 'b' is given twice"),
        ("seed: 1\n'seed': 2\n", "lines 1 and 2: the key 'seed' is given twice"),
        ("data:\n  events:\n    1: 1\n    '1': 2\n", "lines 3 and 4: the key '1' is given twice"),
        ("data: {events: {1: 1, 0x1: 2}}\n", "line 1: the key '0x1' is given twice"),
        ("data: {options: {true: 1, yes: 2}}\n", "line 1: the key 'yes' is given twice"),
        ("align:\n  <<: {beta: 1, beta: 2}\n", "line 2: the key 'beta' is given twice"),
    ],
)
def test_a_key_given_twice_is_an_error_with_both_lines(text, sentence, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence) as error:
        load_config(tmp_path / "a.yaml")
    assert str(tmp_path / "a.yaml") in str(error.value)


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 3000 + "]" * 3000, "\xff"])
def test_what_cannot_be_read_is_one_sentence(text, tmp_path):
    (tmp_path / "a.yaml").write_bytes(f"seed: {text}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a\.yaml is not readable as YAML: "):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("")
    if text != "\xff":
        with pytest.raises(ConfigError, match=r"--set seed=.* is not a YAML value"):
            load_config(tmp_path / "a.yaml", [f"seed={text}"])


def test_a_folder_in_place_of_a_configuration_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


def test_what_is_merged_may_be_overridden():
    text = "a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\n"
    assert read_yaml(text)["b"] == {"x": 1, "y": 3}
    nested = "a: &a {k: 1}\nx:\n  y:\n    z: &b\n      <<: *a\n      k: 2\nc:\n  <<: *b\n"
    assert read_yaml(nested)["c"] == read_yaml(nested)["x"]["y"]["z"] == {"k": 2}


@pytest.mark.parametrize(
    "value",
    ["a #b.csv", "#b.csv", "C: new.csv", "C:\\new.csv", "@x", "%x", "`x`", "&x", "*x", "!x", "| x",
     "> x", "- x", "? x", "it's.csv", "'tis.csv", '"a" b.csv', "12:30", "2024-01-31", "010",
     "x: y: z", "---", "a\tb", "5 # b", "0x_", "=", "<<"],
)  # fmt: skip
def test_a_changed_value_keeps_all_of_its_text(value, tmp_path):
    (tmp_path / "a.yaml").write_text("")
    change = f"policy.base={value}"
    assert load_config(tmp_path / "a.yaml", [change]).policy.base == value


def test_other_values_are_what_they_were(tmp_path):
    values = {"1": 1, "1e-5": 1e-5, "1.0e-05": 1e-5, ".5": 0.5, "1_000": 1000, "true": True,
              "null": None, "": None, "[1, a]": [1, "a"], "{a: 1e-3}": {"a": 1e-3},
              '"a #b"': "a #b", "'1'": "1", "[a] #x": "[a] #x"}  # fmt: skip
    assert {text: read_value(text) for text in values} == values
    with pytest.raises(yaml.YAMLError):
        read_value("[1")
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "b.yaml").write_text("data: {source: files}")
    with pytest.raises(ConfigError, match=r"--set align.negatives=.*'uniform' is given twice"):
        load_config(tmp_path / "a.yaml", ["align.negatives={uniform: 1, uniform: 2}"])
    with pytest.raises(ConfigError, match=r"policy\.base: .*; found 7\. Put it in quotation marks"):
        load_config(tmp_path / "a.yaml", ["policy.base=7"])
    for text in ("yes", "1_0", "off"):  # as typed, in quotes that a shell leaves
        with pytest.raises(ConfigError, match=f"text: --set 'data.path=\"{text}\"'") as told:
            load_config(tmp_path / "a.yaml", [f"data.path={text}"])
        again = shlex.split(str(told.value).splitlines()[0].split("--set ")[1].rstrip("."))
        assert load_config(tmp_path / "b.yaml", again).data.path == text
    (tmp_path / "a.yaml").write_text("data: {path: yes}")
    with pytest.raises(ConfigError, match="quotation marks to have the text\\."):
        load_config(tmp_path / "a.yaml")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values))
def test_what_is_written_is_read_the_same(content):
    assert read_yaml(write_yaml(content)) == content


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_a_number_in_pythons_writing_is_that_number(number):
    """Python's own reader of numbers is the truth: repr gives 1e-05 as well as 0.1."""
    assert read_value(repr(number)) == number == json.loads(repr(number))


def test_the_printed_configuration_has_the_path_as_it_was_typed(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {source: files, path: log.csv}\n")
    said = command("run", "a.yaml", "--set", "data.path=a #b.csv", "--print-config",
                   folder=tmp_path)  # fmt: skip
    assert said.returncode == 0
    assert yaml.safe_load(said.stdout)["data"]["path"] == "a #b.csv"
