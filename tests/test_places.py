"""Where a run goes: `.` is a folder like any other, and what a user had there stays."""

import pytest
import yaml

from conftest import command, log
from palate.config import parse_config
from palate.data.prepare import Preparation, prepare
from palate.data.prepared import Prepared
from palate.errors import ConfigError, DataError
from palate.pipeline import go_on, run
from palate.policies.language.templates import read_templates

SMALL = {
    "trackers": [],
    "data": {"options": {"n_users": 60, "n_items": 40, "visits": 16}, "k_core": 2},
    "policy": {"kind": "sequence", "sequence": {"hidden": 16, "inner": 16}},
    "sft": {"max_steps": 2, "batch_size": 8},
}


def quiet(_line):
    pass


def test_a_run_goes_where_one_is(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    bad = SMALL | {"data": SMALL["data"] | {"levels": [9.0]}}
    with pytest.raises(DataError, match="no rating reaches"):
        run(parse_config(bad), folder.relative_to(folder), say=quiet)
    assert folder.is_dir()
    assert not list(folder.iterdir())
    run(parse_config(SMALL), folder.relative_to(folder), say=quiet, until="prepare")
    assert (folder / "data.json").is_file()
    go_on(folder.relative_to(folder), "sft", say=quiet)
    assert (folder / "sft" / "palate.json").is_file()
    with pytest.raises(
        ConfigError, match=r"--overwrite would delete .*here, in which this command"
    ):
        run(parse_config(SMALL), folder, overwrite=True, say=quiet)
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    with pytest.raises(ConfigError, match="--overwrite would delete"):
        run(parse_config(SMALL), folder / "below" / "..", overwrite=True, say=quiet)
    assert (folder / "sft" / "palate.json").is_file()


def test_the_command_prepares_where_it_is_called(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(SMALL))
    done = command("prepare", "../a.yaml", "--out", ".", folder=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "data.json").is_file()
    again = command("prepare", "../a.yaml", "--out", "..", folder=tmp_path / "here")
    assert again.returncode == 2
    assert "is not empty and not a run folder" in again.stderr


def test_a_folder_with_somebody_elses_configuration_is_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_bytes("# Größe: 3\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not empty and not a run folder"):
        run(parse_config(SMALL), tmp_path, say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_prompts_in_another_encoding_are_named_and_a_mark_of_utf8_is_none_of_theirs(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("Seen:\n{history}\n---\nDéjà vu:\n{history}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"policy.prompts: .*prompts.txt line 4 is not UTF-8"):
        read_templates(str(path))
    path.write_text("Déjà vu:\n{history}\n", encoding="utf-8-sig")
    text, templates = read_templates(str(path))
    assert text.startswith("D")
    assert templates[0].pieces[0].startswith("D")


@pytest.mark.parametrize("least", [2, 3, 9])
def test_people_with_fewer_items_than_a_history_needs_have_no_context(least, tmp_path):
    """The last person of the log has one item: there is no row at which their context begins."""
    rows = [(user, item, item, 5) for user in range(3) for item in range(9)]
    alone = [(7, 0, 0, 5), (8, 1, 0, 5)]
    how = Preparation(k_core=1, min_history=least)
    prepare(log([*rows, *alone]), tmp_path, how, seed=1)
    data = Prepared(tmp_path, window=1, min_history=least)
    if least == 9:
        with pytest.raises(DataError, match="has no context with a history"):
            data.contexts("train")
        return
    for split in ("train", "validation", "test"):
        contexts = data.contexts(split)
        assert min(len(context.history) for context in contexts) >= least
        assert {context.user_id for context in contexts} == {0, 1, 2}
        assert len(contexts) == (3 * (7 - least) if split == "train" else 3)
