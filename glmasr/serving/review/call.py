"""A recorded call, or the transcript of one, in; what is to be said about it out."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.frontend.audio import probe_audio, read_blocks
from glmasr.frontend.pieces import listen
from glmasr.frontend.vad import FRAME_SECONDS
from glmasr.serving.review.matches import Finder, Hit
from glmasr.serving.review.rules import Rule, Rules
from glmasr.serving.review.summary import Summary, summarize
from glmasr.serving.review.turns import Course, Stretch, course_of
from glmasr.serving.review.words import Unit, units_of, words_of
from glmasr.speech import InputError, Segment, System, Transcript, Word
from glmasr.text.subtitles import ENDS, write_json
from glmasr.text.written import joined

CHANNEL = re.compile(r"Speaker ([1-9]\d?)")
"""What `glmasr.channels` calls who speaks in a channel."""
ONSET = 0.5
"""From this probability of it on, a frame is speech."""
SAME_SHARE = 1e-3
"""Of their energy: channels that differ by less are one recording in two copies."""
TRANSCRIPT_BYTES = 64 << 20


@dataclass(frozen=True)
class Answer:
    """Whether a required rule was fulfilled: "said", "late" (`hit` is where), or "missing"."""

    rule: Rule
    state: str
    hit: Hit | None = None

    def as_json(self) -> dict[str, Any]:
        """All but its rule, of which the deadline is told."""
        hit = self.hit.as_json() if self.hit else None
        return {"state": self.state, "by_seconds": self.rule.by_seconds, "hit": hit}


@dataclass(frozen=True)
class Review:
    """All there is to say about one call; `language` is what its words were compared in."""

    name: str
    transcript: Transcript
    language: str
    sensitive: tuple[Hit, ...]
    required: tuple[Answer, ...]
    course: Course
    summary: Summary

    def as_json(self) -> dict[str, Any]:
        """A transcript as `glmasr transcribe --format json` writes it, with `name` and `review` added."""
        required = [{**_rule(one.rule), **one.as_json()} for one in self.required]
        found = {
            "sensitive": [{**_rule(hit.rule), **hit.as_json()} for hit in self.sensitive],
            "required": required,
            "talk": [{**asdict(talk), "turns": _rounded(talk.turns)} for talk in self.course.talk],
            "silences": _rounded(self.course.silences),
            "overlaps": None if self.course.overlaps is None else _rounded(self.course.overlaps),
            "summary": asdict(self.summary),
        }
        return {"name": self.name, **json.loads(write_json(self.transcript)), "review": found}


def hear(system: System, path: str) -> Transcript:
    """What is said in a recording; where its channels differ, each is heard alone and is a speaker. Else nobody is.

    UnreadableAudio where it cannot be read.
    """
    from glmasr.channels import merged
    from glmasr.transcriber import Transcriber

    apart = are_apart(path)
    channels = range(probe_audio(path).channels) if apart else [None]
    if isinstance(system, Transcriber):
        heard = [system.transcribe_file(path, channel=channel) for channel in channels]
    else:
        heard = [_heard(system, np.concatenate([*read_blocks(path, channel=channel)])) for channel in channels]
    return merged(heard) if apart else heard[0]


def _heard(system: System, waveform: np.ndarray) -> Transcript:
    """A transcript whose words are where somebody speaks, of a system that tells when segments were said, if that."""
    transcript = system([waveform])[0]
    speech = np.flatnonzero(listen([waveform]).speech >= ONSET) * FRAME_SECONDS
    return replace(transcript, segments=tuple(placed(segment, speech) for segment in _told(transcript)))


def placed(segment: Segment, speech_seconds: np.ndarray) -> Segment:
    """A segment without words, with them: spread over the frames of speech in it, that begin at `speech_seconds` (T).

    Whisper's segments begin and end at full seconds, and silence before speech is a part of them.
    """
    there = speech_seconds[(speech_seconds >= segment.start_seconds) & (speech_seconds < segment.end_seconds)]
    if segment.words or not segment.text or not len(there):
        return segment
    whole, words = segment.end_seconds - segment.start_seconds, []
    for word in words_of(segment):
        first = (word.start_seconds - segment.start_seconds) / whole * len(there)
        last = (word.end_seconds - segment.start_seconds) / whole * len(there)
        start, end = there[min(int(first), len(there) - 1)], there[max(ceil(last - 1e-6) - 1, 0)] + FRAME_SECONDS
        words.append(Word(word.text, float(start), float(min(max(start, end), segment.end_seconds)), word.confidence))
    return replace(segment, start_seconds=words[0].start_seconds, end_seconds=words[-1].end_seconds, words=tuple(words))


def are_apart(path: str) -> bool:
    """Whether a recording has channels that are not copies of one another; UnreadableAudio as from `read_blocks`."""
    channels = probe_audio(path).channels
    if channels < 2:
        return False
    differing, whole = 0.0, 0.0
    for blocks in zip(*(read_blocks(path, channel=channel) for channel in range(channels)), strict=True):
        first = blocks[0].astype(np.float64)
        differing += max(float(np.square(first - other).sum()) for other in blocks[1:])
        whole += max(float(np.square(block, dtype=np.float64).sum()) for block in blocks)
    return differing > SAME_SHARE * whole


def review(name: str, transcript: Transcript, rules: Rules) -> Review:
    """A call's review. Segments that name a channel's speaker get the name that rules have for him."""
    transcript = replace(transcript, segments=tuple(_named(segment, rules) for segment in _told(transcript)))
    language = transcript.language or rules.language
    speakers = _speakers(transcript, rules)
    spoken: list[tuple[str, Sequence[Unit]]] = []
    for speaker in speakers:
        mine = [segment for segment in transcript.segments if segment.speaker == speaker]
        spoken.append((speaker, units_of(mine, language, speaker)))
    finder = Finder(rules, language)
    hits = sorted((hit for _, units in spoken for hit in finder.find(units)), key=lambda hit: hit.start_seconds)
    return Review(
        name,
        transcript,
        language,
        tuple(hit for hit in hits if hit.rule in rules.sensitive),
        tuple(_answer(rule, hits) for rule in rules.required),
        course_of(spoken, transcript.duration_seconds, rules),
        summarize(sentences_of(transcript, rules.pause_seconds), rules.summary_sentences, rules.llm),
    )


def sentences_of(transcript: Transcript, pause_seconds: float) -> list[tuple[str, str]]:
    """Who said it, and what, in the order of time: words up to a full stop, or to a pause where there is none."""
    found: list[tuple[float, str, str]] = []
    for segment in transcript.segments:
        run: list[Word] = []
        for word in words_of(segment):
            if run and (run[-1].text[-1:] in ENDS or word.start_seconds - run[-1].end_seconds >= pause_seconds):
                found.append((run[0].start_seconds, segment.speaker, joined([one.text for one in run])))
                run = []
            run.append(word)
        if run:
            found.append((run[0].start_seconds, segment.speaker, joined([one.text for one in run])))
    return [(speaker, text) for _, speaker, text in sorted(found)]


def read_transcript(path: str | Path) -> Transcript:
    """A transcript in JSON: ours, Whisper's, or OpenAI's verbose one; InputError where it is none.

    Words may stand in their segments or beside them. A segment may name its `speaker`.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(TRANSCRIPT_BYTES + 1)
        if len(text) > TRANSCRIPT_BYTES:
            raise ValueError(f"it is larger than {TRANSCRIPT_BYTES >> 20} MB")
        found = json.loads(text)
        return _transcript(found)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"'{path}' is no transcript in JSON ({error!r}): write one with glmasr transcribe --format json"
        raise InputError(message) from error


