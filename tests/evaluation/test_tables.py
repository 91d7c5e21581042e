"""A report's tables reach Weights & Biases without an account or a network."""

import pytest

from glmasr.evaluation.benchmark import Card, Heard, Outcome, Run, compare, summarize
from glmasr.evaluation.report import as_json
from glmasr.evaluation.tables import COLUMNS, log_tables, rows_of

RESULT = {"test_set": "a", "condition": "clean", "metric": "wer", "system": "ours", "value": 0.25, "low": 0.2}
REPORT = {
    "results": [RESULT | {"high": 0.3, "words": 8, "rtf": 0.1, "speakers": 2}],
    "comparisons": [],
    "systems": [{"name": "ours", "parameters": 3, "size_bytes": 12}],
    "errors": [],
    "provenance": {"command": "benchmark.py", "git_commit": "abc", "data": "d", "seed": 0},
}


def test_rows_hold_what_the_columns_name():
    assert rows_of(REPORT, "results") == [["a", "clean", "wer", "ours", 0.25, 0.2, 0.3, 8, 0.1]]
    assert rows_of(REPORT, "systems") == [["ours", 3, 12, None, None, None]]


def test_tables_are_written_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = log_tables(REPORT, "mine", tmp_path)
    assert folder.is_relative_to(tmp_path) and list(folder.glob("*.wandb"))
    tables = sorted(path.name.split("_")[0] for path in folder.rglob("*.table.json"))
    assert tables == sorted(COLUMNS)


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_is_one_of_the_reports(table):
    heard = tuple(Heard(str(i), "en", "red green", text, 1.0, 0.1) for i, text in enumerate(("red", "green", "red")))
    runs = [Run(name, "a", "clean", heard) for name in ("ours", "theirs")]
    results = tuple(summarize(run, metric) for run in runs for metric in run.metrics)
    cards = tuple(Card(run.system, 1, 1) for run in runs)
    rows = as_json(Outcome(cards, tuple(runs), results, tuple(compare(runs)), "", 0), {})[table]
    assert rows and all(set(COLUMNS[table]) <= set(row) for row in rows)
