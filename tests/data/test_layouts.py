"""Corpora with a table of transcripts, complete and as they break; test_ready.py reads each one whole."""

import pytest

from glmasr.data.catalog import Skipped
from glmasr.data.layouts import Aishell1, Aishell2, CommonVoice, LibriSpeech, Mdcc
from glmasr.speech import InputError
from tests.data.made import aishell1, aishell2, common_voice, librispeech, mdcc, record


def skipped(reader) -> dict[str, Skipped]:
    return {one.cause: one for one in reader.utterances() if isinstance(one, Skipped)}


def test_librispeech_reads_the_parts_that_are_named(tmp_path):
    librispeech(tmp_path)
    found = LibriSpeech(str(tmp_path), ["test-clean"]).utterances()
    assert [one.split for one in found] == ["test"]  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"no part dev-clean; there are dev-other, test-clean, train-clean-100"):
        LibriSpeech(str(tmp_path), ["dev-clean", "test-clean"]).fingerprint()
    (tmp_path / "dev-other" / "84" / "198" / "84-198-0000.flac").unlink()
    assert list(skipped(LibriSpeech(str(tmp_path)))) == ["missing"]


def test_a_folder_that_is_no_librispeech_says_so(tmp_path):
    with pytest.raises(InputError, match="no part such as train-clean-100"):
        LibriSpeech(str(tmp_path)).fingerprint()
    (tmp_path / "dev-clean").mkdir()
    with pytest.raises(InputError, match=r"\*\.trans\.txt"):
        LibriSpeech(str(tmp_path)).fingerprint()


def test_a_recording_that_comes_or_goes_changes_the_fingerprint(tmp_path):
    librispeech(tmp_path)
    before = LibriSpeech(str(tmp_path)).fingerprint()
    (tmp_path / "dev-other" / "84" / "198" / "84-198-0000.flac").unlink()
    assert LibriSpeech(str(tmp_path)).fingerprint() != before


def test_aishell1_keeps_what_has_no_transcript_and_lists_what_has_no_recording(tmp_path):
    aishell1(tmp_path)
    record(tmp_path / "data_aishell" / "wav" / "train" / "S0002" / "BAC009S0002W0500.wav")
    found = {one.id: one for one in Aishell1(str(tmp_path)).utterances() if not isinstance(one, Skipped)}
    assert found["BAC009S0002W0500"].text is None and len(found) == 4
    stray = skipped(Aishell1(str(tmp_path)))["transcript without audio"]
    assert stray.name == "BAC009S0002W0999" and not stray.is_audio
    assert Aishell1(str(tmp_path / "data_aishell")).fingerprint()
    with pytest.raises(InputError, match=r"aishell_transcript_v0\.8\.txt, so it is not AISHELL-1"):
        Aishell1(str(tmp_path / "data_aishell" / "wav")).fingerprint()


def test_aishell1_with_packed_recordings_says_to_unpack_them(tmp_path):
    aishell1(tmp_path)
    for file in (tmp_path / "data_aishell" / "wav").rglob("*.wav"):
        file.rename(file.with_suffix(".tar"))
    with pytest.raises(InputError, match="unpack the archives"):
        list(Aishell1(str(tmp_path)).utterances())


def test_aishell2_has_other_channels_under_ids_of_their_own(tmp_path):
    aishell2(tmp_path)
    found = list(Aishell2(str(tmp_path), ["Mic"]).utterances())
    assert [(one.id, one.split) for one in found] == [("Mic/ID0012W0001", "dev")]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="for Android"):
        Aishell2(str(tmp_path), ["Android"]).fingerprint()


def test_common_voice_without_validated_and_with_broken_rows(tmp_path):
    made = common_voice(tmp_path, "yue", "yue", True)
    reader = CommonVoice(made.settings["path"], "yue", "yue")
    home = tmp_path / "cv-corpus-27.0-2026-09-11" / "yue"
    assert len(list(reader.utterances())) == 3
    assert CommonVoice(str(home), "yue", "yue").fingerprint() != reader.fingerprint()
    with open(home / "train.tsv", "a") as table:
        table.write("anna\tcommon_voice_yue_9.mp3\n\t\t\t\n")
    (home / "clips" / "common_voice_yue_2.mp3").write_bytes(b"")
    assert set(skipped(reader)) == {"malformed", "empty"}
    (home / "dev.tsv").write_text("path\tsentence\n")
    with pytest.raises(InputError, match="client_id"):
        list(reader.utterances())
    (home / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"no dev\.tsv"):
        reader.fingerprint()


def test_mdcc_skips_a_row_without_its_text(tmp_path):
    mdcc(tmp_path)
    next((tmp_path / "transcription").glob("*_valid.txt")).unlink()
    with open(tmp_path / "cnt_asr_test_metadata.csv", "a") as table:
        table.write("alone.wav\n")
    assert set(skipped(Mdcc(str(tmp_path)))) == {"text is missing", "malformed"}
