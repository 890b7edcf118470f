"""A configuration is checked whole; every problem comes with what to do about it."""

import pytest

from palate.config import AlignConfig, DataConfig, RunConfig, load_config, parse_config
from palate.errors import ConfigError
from palate.pipeline import run


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ({"data": {"levels": 7}}, ["data.levels: expected a list, such as [7]; found 7."]),
        ({"aling": {}}, ["aling: there is no such key. Did you mean 'align'?"]),
        (
            {"align": {"learning_rat": 1}},
            ["align.learning_rat: there is no such key. Did you mean 'learning_rate'?"],
        ),
        ({"align": {"objective": "sdpo"}}, ["align.objective: 'sdpo' is unknown.", "'s_dpo'"]),
        ({"align": {"beta": 0}}, ["align.beta: input should be greater than 0; found 0."]),
        ({"align": {"beta": "big"}}, ["align.beta:", "found 'big'"]),
        ({"align": {"negatives": {"unifrom": 2}}}, ["Did you mean 'uniform'?"]),
        ({"align": {"negatives": {"uniform": 0}}}, ["0 negatives; expected at least 1"]),
        ({"align": {"reference": "frozn"}}, ["align.reference: 'frozn' is unknown."]),
        ({"data": {"source": "movielens"}}, ["data.path: source 'movielens' needs it."]),
        ({"data": {"options": {"n_user": 3}}}, ["data.options.n_user", "'n_users'"]),
        ({"data": {"levels": [5, 4]}}, ["levels are [5.0, 4.0]; expected thresholds that rise"]),
        ({"data": {"disliked": 4.5}}, ["both liked and disliked"]),
        ({"data": {"fractions": [0.9, 0.8]}}, ["expected two rising shares below 1"]),
        ({"sft": {"metric": "ndgc@10"}}, ["sft.metric"]),
        ({"policy": {"sequence": {"hidden": 9}}}, ["which 2 heads do not divide"]),
        ({"policy": {"sequence": {"streams": ["id", "id"]}}}, ["name each once"]),
        (
            {"policy": {"sequence": {"interaction_experts": 4}}},
            ["interaction_experts is 4, but id is the only stream"],
        ),
        (
            {"policy": {"sequence": {"placeholder_weight": 0.1}}},
            ["neither text nor image to hide"],
        ),
        ({"policy": {"sequence": {"experts": 2, "experts_per_item": 3}}}, ["is 3 of 2 experts"]),
        ({"seed": -1}, ["seed: input should be greater than or equal to 0; found -1."]),
    ],
)
def test_each_mistake_is_one_sentence(content, sentences):
    with pytest.raises(ConfigError) as error:
        parse_config(content)
    for sentence in sentences:
        assert sentence in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_mistakes_come_at_once():
    with pytest.raises(ConfigError) as error:
        parse_config({"sede": 1, "align": {"beta": -1}, "policy": {"bse": "tiny"}})
    assert len(str(error.value).splitlines()) == 3


def test_changes_are_laid_over_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("align: {beta: 2}\n")
    config = load_config(path, ["align.beta=0.5", "data.options={n_users: 7}", "seed=3"])
    assert (config.align.beta, config.data.options, config.seed) == (0.5, {"n_users": 7}, 3)
    for change, sentence in [
        ("align.beta", "expected key=value"),
        ("align.beta.x=1", "'beta' is a value and has no parts"),
        ("align.beta=[1", "is not a YAML value"),
    ]:
        with pytest.raises(ConfigError, match="--set") as error:
            load_config(path, [change])
        assert sentence in str(error.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "demo.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_config(tmp_path / "demo.yaml")
    with pytest.raises(ConfigError, match=r"Did you mean .*demo\.yaml"):
        load_config(tmp_path / "dmeo.yaml")


def test_the_cutoff_of_a_stages_metric_is_computed():
    assert parse_config({"sft": {"metric": "mrr@7"}}).cutoffs == [1, 5, 7, 10, 20]


def test_a_wrong_key_of_an_optional_section_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"policy.adapter.rnk: there is no such key. Did you"):
        parse_config({"policy": {"adapter": {"rnk": 8}}})
    with pytest.raises(ConfigError, match=r"data.source"):
        parse_config({"data": {"source": ["a"]}})
    path = tmp_path / "none.yaml"
    path.write_text("policy: {adapter: null}\n")
    changed = load_config(path, ["policy.adapter.rank=4"])
    assert changed.policy.adapter is not None
    assert changed.policy.adapter.rank == 4


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"align": AlignConfig(objective="sdpo")}, r"align.objective: 'sdpo' is unknown. Did you"),
        ({"align": AlignConfig(objective={"dpo": 1, "sdpo": 1})}, "align.objective: 'sdpo'"),
        ({"align": AlignConfig(negatives={"unifrom": 2})}, "Did you mean 'uniform'"),
        ({"align": AlignConfig(reference="frozn")}, "align.reference: 'frozn' is unknown"),
        ({"align": AlignConfig(objective_options={"lipo": {}})}, "'lipo' is not in align.object"),
        (
            {"align": AlignConfig(sampler_options={"uniform": {"alpha": 1}})},
            "align.sampler_options.uniform.alpha",
        ),
        ({"data": DataConfig(source="simulat")}, "data.source: 'simulat' is unknown"),
        ({"data": DataConfig(options={"n_user": 3})}, "data.options.n_user"),
    ],
)
def test_a_typo_from_python_is_told_where_the_configuration_is_made(sections, sentence):
    with pytest.raises(ConfigError, match=sentence):
        RunConfig(**sections)


@pytest.mark.parametrize(
    ("section", "key", "value", "sentence"),
    [
        ("align", "objective", "sdpo", "align.objective: 'sdpo' is unknown"),
        ("align", "negatives", {"unifrom": 2}, "align.negatives.unifrom"),
        ("align", "metric", "ndgc@10", "align.metric: string should match"),
        ("sft", "metric", "ndcg@0", "sft.metric: string should match"),
        ("policy", "kind", "sequense", "policy.kind: input should be"),
        ("data", "split", "leave_two_out", "data.split: input should be"),
        ("evaluation", "protocols", ["catalog"], "evaluation.protocols.0: input should be"),
    ],
)
def test_a_typo_set_later_is_told_before_anything_is_made(section, key, value, sentence, tmp_path):
    config = RunConfig()
    setattr(getattr(config, section), key, value)
    with pytest.raises(ConfigError, match=sentence):
        run(config, tmp_path / "out", say=lambda line: None)
    assert not list(tmp_path.iterdir())
