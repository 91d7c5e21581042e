"""Subtitle files that players and Whisper's tools read."""

import json

import pytest

from glmasr.speech import Segment, Transcript, Word
from glmasr.text.subtitles import FORMATS, write_json, write_srt, write_txt, write_vtt

TRANSCRIPT = Transcript(
    "你好 <b> & bye",
    3725.5,
    (
        Segment("你好", 0.0, 59.9996, (Word("你", 0.0, 0.51234, 0.98765), Word("好", 0.6, 1.0))),
        Segment(" <b> --> &\n\nbye", 3599.9996, 3725.5),
        Segment("  ", 3725.5, 3725.5),
    ),
    "zh",
)


def test_txt():
    assert write_txt(TRANSCRIPT) == "你好\n<b> --> & bye\n"


def test_srt():
    assert write_srt(TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:01:00,000\n你好\n\n2\n01:00:00,000 --> 01:02:05,500\n<b> -> & bye\n\n"
    )


def test_vtt():
    assert write_vtt(TRANSCRIPT) == (
        "WEBVTT\n\n00:00.000 --> 01:00.000\n你好\n\n01:00:00.000 --> 01:02:05.500\n&lt;b> --&gt; &amp; bye\n\n"
    )


def test_json_has_whispers_shape():
    content = json.loads(write_json(TRANSCRIPT))
    assert list(content) == ["text", "language", "duration", "segments"]
    assert (content["text"], content["language"], content["duration"]) == ("你好 <b> & bye", "zh", 3725.5)
    first = content["segments"][0]
    assert (first["id"], first["start"], first["end"], first["text"]) == (0, 0.0, 60.0, "你好")
    assert first["words"][0] == {"word": "你", "start": 0.0, "end": 0.512, "probability": 0.9877}
    assert "你好" in write_json(TRANSCRIPT)


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0.0004, "00:00:00,000"),
        (0.9996, "00:00:01,000"),
        (61.001, "00:01:01,001"),
        (3599.9994, "00:59:59,999"),
        (360000.0, "100:00:00,000"),
        (-0.01, "00:00:00,000"),
    ],
)
def test_clock(seconds, clock):
    assert f"{clock} --> " in write_srt(Transcript("a", 1.0, (Segment("a", seconds, 400000.0),)))


def test_uncut_and_empty_transcripts():
    assert write_srt(Transcript("one line", 2.5)) == "1\n00:00:00,000 --> 00:00:02,500\none line\n\n"
    empty = {ending: write(Transcript("", 1.0)) for ending, write in FORMATS.items()}
    assert (empty["txt"], empty["srt"], empty["vtt"]) == ("", "", "WEBVTT\n\n")
    assert json.loads(empty["json"])["segments"] == []
