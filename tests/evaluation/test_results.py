"""Results: the READMEs show what docs/results holds and nothing else; figures have the shape of the question."""

import json

import pytest

from glmasr.evaluation.results import (
    READMES,
    RESULTS,
    cell,
    figures,
    publish,
    read_results,
    redraw,
    table,
    with_results,
    write_json,
)
from glmasr.speech import InputError
from tests.small import REPOSITORY


def result(budgets=("all",), conditions=("clean",), corpora=("fsdd", "aishell")) -> dict:
    """A document of two arms and two seeds with the given places."""
    places = [
        {"corpus": corpus, "budget": budget, "condition": condition, "metric": "wer", "arm": arm}
        for corpus in corpora
        for budget in budgets
        for condition in conditions
        for arm in ("scratch", "kmeans")
    ]
    rates = {"value": 0.165, "low": 0.14, "high": 0.19, "seed_min": 0.16, "seed_max": 0.17}
    test = {"delta": -0.01, "p_value": 0.0123, "seeds_better": "2/2"}
    summary = [
        place | rates | {"seeds": [0, 1], "steps": [600]} | (test if place["arm"] == "kmeans" else {})
        for place in places
    ]
    rows = [
        place | {"seed": seed, "value": 0.16 + seed / 100, "labelled_minutes": 17.04}
        for place in places
        for seed in (0, 1)
    ]
    facts = {
        "experiment": "tiny",
        "question": "what?",
        "command": "make it",
        "commit": "c" * 40,
        "date": "2026-11-22T10",
    }
    return {**facts, "baseline": "scratch", "summary": summary, "rows": rows}


def test_a_cell_has_the_rate_its_interval_and_the_test():
    scratch, kmeans = result()["summary"][:2]
    assert cell(scratch) == "16.5 (14.0–19.0) [16.0–17.0]"
    assert cell(kmeans) == "16.5 (14.0–19.0) [16.0–17.0], p 0.012"
    assert cell(scratch | {"seeds": [0]}) == "16.5 (14.0–19.0)"


def test_a_table_has_a_line_for_each_place_and_a_column_for_each_arm():
    lines = table(result(budgets=("1 min", "10 min"), conditions=("clean", "snr=5")))
    assert lines[0] == "| corpus, labels | condition | scratch | kmeans | steps |" and len(lines) == 2 + 2 * 2 * 2
    assert (
        lines[3]
        == "| fsdd WER, 1 min | snr=5 | 16.5 (14.0–19.0) [16.0–17.0] | 16.5 (14.0–19.0) [16.0–17.0], p 0.012 | 600 |"
    )
    assert "condition" not in table(result())[0]
    lacking = result()
    del lacking["summary"][1]
    assert "|  | 600 |" in table(lacking)[2]


def test_the_figures_are_curves_over_budgets_or_bars():
    assert set(figures(result())) == {""}
    curves = figures(result(budgets=("1 min", "10 min", "all")))
    assert set(curves) == {"_fsdd", "_aishell"} and "minutes of labels" in curves["_fsdd"] and "17" in curves["_fsdd"]
    assert "clips of each transcript" in figures(result(budgets=("1 per text", "10 per text")))["_fsdd"]
    noisy = figures(result(conditions=("clean", "snr=5"), corpora=("fsdd",)))
    assert set(noisy) == {"", "_fsdd_conditions"} and "snr=5" in noisy["_fsdd_conditions"]


def test_publishing_writes_draws_and_renews_the_tables(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    (tmp_path / "plain.md").write_text("no markers")
    (tmp_path / "speed.json").write_text('{"another": "kind"}')
    found = result()
    publish(found, "tiny", tmp_path, [str(readme), str(tmp_path / "plain.md"), str(tmp_path / "absent.md")])
    assert read_results(tmp_path) == {"tiny": found}
    assert (tmp_path / "tiny.svg").read_text().startswith("<?xml")
    text = readme.read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "old" not in text
    assert "![tiny](docs/results/tiny.svg)" in text and "p 0.012" in text and "seeds 0, 1" in text
    assert "commit cccccccccccc, 2026-11-22" in text and (tmp_path / "plain.md").read_text() == "no markers"
    before = readme.stat().st_mtime_ns
    redraw(tmp_path, [str(readme)])
    assert readme.stat().st_mtime_ns == before


def test_a_chinese_readme_is_in_chinese():
    text = with_results("<!-- results:begin -->\n<!-- results:end -->", {"tiny": result()}, "zh")
    assert "语料,标注" in text and "与 scratch 的配对检验" in text


def test_a_document_is_written_a_row_a_line_and_whole(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"empty": [], "text": "é", "rows": [{"a": 1}, {"a": 2}]})
    lines = (tmp_path / "deep" / "a.json").read_text(encoding="utf-8").splitlines()
    assert '  {"a": 1},' in lines and json.loads("\n".join(lines)) == {
        "empty": [],
        "text": "é",
        "rows": [{"a": 1}, {"a": 2}],
    }
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable folder"):
        write_json(tmp_path / "file" / "a.json", {})


@pytest.mark.parametrize("name", READMES)
def test_the_readme_shows_what_the_results_hold(name):
    documents = read_results(REPOSITORY / RESULTS)
    if not documents:
        pytest.skip("no results are committed yet")
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert "<!-- results:begin -->" in text
    assert with_results(text, documents, "zh" if "zh" in name else "en") == text
    for stem, document in documents.items():
        drawn = {f"{stem}{end}.svg" for end in figures(document)}
        assert drawn <= {path.name for path in (REPOSITORY / RESULTS).glob("*.svg")}
