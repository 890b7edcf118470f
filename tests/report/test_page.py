"""The page of a run: whole without a network, harmless whatever titles hold, made from files."""

import base64
import gzip
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from palate.audit import Audit, Finding
from palate.errors import CheckpointError, ConfigError
from palate.evaluation.beyond_accuracy import category_diversity
from palate.files import write_json
from palate.pipeline import go_on
from palate.report.charts import Numbers
from palate.report.page import write_report
from palate.report.rendering import TEMPLATES, rendered
from report.shops import HOSTILE, shop


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._within = [], "", ""
        self.scripts = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._within = tag if tag in ("script", "style") else self._within
        if tag == "script":
            self._name = dict(attrs).get("id", "main")
            self.scripts[self._name] = ""

    def handle_endtag(self, tag):
        self._within = "" if tag == self._within else self._within

    def handle_data(self, data):
        if self._within == "script":
            self.scripts[self._name] += data
        elif not self._within:
            self.text += data

    @property
    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(finished, out) == out
    return out.read_text("utf-8")


def without(finished, tmp_path, *names):
    """A copy of a run without some of its files."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for name in names:
        (copy / name).unlink()
    return copy


def test_it_is_small_and_asks_for_nothing(page):
    assert len(page.encode()) < 5_000_000
    found = Page(page)
    for tag, attributes in found.tags:
        assert tag not in ("iframe", "img", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name, "")
            assert value.startswith(("#", "data:,")) or not value, (tag, name, value)
    assert "default-src 'none'" in page
    assert "@import" not in page


def test_titles_are_text_whatever_they_hold(page):
    found = Page(page)
    assert {name: len(found.scripts[name]) > 0 for name in found.scripts} == {
        "charts": True,
        "plotly": True,
        "main": True,
    }
    shown = [title for title in HOSTILE if title in found.text]
    assert HOSTILE[0] in shown
    assert len(shown) == len(HOSTILE)


def test_figures_in_the_page_cannot_end_their_script():
    hostile = "</script><script>window.broken = true</script><!--"
    text = TEMPLATES.from_string("<script id=a>{{ figures | tojson }}</script>").render(
        figures={"title": hostile}
    )
    assert json.loads(Page(text).scripts["a"]) == {"title": hostile}
    assert len([tag for tag, _ in Page(text).tags if tag == "script"]) == 1


def test_every_chart_has_a_place_a_name_and_a_table(page):
    found = Page(page)
    figures = json.loads(found.scripts["charts"])
    drawings = {
        attributes["id"]: attributes
        for _, attributes in found.tags
        if attributes.get("class") == "drawing"
    }
    assert set(drawings) == {f"chart-{name}" for name in figures}
    assert {"stages", "differences", "ranks", "slices", "validation", "logps", "kl", "bound"} <= (
        set(figures)
    )
    assert all(one["role"] == "img" and one["aria-label"] for one in drawings.values())
    tables = [attributes for tag, attributes in found.tags if tag == "table"]
    assert len(tables) >= len(figures)


def test_ids_are_unique_and_links_lead_to_them(page):
    found = Page(page)
    assert [name for name, n in Counter(found.ids).items() if n > 1] == []
    links = [a["href"][1:] for tag, a in found.tags if tag == "a" and a["href"].startswith("#")]
    assert set(links) <= set(found.ids)
    labels = [a["aria-labelledby"] for _, a in found.tags if "aria-labelledby" in a]
    assert set(labels) <= set(found.ids)


def test_it_says_what_the_files_say(page, finished):
    text = Page(page).text
    metrics = json.loads((finished / "metrics.json").read_text())
    assert f"{metrics['aligned']['catalogue']['ndcg@10']['value']:.4f}" in text
    manifest = json.loads((finished / "data.json").read_text())
    assert all(value in text for value in manifest["sha256"].values())
    assert "max_steps: 12" in text
    assert "20 users to look at" in text
    assert text.count("After: aligned") == 20
    assert re.search(r"Of \d+ held-out items \d+ moved up", text)
    assert "False negatives, items that the person goes on to like later" in text


def test_plotly_comes_out_of_the_page_as_it_went_in(page):
    packed = Page(page).scripts["plotly"].strip()
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()


def test_the_same_files_give_the_same_page(page, finished, tmp_path):
    assert write_report(finished, tmp_path / "again.html").read_text("utf-8") == page


def test_a_page_without_charts_holds_no_plotly():
    assert len(rendered("sweep.html", [], **bare())) < 20_000


def bare():
    words = dict.fromkeys(("title", "name", "question", "sentence"), "words")
    lists = {name: [] for name in ("sections", "remarks", "charts")}
    return {**words, **lists, "settings": Numbers(["setting"], [])}


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("train.jsonl", "no train.jsonl"),
        ("audit.json", "was not audited"),
        ("examples.parquet", "evaluated without them"),
    ],
)
def test_what_is_missing_is_left_out_with_a_word(finished, tmp_path, missing, sentence):
    folder = without(finished, tmp_path, missing)
    text = Page(write_report(folder).read_text("utf-8")).text
    assert sentence in text
    assert "aligned ranks" in text or "No difference" in text


def test_a_run_without_alignment_has_a_page(finished, tmp_path):
    folder = tmp_path / "sft-only"
    go_on(finished, "sft", out=folder, say=lambda _line: None)
    go_on(folder, "evaluate", say=lambda _line: None)
    found = Page(write_report(folder).read_text("utf-8"))
    assert "Nothing was aligned: imitation reaches NDCG@10" in found.text
    assert "Nothing was aligned" in found.text
    assert "After: aligned" not in found.text
    assert {"users", "slices"}.isdisjoint(found.ids)


def test_lists_that_were_only_scored_leave_nobody_to_look_at(tmp_path):
    folder = shop(tmp_path, evaluation={"protocols": ["candidates"]})
    found = Page(write_report(folder).read_text("utf-8"))
    assert not (folder / "examples.parquet").exists()
    assert "ranked candidate lists alone" in found.text
    assert "NDCG@10|20" in found.text


def test_a_leak_stands_beside_the_results(finished, tmp_path):
    folder = without(finished, tmp_path)
    leak = Finding(
        "position", "lists", "HR@1", 0.55, 0.5, 0.6, 0.06, "leak", "It <b>leaks</b>.", "Redraw.", 9
    )
    write_json(Audit("x", (leak,), {"ties": "no times"}, "lists").to_json(), folder / "audit.json")
    text = Page(write_report(folder).read_text("utf-8")).text
    assert "No figure here can be trusted: the data leaks" in text
    assert "position 0.5500 (redrawn 0.0600)" in text
    assert "It <b>leaks</b>. Redraw." in text


def test_what_is_no_evaluated_run_is_refused_in_a_sentence(finished, tmp_path):
    with pytest.raises(CheckpointError, match="is not a run folder"):
        write_report(tmp_path)
    with pytest.raises(CheckpointError, match=r"not evaluated yet\. First: palate evaluate"):
        write_report(without(finished, tmp_path, "metrics.json"))


@pytest.mark.parametrize(
    "name", ["metrics.json", "audit.json", "examples.parquet", "ranks.parquet"]
)
def test_a_file_that_is_cut_off_is_named(finished, tmp_path, name):
    folder = without(finished, tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=name):
        write_report(folder)


def test_a_folder_is_never_replaced_by_a_page(finished, tmp_path):
    mine = tmp_path / "mine.html"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    for out in (mine, tmp_path / "data.csv"):
        with pytest.raises(ConfigError, match="expected the name of a page"):
            write_report(finished, out)
    assert (mine / "thesis.tex").exists()


def test_a_line_that_a_killed_run_was_writing_is_left_out(finished, tmp_path):
    folder = without(finished, tmp_path)
    before = write_report(folder).read_text("utf-8")
    with (folder / "train.jsonl").open("a") as stream:
        stream.write('{"stage": "align", "st')
    assert write_report(folder).read_text("utf-8") == before


def test_what_the_page_says_of_diversity_is_its_formula(page):
    """Four items of categories 7, 7, 8 and 9: three categories over four places; of the six pairs
    five differ."""
    found = category_diversity([[0, 1, 2, 3]], np.array([7, 7, 8, 9]))
    assert found == 3 / 4
    said = "diversity: distinct categories in a list divided by its length, on average"
    assert said in Page(page).text
