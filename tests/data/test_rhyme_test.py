"""The rhyme test as published: fetched, checked, converted once."""

import json
import subprocess
import zipfile
from collections import Counter

import numpy as np
import pytest

from glmasr.data import rhyme_test
from glmasr.data.catalog import prepare_catalog
from glmasr.data.rhyme_test import WHEEL, NotFetched, RhymeTest, clip_names, extract, read_words
from glmasr.frontend.audio import probe_audio, read_audio
from glmasr.frontend.level import rms_dbfs
from glmasr.speech import InputError


def test_the_word_list_has_fifty_sets_of_six():
    words = read_words()
    assert len(words) == 50 and {len(row) for row in words} == {6}
    assert words[0] == ["went", "sent", "bent", "dent", "tent", "rent"]


def test_the_real_corpus_has_every_clip_with_its_word_and_split(rhyme_root, tmp_path):
    catalog = prepare_catalog(RhymeTest(str(rhyme_root)), str(tmp_path))
    assert len(catalog) == 1200 and catalog.splits == {"dev": 90, "test": 300, "train": 810}
    found = {utterance.id: utterance for utterance in catalog}
    assert found["F3_b2_w4"].text == "please select the word fold"
    assert {u.speaker for u in found.values() if u.split == "test"} == {"M4"}
    assert Counter(u.speaker for u in found.values() if u.split == "dev") == {"F1": 30, "F3": 30, "M3": 30}
    assert len({u.text for u in found.values()}) == 300 - _repeated_words()
    assert 30 < catalog.durations.sum() / 60 < 45 and catalog.languages == ("en",)


def _repeated_words() -> int:
    words = [word for row in read_words() for word in row]
    return len(words) - len(set(words))


def test_the_clips_are_audible_speech_at_16_khz(rhyme_root):
    for clip in ("F1_b1_w1", "M4_b50_w6"):
        path = str(rhyme_root / "rhyme_test" / "audio" / f"{clip}.flac")
        assert probe_audio(path).rate_hz == 16_000 and 1 < probe_audio(path).duration_seconds < 4
        assert -45 < rms_dbfs(read_audio(path)) < -10


def test_another_test_speaker_moves_the_test_split(rhyme_root):
    reader = RhymeTest(str(rhyme_root), test_speaker="F1")
    assert {u.speaker for u in reader.utterances() if u.split == "test"} == {"F1"}
    assert reader.fingerprint() != RhymeTest(str(rhyme_root)).fingerprint()
    with pytest.raises(InputError, match="F1, F3, M3, M4"):
        RhymeTest(str(rhyme_root), test_speaker="M5").fingerprint()


def test_the_wheel_is_gone_and_its_hash_remembered(rhyme_root):
    home = rhyme_root / "rhyme_test"
    assert not list(home.glob("*.whl"))
    assert json.loads((home / "complete.json").read_text())["clips"] == 1200


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / "rhyme_test").mkdir()
    (tmp_path / "rhyme_test" / WHEEL).write_bytes(b"something else")
    with pytest.raises(InputError, match="not the published file"):
        RhymeTest(str(tmp_path)).fetch()


def test_without_a_network_the_remedy_is_named(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "first\nERROR: no route to host\n")
    monkeypatch.setattr(rhyme_test.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(NotFetched, match=f"no route to host.*{WHEEL}"):
        RhymeTest(str(tmp_path)).fetch()


def test_an_interrupted_extraction_is_completed_and_touches_nothing_finished(rhyme_root, tmp_path, monkeypatch):
    clips = {clip: clip_names()[clip] for clip in ("F1_b1_w1", "M4_b50_w6")}
    monkeypatch.setattr(rhyme_test, "clip_names", lambda: clips)
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as archive:
        for clip in clips:
            content = (rhyme_root / "rhyme_test" / "audio" / f"{clip}.flac").read_bytes()
            archive.writestr(f"{rhyme_test.CLIPS}/{clip}_orig.wav", content)
    (tmp_path / "F1_b1_w1.flac").write_bytes(b"finished before")
    extract(tmp_path / WHEEL, tmp_path)
    assert (tmp_path / "F1_b1_w1.flac").read_bytes() == b"finished before"
    original = read_audio(str(rhyme_root / "rhyme_test" / "audio" / "M4_b50_w6.flac"))
    np.testing.assert_allclose(read_audio(str(tmp_path / "M4_b50_w6.flac")), original, atol=2 / 2**15)
    clips.pop("F1_b1_w1")
    with pytest.raises(InputError, match="2 clips, not 1"):
        extract(tmp_path / WHEEL, tmp_path)
