"""Recordings broken in the ways the world breaks them: each is refused, by a cause that can be counted."""

import io
import struct

import numpy as np
import pytest
import soundfile

from glmasr.data.catalog import Skipped
from glmasr.data.verify import check_header, check_whole, name_cause
from glmasr.frontend.audio import AudioInfo, UnreadableAudio, read_audio


def encoded(waveform: np.ndarray, form: str, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, waveform, 16_000, format=form, subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("OGG", "OPUS"), ("OGG", "VORBIS")])
def test_half_a_file_is_told_from_a_whole_one(spoken, form, subtype):
    whole = encoded(np.tile(spoken[0].numpy(), 4), form, subtype)
    check_whole(whole, "whole")
    half = whole[: len(whole) // 2]
    assert len(read_audio(half)) > 1000  # a decoder sees nothing wrong with it
    for cut in (len(whole) // 2, len(whole) - 3):
        with pytest.raises(UnreadableAudio, match=r"'a\.wav' ends in the middle") as error:
            check_whole(whole[:cut], "a.wav")
        assert error.value.cause == "truncated"


def test_a_wav_from_a_pipe_and_what_follows_the_samples_are_no_fault(spoken):
    whole = encoded(spoken[0].numpy(), "WAV", "PCM_16")
    place = whole.index(b"data") + 4
    for size in (0, 0xFFFFFFFF):
        check_whole(whole[:place] + struct.pack("<I", size) + whole[place + 4 :], "piped")
    check_whole(whole + b"LIST" + struct.pack("<I", 4) + b"INFO", "tagged")
    check_whole(encoded(spoken[0].numpy(), "FLAC")[:5000], "not judged here")


def test_headers_no_recording_has_are_refused():
    check_header(AudioInfo(1.0, 48_000, 8), "a")
    causes = {}
    for info in (AudioInfo(1.0, 16_000, 255), AudioInfo(1.0, 655_350, 1), AudioInfo(1.0, 1, 1)):
        with pytest.raises(UnreadableAudio) as error:
            check_header(info, "a")
        causes[info.rate_hz] = error.value.cause
    assert causes == {16_000: "more than 64 channels", 655_350: "impossible sample rate", 1: "impossible sample rate"}


def test_the_first_bytes_name_a_cause(tmp_path, spoken):
    content = {
        "page": b"\n<!DOCTYPE html><title>404</title>",
        "half": encoded(spoken[0].numpy(), "OGG", "OPUS")[:300],
        "noise": b"\x01\x02" * 200,
    }
    for name, written in content.items():
        (tmp_path / name).write_bytes(written)
    causes = {
        name: name_cause(Skipped(str(tmp_path / name), "not audio", "as the reader said")).cause for name in content
    }
    assert causes == {"page": "a web page", "half": "truncated", "noise": "not audio"}
    gone = Skipped(str(tmp_path / "gone"), "missing", "")
    assert name_cause(gone) is gone
