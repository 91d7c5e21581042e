"""Lhotse's cuts beyond the plain ones: what is no stretch of a file on disk is refused."""

import json

import pytest

from glmasr.data.catalog import Skipped
from glmasr.data.lhotse import LhotseCuts, refusal
from glmasr.speech import InputError, Utterance
from tests.data.made import cut, record, supervision, write


def source(**changed) -> dict:
    one = cut("a.wav")
    one["recording"]["sources"][0] |= changed
    return one


@pytest.mark.parametrize(
    ("one", "cause"),
    [
        (cut("a.wav", type="MixedCut"), "kind of cut"),
        (cut("a.wav", recording=None), "no recording"),
        (source(type="command", source="sph2pipe a.sph"), "pipe"),
        (source(type="url", source="https://a/b.wav"), "not a file"),
        (source(type="shar", source=""), "not a file"),
        (source(source=None), "not a file"),
    ],
)
def test_what_is_no_file_on_disk_is_refused(one, cause):
    found = refusal(one)
    assert found and found.cause == cause and "'c1'" in found.detail
    assert refusal(cut("a.wav")) is None


def test_a_changed_recording_is_refused():
    one = cut("a.wav")
    one["recording"]["transforms"] = [{"name": "Speed", "kwargs": {"factor": 1.1}}]
    found = refusal(one)
    assert found and found.cause == "changed on the fly"


def test_torn_lines_and_times_are_skipped_and_early_supervisions_are_cut(tmp_path):
    record(tmp_path / "a.wav", 3.0)
    early = cut("a.wav", "early", start=0.0, supervisions=[supervision(-0.5, 1.5, "HI")])
    timeless = cut("a.wav", "timeless", start=None)
    lines = [json.dumps(early), json.dumps(timeless), "{", json.dumps({"start": 1})]
    reader = LhotseCuts(str(write(tmp_path / "cuts.jsonl", "\n".join(lines))), language="yue", dev_share=1.0)
    first, *others = reader.utterances()
    assert isinstance(first, Utterance) and (first.offset_seconds, first.duration_seconds) == (0.0, 1.0)
    assert (first.split, first.language) == ("dev", "en")
    assert [one.cause for one in others if isinstance(one, Skipped)] == ["malformed"] * 3


def test_several_files_are_one_corpus_and_a_missing_recording_shows(tmp_path):
    record(tmp_path / "audio" / "a.wav", 3.0)
    for split in ("train", "test"):
        write(tmp_path / f"cuts_{split}.jsonl", json.dumps(cut("audio/a.wav", split)))
    paths = [str(tmp_path / f"cuts_{split}.jsonl") for split in ("train", "test")]
    both = LhotseCuts(paths)
    assert both.name == "cuts_train+cuts_test"
    assert [(one.id, one.split) for one in both.utterances()] == [("train", "train"), ("test", "test")]  # type: ignore
    before = both.fingerprint()
    (tmp_path / "audio" / "a.wav").unlink()
    assert both.fingerprint() != before
    with pytest.raises(InputError, match="no cuts are named"):
        LhotseCuts([]).fingerprint()
