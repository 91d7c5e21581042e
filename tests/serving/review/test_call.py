"""Calls made of real recordings in, and transcripts of other programs: who spoke, when, and what there is to say."""

import json
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from glmasr.frontend.audio import UnreadableAudio, read_audio
from glmasr.frontend.pieces import listen
from glmasr.frontend.vad import FRAME_SECONDS
from glmasr.serving.review.call import are_apart, hear, placed, read_transcript, review, sentences_of
from glmasr.serving.review.rules import Llm, Rule, Rules
from glmasr.serving.review.turns import merged
from glmasr.speech import RATE_HZ, InputError, Segment, Transcript, Word
from glmasr.text.subtitles import write_json

RULES = Rules(
    sensitive=(Rule("fees", ("no fees",), speaker="agent"), Rule("anger", ("angry",))),
    required=(
        Rule("greeting", ("thank you for calling", "hello"), by_seconds=5, speaker="agent"),
        Rule("name", ("my name is",), by_seconds=5),
        Rule("closing", ("good bye",)),
    ),
    speakers=("agent", "customer"),
    silence_seconds=3,
)


def segment(text: str, start: float, end: float, speaker: str = "", words: bool = True) -> Segment:
    texts = text.split() if words else []
    step = (end - start) / max(len(texts), 1)
    spoken = tuple(Word(one, start + i * step, start + (i + 1) * step) for i, one in enumerate(texts))
    return Segment(text, start, end, spoken, speaker)


TOLD = Transcript(
    "…",
    30.0,
    (
        segment("hello this is the bank.", 1, 3, "Speaker 1"),
        segment("my name is Ann and I am angry", 7, 9, "Speaker 2"),
        segment("there are no fees. there are no fees", 8, 12, "Speaker 1"),
    ),
    "en",
)


def test_a_call_is_reviewed_by_its_rules():
    found = review("call", TOLD, RULES)
    assert [(a.rule.name, a.state) for a in found.required] == [
        ("greeting", "said"),
        ("name", "late"),
        ("closing", "missing"),
    ]
    assert [(h.rule.name, h.speaker) for h in found.sensitive] == [
        ("anger", "customer"),
        ("fees", "agent"),
        ("fees", "agent"),
    ]
    assert found.course.overlaps == ((8, 9),) and found.course.silences == ((3, 7), (12, 30.0))
    assert [(talk.speaker, talk.seconds, talk.units) for talk in found.course.talk] == [
        ("agent", 6, 13),
        ("customer", 2, 8),
    ]
    assert found.summary.by == "sentences" and all(": " in one for one in found.summary.sentences)


def test_required_words_count_only_from_whom_they_are_required():
    swapped = review("call", TOLD, Rules(required=RULES.required, speakers=("customer", "agent")))
    assert swapped.required[0].state == "missing"
    mono = review("call", Transcript("hello", 2.0, (segment("hello", 0, 2),), "en"), RULES)
    assert mono.required[0].state == "said" and [talk.speaker for talk in mono.course.talk] == [""]
    assert mono.course.overlaps is None


def test_a_silent_customer_is_a_speaker_too():
    one = Transcript("hello", 5.0, (segment("hello", 0, 1, "Speaker 1"),), "en")
    assert [(talk.speaker, talk.share) for talk in review("c", one, RULES).course.talk] == [
        ("agent", 1),
        ("customer", 0),
    ]


def test_nothing_said_and_a_text_that_nobody_cut():
    empty = review("c", Transcript("", 4.0), RULES)
    assert empty.sensitive == () and empty.course.silences == ((0.0, 4.0),) and empty.summary.sentences == ()
    whole = review("c", Transcript("hello I am angry", 4.0), RULES)
    assert [hit.rule.name for hit in whole.sensitive] == ["anger"] and whole.sensitive[0].start_seconds > 2


def test_a_chat_model_that_is_not_there_costs_nothing_but_a_note():
    rules = Rules(llm=Llm("http://127.0.0.1:9/v1", "m", timeout_seconds=1))
    assert "m gave no summary" in review("c", TOLD, rules).summary.note


def test_sentences_end_at_full_stops_and_pauses():
    words = [Word("a.", 0, 1), Word("b", 1, 2), Word("c", 2.9, 3)]
    told = Transcript("", 9, (Segment("a. b c", 0, 3, tuple(words), "x"), segment("between", 1.5, 1.6, "y")))
    assert sentences_of(told, 0.6) == [("x", "a."), ("x", "b"), ("y", "between"), ("x", "c")]


def test_a_review_is_a_transcript_that_can_be_reviewed_again(tmp_path):
    first = review("call", TOLD, RULES)
    (tmp_path / "a.json").write_text(json.dumps(first.as_json()))
    again = review("call", read_transcript(tmp_path / "a.json"), RULES)
    assert json.loads(json.dumps(again.as_json()))["review"] == json.loads(json.dumps(first.as_json()))["review"]
    (tmp_path / "b.json").write_text(write_json(TOLD))
    assert review("call", read_transcript(tmp_path / "b.json"), RULES).as_json()["review"] == first.as_json()["review"]


