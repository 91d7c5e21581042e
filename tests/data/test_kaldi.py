"""Kaldi directories as toolkits leave them: commands that must not run, archives, torn lines."""

from pathlib import Path

import pytest

from glmasr.data.catalog import Skipped
from glmasr.data.kaldi import Kaldi, refusal
from glmasr.speech import InputError, Utterance
from tests.data.made import kaldi, record, write


def test_a_command_is_skipped_and_never_run(tmp_path):
    proof = tmp_path / "proof"
    record(tmp_path / "calls" / "a.wav")
    write(tmp_path / "calls" / "wav.scp", f"evil touch {proof}; cat {tmp_path}/a.wav |\ngood a.wav\n")
    reader = Kaldi(str(tmp_path / "calls"), dev_share=0.0)
    reader.fingerprint()
    bad, good = reader.utterances()
    assert isinstance(bad, Skipped) and bad.cause == "pipe" and "never executed" in bad.detail
    assert isinstance(good, Utterance) and good.id == "good" and good.split == "train"
    assert not proof.exists()


@pytest.mark.parametrize(
    ("entry", "cause"), [("cat x |", "pipe"), ("data/raw.ark:1234", "archive"), ("-", "malformed"), ("", "malformed")]
)
def test_what_is_no_file_is_refused_with_a_reason(entry, cause):
    found = refusal("u", entry)
    assert found and found.cause == cause and "'u'" in found.detail
    assert refusal("u", "c:/x y.wav") is None


def test_torn_tables_lose_their_lines_only(tmp_path):
    record(tmp_path / "a.wav", 1.0)
    write(tmp_path / "wav.scp", "a a.wav\nb b.wav\n")
    write(tmp_path / "segments", "a1 a 0.1 0.5\na2 a 0.5\na3 c 0 1\nb1 b 0 1\na4 a 0.6 0.5\n")
    write(tmp_path / "text", "a1 one\nz9 nobody said this\n")
    found = list(Kaldi(str(tmp_path)).utterances())
    assert [one.cause for one in found if isinstance(one, Skipped)] == [
        "malformed",
        "missing",
        "missing",
        "empty stretch",
        "transcript without audio",
    ]
    assert [one.text for one in found if isinstance(one, Utterance)] == ["one"]


def test_paths_start_at_the_root_that_is_named(tmp_path):
    made = kaldi(tmp_path)
    here = Kaldi(made.settings["path"])
    assert sum(isinstance(one, Utterance) for one in here.utterances()) == 1
    assert here.fingerprint() != Kaldi(**made.settings).fingerprint()
    before = Kaldi(**made.settings).fingerprint()
    Path(tmp_path / "wavs" / "b.flac").unlink()
    assert Kaldi(**made.settings).fingerprint() != before
    with pytest.raises(InputError, match=r"no wav\.scp"):
        Kaldi(str(tmp_path / "wavs")).fingerprint()
