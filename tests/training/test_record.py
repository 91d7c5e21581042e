"""A run folder says how it was made, and the command that it gives makes it again."""

import json
import shlex
import sys

import pytest

from glmasr.cli import main
from glmasr.data.catalog import write_catalog
from glmasr.speech import InputError, Utterance
from glmasr.training import record as recording
from glmasr.training.record import fingerprint, provenance, record, record_data, repeat_command


@pytest.fixture
def checkout(monkeypatch):
    """git's answers, as of a checkout with a change."""
    answers = {"rev-parse": "abc123\n", "diff": "--- a\n+++ b\n", "describe": "abc123-dirty\n"}
    monkeypatch.setattr(recording, "git", lambda verb, *_: answers[verb])
    monkeypatch.setattr(sys, "argv", ["scripts/pretrain.py", "data=folder", "data.path=/my audio", "run_dir=runs/x"])


def test_what_a_run_begins_with_is_kept(checkout, tmp_path):
    record(tmp_path)
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert facts["command"] == "python scripts/pretrain.py data=folder 'data.path=/my audio' run_dir=runs/x"
    assert facts["packages"]["torch"] and facts["starts"][0]["commit"] == "abc123" and facts["python"]
    assert (tmp_path / "changes.diff").read_text() == "--- a\n+++ b\n"
    record(tmp_path)  # resumed
    assert len(json.loads((tmp_path / "environment.json").read_text())["starts"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"environment.json", "changes.diff"}


def test_the_command_that_repeats_it(checkout, tmp_path, monkeypatch, capsys):
    record(tmp_path)
    monkeypatch.setattr(sys, "argv", ["glmasr", "repeat", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and capsys.readouterr().out == repeat_command(tmp_path) + "\n"
    place, commit, patch, command = repeat_command(tmp_path).splitlines()
    assert place.startswith("cd ") and commit == "git checkout abc123" and patch.endswith("changes.diff")
    given = shlex.split(command)
    assert given[:4] == ["python", "scripts/pretrain.py", "data=folder", "data.path=/my audio"]
    assert given[-1] == f"run_dir={tmp_path}_again"  # the last override counts
    (tmp_path / "changes.diff").write_text("")
    assert "git apply" not in repeat_command(tmp_path)
    with pytest.raises(InputError, match="keeps no record of how it was made"):
        repeat_command(tmp_path / "nowhere")


def test_data_has_a_fingerprint(tmp_path):
    rows = [Utterance(f"u{n}", f"{n}.wav", 1.0 + n, text="went", language="en") for n in range(5)]
    catalog = write_catalog(rows, tmp_path / "a")
    record_data(tmp_path, train=catalog)
    kept = json.loads((tmp_path / "data.json").read_text())["train"]
    assert kept == fingerprint(catalog) and kept["utterances"] == 5 and kept["languages"] == ["en"]
    assert kept["hours"] == round(15 / 3600, 4)
    for number, other in enumerate([rows[:4], [*rows[:4], Utterance("u4", "4.wav", 5.0, text="kit", language="en")]]):
        assert fingerprint(write_catalog(other, tmp_path / f"b{number}"))["sha256"] != kept["sha256"]


def test_provenance_names_the_commit(checkout):
    assert provenance()["commit"] == "abc123-dirty" and provenance()["versions"]["torch"]
