"""A recorded call: each channel heard alone, and both in one transcript that says who spoke when."""

import sys

import numpy as np
import pytest
import soundfile

from glmasr import cli
from glmasr.channels import merged, transcribe_apart
from glmasr.frontend.audio import UnreadableAudio, read_blocks
from glmasr.speech import RATE_HZ, Segment, Transcript, Word
from glmasr.text.tokenizer import learn_characters
from glmasr.transcriber import Transcriber
from tests.small import random_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calls") / "bundle"
    random_bundle(folder, learn_characters(["abcdefgh ijk"]), language="en")
    return str(folder)


@pytest.fixture(scope="module")
def call(spoken, tmp_path_factory):
    """One speaks on the left, then another on the right, then the first again."""
    first, second, third = (clip.numpy() for clip in spoken[:3])
    pause = RATE_HZ
    left = np.concatenate([first, np.zeros(2 * pause + len(second), np.float32), third])
    right = np.zeros_like(left)
    right[len(first) + pause :][: len(second)] = second
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, np.stack([left, right], 1), RATE_HZ, subtype="FLOAT")
    return str(path), left, right


def test_each_channel_is_heard_as_if_it_were_alone(folder, call):
    path, left, right = call
    system, steps = Transcriber(folder), []
    heard = transcribe_apart(system, path, steps.append)
    alone = system([left, right])
    assert sum(steps) == pytest.approx(2 * len(left) / RATE_HZ)
    for number, one in enumerate(alone, 1):
        mine = [s for s in heard.segments if s.speaker == f"Speaker {number}"]
        assert mine and [(s.text, s.start_seconds, s.end_seconds) for s in mine] == [
            (s.text, s.start_seconds, s.end_seconds) for s in one.segments
        ]
        assert all(s.words for s in mine)
    starts = [segment.start_seconds for segment in heard.segments]
    assert starts == sorted(starts) and heard.duration_seconds == len(left) / RATE_HZ and heard.language == "en"
    assert [s.speaker[-1] for s in heard.segments][::2] == ["1", "1"] and heard.text.split() == [
        word for s in heard.segments for word in s.text.split()
    ]


def test_channels_are_read_one_at_a_time(call):
    path, left, right = call
    for channel, expected in ((0, left), (1, right), (None, (left + right) / 2)):
        found = np.concatenate([*read_blocks(path, 0.7, channel=channel)])
        np.testing.assert_array_equal(found, expected)
    for channel in (2, -1):
        with pytest.raises(UnreadableAudio, match="has 2 channels; choose one of 0 to 1"):
            next(read_blocks(path, channel=channel))


def test_one_channel_is_one_speaker(folder, spoken, tmp_path):
    soundfile.write(tmp_path / "a.wav", spoken[0].numpy(), RATE_HZ, subtype="FLOAT")
    heard = transcribe_apart(Transcriber(folder), str(tmp_path / "a.wav"))
    assert {segment.speaker for segment in heard.segments} == {"Speaker 1"}


def test_who_begins_first_comes_first_and_the_language_is_of_whom_says_most():
    one = Transcript("a b", 9.0, (Segment("a", 0.0, 1.0, (Word("a", 0.0, 1.0),)), Segment("b", 5.0, 6.0)), "en")
    other = Transcript("你好好好好", 9.5, (Segment("你好好好好", 2.0, 7.0),), "zh")
    both = merged([one, other])
    assert both.text == "a 你好好好好 b" and both.language == "zh" and both.duration_seconds == 9.5
    assert [s.speaker for s in both.segments] == ["Speaker 1", "Speaker 2", "Speaker 1"]
    assert both.segments[0].words == one.segments[0].words
    assert merged([Transcript("", 1.0), Transcript("", 1.0)]) == Transcript("", 1.0)


def test_the_command_line_keeps_channels_apart_and_lifts(folder, call, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["glmasr", "transcribe", "--bundle", folder, *arguments])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, capsys.readouterr().out

    code, text = run(call[0], "--channels", "apart")
    assert code == 0 and text.startswith("Speaker 1: ") and "\nSpeaker 2: " in text
    assert "Speaker" not in run(call[0])[1]
    soundfile.write(tmp_path / "quiet.wav", call[1] * 10**-3.25, RATE_HZ, subtype="FLOAT")
    assert run(str(tmp_path / "quiet.wav")) == (0, "") or not run(str(tmp_path / "quiet.wav"))[1].strip()
    assert run(str(tmp_path / "quiet.wav"), "--gain")[1].strip()
    assert "one channel" in run(call[0], "--stream", "--channels", "apart")[0]
