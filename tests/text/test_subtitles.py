"""Subtitle files that players and Whisper's tools read."""

import json
from itertools import pairwise

import pytest

from glmasr.speech import Segment, Transcript, Word
from glmasr.text.subtitles import (
    FORMATS,
    LINE_WIDTH,
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    cues,
    write_json,
    write_srt,
    write_tsv,
    write_txt,
    write_vtt,
    write_words,
)

TRANSCRIPT = Transcript(
    "你好 <b> & bye",
    3725.5,
    (
        Segment("你好", 0.0, 59.9996, (Word("你", 0.0, 0.51234, 0.98765), Word("好", 0.6, 1.0))),
        Segment(" <b> --> &\n\nbye", 3599.9996, 3606.0),
        Segment("  ", 3725.5, 3725.5),
    ),
    "zh",
)


def test_txt():
    assert write_txt(TRANSCRIPT) == "你好\n<b> --> & bye\n"


def test_srt():
    assert write_srt(TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:00:01,000\n你好\n\n2\n01:00:00,000 --> 01:00:06,000\n<b> -> & bye\n\n"
    )


def test_vtt():
    assert write_vtt(TRANSCRIPT) == (
        "WEBVTT\n\n00:00.000 --> 00:01.000\n你好\n\n01:00:00.000 --> 01:00:06.000\n&lt;b> --&gt; &amp; bye\n\n"
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


def spoken(words, seconds=0.4, pauses=(), start=0.0):
    """Words of equal length, and half a second behind those at `pauses`."""
    said, at = [], start
    for i, word in enumerate(words):
        said.append(Word(word, at, at + seconds))
        at += seconds + (0.5 if i in pauses else 0.0)
    is_wide = words[0] >= "\u2e80"
    text = ("" if is_wide else " ").join(words)
    return Transcript(text, at, (Segment(text, start, at, tuple(said)),))


ENGLISH = spoken(
    ("the quick brown fox jumps over the lazy dog and does it all again " * 40).split(), 0.3, {*range(8, 600, 9)}
)
CHINESE = spoken([*"这是一个很长的句子没有标点也没有空格需要自己断开" * 20], 0.2, {*range(22, 500, 23)})


@pytest.mark.parametrize("transcript", [ENGLISH, CHINESE, spoken(["Donaudampfschifffahrt" * 4, "and"] * 5, 2.0)])
def test_cues_can_be_read(transcript):
    found = cues(transcript)
    assert len(found) > 5 and "".join("".join(cue.lines) for cue in found).replace(" ", "") == transcript.text.replace(
        " ", ""
    )
    for cue in found:
        assert 1 <= len(cue.lines) <= 2
        assert all(sum(2.34 if c >= "\u2e80" else 1 for c in line) <= LINE_WIDTH + 0.2 for line in cue.lines)
        assert SHORTEST_SECONDS - 1e-6 <= cue.end_seconds - cue.start_seconds <= LONGEST_SECONDS + 1e-6
    for one, two in pairwise(found):
        assert one.end_seconds <= two.start_seconds


@pytest.mark.parametrize("transcript", [ENGLISH, CHINESE])
def test_cues_break_at_pauses(transcript):
    words = transcript.segments[0].words
    pauses = {b.start_seconds for a, b in pairwise(words) if b.start_seconds > a.end_seconds + 0.1}
    starts = [cue.start_seconds for cue in cues(transcript)[1:]]
    assert sum(any(abs(start - pause) < 1e-6 for pause in pauses) for start in starts) > 0.9 * len(starts)


def test_cues_break_at_punctuation_and_long_pauses():
    text = "One two three four five six, seven eight nine ten. Eleven twelve thirteen fourteen fifteen!"
    told = spoken(text.split(), 0.5)
    assert [" ".join(cue.lines)[-1] for cue in cues(told)] == [".", "!"]
    apart = Transcript("a b", 20.0, (Segment("a b", 0.0, 20.0, (Word("a", 0.0, 0.2), Word("b", 3.0, 3.5))),))
    assert [(cue.lines, cue.start_seconds, round(cue.end_seconds, 2)) for cue in cues(apart)] == [
        (("a",), 0.0, 0.83),
        (("b",), 3.0, 3.83),
    ]


def test_a_cue_is_never_late_because_the_one_before_takes_long_to_read():
    found = cues(spoken(["supercalifragilistic"] * 12, 0.2))
    assert len(found) > 1 and [round(cue.start_seconds / 0.2, 6) % 1 for cue in found] == [0.0] * len(found)


def test_words_in_a_hurry_or_at_the_same_time_stay_in_order():
    words = tuple(Word(str(i), 1.0, 1.0) for i in range(300))
    found = cues(Transcript("", 1.2, (Segment(" ".join(map(str, range(300))), 1.0, 1.0, words),)))
    times = [time for cue in found for time in (cue.start_seconds, cue.end_seconds)]
    assert times == sorted(times) and len(found) > 1


def test_other_parsers_read_what_we_write():
    pysubs2, srt = pytest.importorskip("pysubs2"), pytest.importorskip("srt")
    for transcript in (ENGLISH, CHINESE, TRANSCRIPT):
        shown = cues(transcript)
        parsed = list(srt.parse(write_srt(transcript)))
        assert [one.content for one in parsed] == ["\n".join(cue.lines).replace("-->", "->") for cue in shown]
        assert [one.start.total_seconds() for one in parsed] == [round(cue.start_seconds, 3) for cue in shown]
        for text, form in ((write_srt(transcript), "srt"), (write_vtt(transcript), "vtt")):
            again = pysubs2.SSAFile.from_string(text, format_=form)
            assert [(e.start, e.end) for e in again] == [
                (round(1000 * cue.start_seconds), round(1000 * cue.end_seconds)) for cue in shown
            ]


def test_tables():
    assert write_tsv(TRANSCRIPT) == "start\tend\ttext\n0\t60000\t你好\n3600000\t3606000\t<b> --> & bye\n"
    assert write_words(TRANSCRIPT).splitlines()[1:] == ["0.000\t0.512\t0.988\t你", "0.600\t1.000\t1.000\t好"]


def test_two_who_speak_at_once_share_the_time():
    first, second = Segment("yes yes", 0.0, 1.0, speaker="A"), Segment("no", 0.0, 1.2, speaker="B")
    shown = cues(Transcript("yes yes no", 1.2, (first, second)))
    assert [cue.lines for cue in shown] == [("A: yes yes",), ("B: no",)]
    assert shown[0].start_seconds == 0.0 and shown[1].start_seconds == shown[0].end_seconds
    assert shown[0].end_seconds == pytest.approx(1.2 * 10 / 15) and shown[1].end_seconds == pytest.approx(1.2)


def test_speakers_are_named_where_they_begin_and_share_no_cue():
    said = [("yes", 0.0, "A"), ("I see", 0.5, "A"), ("no", 1.0, "B"), ("why", 1.4, "A")]
    segments = tuple(Segment(t, at, at + 0.3, (Word(t, at, at + 0.3),), who) for t, at, who in said)
    told = Transcript("yes I see no why", 3.0, segments)
    assert [cue.lines for cue in cues(told)] == [("A: yes I see",), ("B: no",), ("A: why",)]
    assert write_txt(told) == "A: yes\nI see\nB: no\nA: why\n"
    assert [one["speaker"] for one in json.loads(write_json(told))["segments"]] == ["A", "A", "B", "A"]
    assert "speaker" not in write_json(TRANSCRIPT)
