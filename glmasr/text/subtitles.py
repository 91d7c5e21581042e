"""A transcript in, the text of a .txt, .srt, .vtt or .json file out, in the shapes that Whisper's tools write."""

import json
from collections.abc import Callable

from glmasr.speech import Segment, Transcript


def write_txt(transcript: Transcript) -> str:
    """One segment a line."""
    return "".join(f"{segment.text}\n" for segment in _cues(transcript))


def write_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, always with hours, a comma before the milliseconds."""
    return "".join(
        f"{number}\n{_clock(cue.start_seconds, ',', True)} --> {_clock(cue.end_seconds, ',', True)}\n"
        f"{cue.text.replace('-->', '->')}\n\n"
        for number, cue in enumerate(_cues(transcript), 1)
    )


def write_vtt(transcript: Transcript) -> str:
    """WebVTT: hours only where there are any; & and < escaped, as its grammar asks."""
    cues = "".join(
        f"{_clock(cue.start_seconds, '.', False)} --> {_clock(cue.end_seconds, '.', False)}\n"
        f"{_escape_vtt(cue.text)}\n\n"
        for cue in _cues(transcript)
    )
    return f"WEBVTT\n\n{cues}"


def write_json(transcript: Transcript) -> str:
    """Whisper's JSON; times in seconds to the millisecond, `probability` is the word's confidence."""
    content = {
        "text": transcript.text,
        "language": transcript.language,
        "duration": round(transcript.duration_seconds, 3),
        "segments": [_segment(number, segment) for number, segment in enumerate(transcript.segments)],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": write_txt,
    "srt": write_srt,
    "vtt": write_vtt,
    "json": write_json,
}
"""File ending → writer."""


def _cues(transcript: Transcript) -> list[Segment]:
    """Segments that say something, each on one line (a blank line ends a cue); the whole text where none is cut."""
    segments = transcript.segments or (Segment(transcript.text, 0.0, transcript.duration_seconds),)
    lines = [(" ".join(segment.text.split()), segment) for segment in segments]
    return [Segment(text, segment.start_seconds, segment.end_seconds) for text, segment in lines if text]


def _clock(seconds: float, point: str, always_hours: bool) -> str:
    """Rounded to milliseconds before it is split, so that 59.9996 s is a full minute."""
    rest, milliseconds = divmod(round(max(seconds, 0.0) * 1000), 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    hours = f"{hour:02d}:" if hour or always_hours else ""
    return f"{hours}{minute:02d}:{second:02d}{point}{milliseconds:03d}"


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")


def _segment(number: int, segment: Segment) -> dict:
    return {
        "id": number,
        "start": round(segment.start_seconds, 3),
        "end": round(segment.end_seconds, 3),
        "text": segment.text,
        "words": [
            {
                "word": word.text,
                "start": round(word.start_seconds, 3),
                "end": round(word.end_seconds, 3),
                "probability": round(word.confidence, 4),
            }
            for word in segment.words
        ],
    }