def test_transcripts_of_other_programs_are_read(tmp_path):
    file = tmp_path / "a.json"
    openai = {
        **{"task": "transcribe", "text": "hi Ann", "language": "english", "duration": 2.5},
        "words": [{"word": "hi", "start": 0.0, "end": 0.5}, {"word": "Ann", "start": 1.0, "end": 1.5}],
        "segments": [{"start": 0.0, "end": 0.8, "text": " hi"}, {"start": 0.8, "end": 2.0, "text": " Ann"}],
    }
    file.write_text(json.dumps(openai))
    found = read_transcript(file)
    assert [[w.text for w in s.words] for s in found.segments] == [["hi"], ["Ann"]] and found.duration_seconds == 2.5
    whisper = {
        "text": "b a",
        "segments": [{"id": 1, "start": 3, "end": 4, "text": "a"}, {"start": 1, "end": 2, "text": "b"}],
    }
    file.write_text(json.dumps(whisper))
    found = read_transcript(file)
    assert [s.text for s in found.segments] == ["b", "a"] and found.duration_seconds == 4
    file.write_text('{"text": "only words"}')
    assert read_transcript(file).segments[0].text == "only words"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "null", '"a"', "[" * 100_000, "\xff\xfe", '{"text":"a","duration":-1}'),
        *('{"text": "a", "segments": [1]}', '{"text": "a", "segments": [{"text": "b"}]}'),
        *('{"text": "a", "segments": {"a": 1}}', '{"text": "a", "words": [{"word": 1}]}'),
        '{"text": "", "segments": [{"start": NaN, "end": 1, "text": "b"}]}',
    ],
)
def test_what_is_no_transcript_is_a_sentence(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"a\.json' is no transcript in JSON"):
        read_transcript(tmp_path / "a.json")


class Prompter:
    """A system that knows, as Whisper, only between what full seconds something was said."""

    name, parameters, size_bytes = "prompter", 0, 0

    def __call__(self, waveforms):
        return [self._one(waveform) for waveform in waveforms]

    @staticmethod
    def _one(waveform) -> Transcript:
        speech = np.flatnonzero(listen([waveform]).speech >= 0.5) * FRAME_SECONDS
        places = merged([(float(start), float(start) + FRAME_SECONDS) for start in speech], 0.2)
        seconds = [(float(int(start)), float(int(end) + 1)) for start, end in places]
        segments = tuple(Segment("words that were heard", start, end) for start, end in merged(seconds))
        return Transcript("heard", len(waveform) / RATE_HZ, segments, "en")


@pytest.fixture(scope="module")
def call(shared_corpora, tmp_path_factory):
    """Telephone prompts as a two-channel call with a pause of 6 s; and when each channel speaks."""
    root = shared_corpora / "telephone_prompts"
    rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    rows = [row for row in rows if 4 < row["duration"] < 7][:4]
    clips = [read_audio(str(root / row["audio_filepath"])) for row in rows]
    left = np.zeros(RATE_HZ * 40, np.float32)
    right, at, spoken = np.zeros_like(left), RATE_HZ, ([], [])
    for i, clip in enumerate(clips):
        (left, right)[i % 2][at : at + len(clip)] = clip
        spoken[i % 2].append((at / RATE_HZ, (at + len(clip)) / RATE_HZ))
        at += len(clip) + RATE_HZ * (6 if i == 1 else 1)
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, np.stack([left, right], 1)[:at], RATE_HZ)
    return str(path), spoken, at / RATE_HZ


def test_a_real_call_is_two_speakers_with_their_shares(call):
    path, spoken, seconds = call
    heard = hear(Prompter(), path)
    assert {segment.speaker for segment in heard.segments} == {"Speaker 1", "Speaker 2"}
    course = review("call", heard, RULES).course
    for talk, truth in zip(course.talk, spoken, strict=True):
        assert abs(talk.seconds - sum(end - start for start, end in truth)) < 0.2 * seconds / 4
        for start, end in talk.turns:
            assert any(begin - 0.3 <= start and end <= until + 0.5 for begin, until in truth)
    assert course.overlaps == () and any(
        abs(start - spoken[1][0][1]) < 1 and 4.5 < end - start < 7.5 for start, end in course.silences
    )


def test_words_of_a_segment_are_where_somebody_speaks():
    """As Whisper tells it: from the full second before to the one behind, with pauses in it."""
    speech = np.concatenate([np.arange(2.0, 3.0, FRAME_SECONDS), np.arange(7.0, 8.0, FRAME_SECONDS)])
    found = placed(Segment("aaaa bbbb", 0.0, 10.0), speech)
    assert [(word.text, round(word.start_seconds, 1), round(word.end_seconds, 1)) for word in found.words] == [
        *(("aaaa", 2.0, 3.0), ("bbbb", 7.0, 8.0)),
    ]
    assert found.start_seconds == found.words[0].start_seconds and found.end_seconds == found.words[-1].end_seconds
    silent, timed = Segment("a", 4.0, 5.0), segment("a b", 0, 10)
    assert placed(silent, speech) == silent and placed(timed, speech) == timed
    many = placed(Segment("a " * 400, 0.0, 10.0), speech).words
    assert len(many) == 400 and all(a.start_seconds <= b.start_seconds for a, b in pairwise(many))
    assert all(word.start_seconds < word.end_seconds for word in many)


def test_copies_of_one_channel_are_nobody(call, tmp_path):
    left = read_audio(call[0])
    for name, other in (("same", left), ("noisy", left + 1e-4 * np.random.default_rng(0).normal(size=len(left)))):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([left, other], 1), RATE_HZ)
        assert not are_apart(str(tmp_path / f"{name}.wav"))
    soundfile.write(tmp_path / "mono.wav", left, RATE_HZ)
    assert not are_apart(str(tmp_path / "mono.wav")) and are_apart(call[0])
    assert {segment.speaker for segment in hear(Prompter(), str(tmp_path / "same.wav")).segments} == {""}
    with pytest.raises(UnreadableAudio, match="does not exist"):
        are_apart(str(tmp_path / "none.wav"))
