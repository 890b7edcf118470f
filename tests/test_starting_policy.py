"""The sequence policy that a configuration describes: new, or a saved one over its catalogue."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from palate.config import parse_config
from palate.environment import check_data
from palate.errors import ConfigError
from palate.item_vectors import ItemVectors
from palate.pipeline import run
from palate.policies import load_policy
from palate.starting_policy import new_policy


def section(**policy):
    return parse_config({"seed": 4, "policy": {"kind": "sequence", "max_history": 9, **policy}})


def vectors_of(items):
    size = (items.num_rows, 5)
    vectors = np.random.default_rng(0).normal(size=size).astype(np.float32)
    return {"text": ItemVectors("text", vectors, np.ones(size[0], bool), "digest")}


def test_the_shape_the_vectors_and_the_popularity_reach_the_model(small_data):
    shape = {"streams": ["text"], "hidden": 8, "experts": 3, "sampled_softmax": 5}
    config = section(sequence=shape | {"sample_by": "popularity"})
    counts = np.arange(small_data.n_items)
    policy = new_policy(config, small_data.items, vectors_of(small_data.items), counts)
    chosen = policy.model.config
    assert (chosen.streams, chosen.hidden, chosen.experts, chosen.seed) == (["text"], 8, 3, 4)
    assert policy.max_history == 9
    assert policy.model.proposals.cumulative.diff().tolist() == (counts[1:] + 1).tolist()
    given = policy.model.streams["text"].vectors.given
    assert np.array_equal(given.numpy(), vectors_of(small_data.items)["text"].vectors)
    with pytest.raises(
        ConfigError, match=r"'text' needs text vectors .* Set policy\.vectors\.text"
    ):
        new_policy(config, small_data.items)


def test_a_saved_policy_goes_on_over_another_catalogue(small_data, tmp_path):
    config = section(sequence={"streams": ["text"], "hidden": 8})
    new_policy(config, small_data.items, vectors_of(small_data.items)).save(tmp_path)
    again = section(base=str(tmp_path))
    assert new_policy(again, small_data.items).n_items == small_data.n_items
    with pytest.raises(ConfigError, match=r"max_history is 5, but the saved policy .* reads 9"):
        new_policy(section(base=str(tmp_path), max_history=5), small_data.items)
    fewer = small_data.items.slice(3)
    assert new_policy(again, fewer, vectors_of(fewer)).n_items == small_data.n_items - 3


def test_streams_and_vectors_agree():
    assert section(sequence={"streams": ["id", "text"]}).policy.vectors.text is not None
    assert section().policy.vectors.text is None
    with pytest.raises(ConfigError, match=r"vectors\.text is set, but sequence\.streams is \['id'"):
        section(vectors={"text": {}})
    with pytest.raises(
        ConfigError, match=r"'image'\], but vectors\.image is not set; give the path"
    ):
        section(sequence={"streams": ["id", "image"]})
    with pytest.raises(ConfigError, match=r"vectors are for kind=sequence"):
        section(kind="language", vectors={"text": {}})


def test_experts_by_time_need_times(small_data):
    config = section(sequence={"time_experts": 2})
    check_data(config, small_data)
    timeless = copy(small_data)
    timeless.interactions = replace(small_data.interactions, times=None)
    with pytest.raises(ConfigError, match=r"time_experts is 2, but source .* gives no timestamps"):
        check_data(config, timeless)


@pytest.mark.filterwarnings("ignore::palate.errors.DataWarning")
def test_a_run_makes_the_vectors_and_keeps_them(tmp_path):
    shape = {"hidden": 8, "heads": 1, "inner": 8, "streams": ["id", "text"], "experts": 3}
    config = parse_config(
        {
            "data": {"source": "simulate", "options": {"n_users": 40, "n_items": 30}},
            "policy": {
                "kind": "sequence",
                "max_history": 6,
                "sequence": shape | {"interaction_experts": 2, "time_experts": 2},
            },
            "sft": {"max_steps": 2},
            "align": {"max_steps": 2, "negatives": {"uniform": 2}},
            "evaluation": {"test_contexts": 10, "validation_contexts": 10},
        }
    )
    said: list[str] = []
    metrics = run(config, tmp_path / "run", say=said.append)
    assert 0 <= metrics["aligned"]["catalogue"]["ndcg@10"]["value"] <= 1
    assert any("text vectors" in line for line in said)
    kept = list((tmp_path / "run" / "data" / "vectors").iterdir())
    assert len(kept) == 1
    policy = load_policy(tmp_path / "run" / "aligned")
    given = policy.model.streams["text"].vectors
    assert given.given.shape[0] == policy.items.num_rows
    assert given.present.all()