def is_transcript(path: str | Path) -> bool:
    """Whether a file is meant as a transcript, by its name."""
    return Path(path).suffix.lower() == ".json"


def _transcript(found: Any) -> Transcript:
    beside = [_word(one) for one in found.get("words") or ()]
    segments = []
    for one in found.get("segments") or ():
        start, end = _seconds(one["start"]), _seconds(one["end"])
        words = [_word(word) for word in one.get("words") or ()]
        words = words or [w for w in beside if start <= (w.start_seconds + w.end_seconds) / 2 < end]
        segments.append(Segment(str(one["text"]).strip(), start, end, tuple(words), str(one.get("speaker") or "")))
    text = str(found["text"]).strip()
    last = max((segment.end_seconds for segment in segments), default=0.0)
    duration = max(_seconds(found.get("duration") or last), last)
    if not segments and text:
        segments = [Segment(text, 0.0, duration, tuple(beside))]
    segments.sort(key=lambda segment: segment.start_seconds)
    return Transcript(text, duration, tuple(segments), str(found.get("language") or ""))


def _word(found: Any) -> Word:
    return Word(str(found["word"]).strip(), _seconds(found["start"]), _seconds(found["end"]))


def _seconds(found: Any) -> float:
    seconds = float(found)
    if not 0 <= seconds < 1e9:
        raise ValueError(f"{found} are no seconds")
    return seconds


def _told(transcript: Transcript) -> tuple[Segment, ...]:
    whole = (Segment(transcript.text, 0.0, transcript.duration_seconds),) if transcript.text else ()
    return transcript.segments or whole


def _named(segment: Segment, rules: Rules) -> Segment:
    channel = CHANNEL.fullmatch(segment.speaker)
    if channel is None or int(channel[1]) > len(rules.speakers):
        return segment
    return replace(segment, speaker=rules.speakers[int(channel[1]) - 1])


def _speakers(transcript: Transcript, rules: Rules) -> list[str]:
    """Those who speak; and those whom rules know, where speakers are told apart at all."""
    there = dict.fromkeys(segment.speaker for segment in transcript.segments)
    known = rules.speakers if any(there) else ()
    return list(dict.fromkeys((*known, *there))) or [""]


def _answer(rule: Rule, hits: Sequence[Hit]) -> Answer:
    """By the first of its hits, in the order of time."""
    first = next((hit for hit in hits if hit.rule == rule), None)
    if first is None:
        return Answer(rule, "missing")
    return Answer(rule, "late" if first.is_late else "said", first)


def _rounded(stretches: Sequence[Stretch]) -> list[list[float]]:
    return [[round(start, 3), round(end, 3)] for start, end in stretches]


def _rule(rule: Rule) -> dict[str, Any]:
    return {"rule": rule.name, "severity": rule.severity, "speaker": rule.speaker}
