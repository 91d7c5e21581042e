"""A transcript in; the text of a .txt, .srt, .vtt, .tsv, .words.tsv or .json file out, in common shapes.

Cues keep to what broadcasters ask for (BBC and Netflix guidelines): two lines of 42 characters, or 18 that are wide as
Han characters are; up to 7 s and, where the next cue leaves room, no less than 5/6 s and time to read them.
"""

import json
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from glmasr.speech import Segment, Transcript, Word

LINE_WIDTH, LINES = 42.0, 2
WIDE = 42 / 18
"""The width of a Han character, in characters of 42 a line."""

SHORTEST_SECONDS, LONGEST_SECONDS = 5 / 6, 7.0
WIDTH_PER_SECOND = 20.0
"""What people read, in characters: 20 of a Latin script, or 9 wide ones."""

PAUSE_SECONDS = 1.0
"""So long a pause always ends a cue."""

ENDS, STOPS = "。．.!?！？…", "，、；：,;:"
"""Punctuation behind which a cue, or a line, ends best, and second best."""


@dataclass(frozen=True)
class Cue:
    """What is shown at a time: one or two lines."""

    lines: tuple[str, ...]
    start_seconds: float
    end_seconds: float


def write_txt(transcript: Transcript) -> str:
    """One segment a line."""
    return "".join(f"{segment.text}\n" for segment in _told(transcript))


def write_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, always with hours, a comma before the milliseconds."""
    return "".join(
        f"{number}\n{_clock(cue.start_seconds, ',', True)} --> {_clock(cue.end_seconds, ',', True)}\n"
        f"{_lines(cue).replace('-->', '->')}\n\n"
        for number, cue in enumerate(cues(transcript), 1)
    )


def write_vtt(transcript: Transcript) -> str:
    """WebVTT: hours only where there are any; & and < escaped, as its grammar asks."""
    shown = "".join(
        f"{_clock(cue.start_seconds, '.', False)} --> {_clock(cue.end_seconds, '.', False)}\n"
        f"{_escape_vtt(_lines(cue))}\n\n"
        for cue in cues(transcript)
    )
    return f"WEBVTT\n\n{shown}"


def write_tsv(transcript: Transcript) -> str:
    """Whisper's table: start and end of each segment in whole milliseconds, and its text."""
    rows = [(segment.start_seconds, segment.end_seconds, segment.text) for segment in _told(transcript)]
    return "start\tend\ttext\n" + "".join(f"{_ms(start)}\t{_ms(end)}\t{text}\n" for start, end, text in rows)


def write_words(transcript: Transcript) -> str:
    """A line for each word: start and end in seconds, confidence, the word."""
    words = [word for segment in transcript.segments for word in segment.words]
    lines = [f"{w.start_seconds:.3f}\t{w.end_seconds:.3f}\t{w.confidence:.3f}\t{w.text}\n" for w in words]
    return "start\tend\tconfidence\tword\n" + "".join(lines)


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
    "tsv": write_tsv,
    "words.tsv": write_words,
    "json": write_json,
}
"""File ending → writer."""


def cues(transcript: Transcript) -> list[Cue]:
    """Cues in order, none overlapping another or the recording's end, broken at pauses and punctuation.

    Of all ways to break the text the one is taken that costs least (as in Knuth and Plass 1981).
    """
    shown = [cue for _, said in groupby(_told(transcript), lambda one: one.speaker) for cue in _broken_up([*said])]
    return _timed([unit for unit in shown if "".join(one.text for one in unit).strip()], transcript.duration_seconds)


def _broken_up(segments: list[Segment]) -> list[list[Word]]:
    """What each cue shows of what one speaker says."""
    units = [part for segment in segments for unit in _units(segment) for part in _parts(unit)]
    widths = list(accumulate((_width(unit.text) for unit in units), initial=0.0))
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(units) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            if start < end - 1 and not (_may_follow(units, start, end) and _fits(widths, start, end)):
                break
            options.append((best[start][0] + _cost(units, widths, start, end), start))
        best.append(min(options))
    bounds, end = [], len(units)
    while end:
        bounds.append((best[end][1], end))
        end = best[end][1]
    return [units[start:end] for start, end in reversed(bounds)]


def _told(transcript: Transcript) -> list[Segment]:
    """Segments that say something, each on one line (a blank line ends a cue); the whole text where none is cut.

    Where another speaker begins, the text does with who it is.
    """
    segments = transcript.segments or (Segment(transcript.text, 0.0, transcript.duration_seconds),)
    lines = [replace(one, text=" ".join(one.text.split())) for one in segments]
    lines = [one for one in lines if one.text]
    speakers = ["", *(one.speaker for one in lines)]
    return [
        replace(one, text=f"{one.speaker}: {one.text}") if one.speaker and one.speaker != before else one
        for before, one in zip(speakers, lines, strict=False)
    ]


def _units(segment: Segment) -> list[Word]:
    """The segment's words, each with the spaces and marks up to the next.

    Where none are known, or the text is not made of them, the text's own are spread evenly over the segment.
    """
    text, words, places, place = segment.text, segment.words, [], 0
    for word in words:
        place = text.find(word.text, place)
        if place < 0:
            break
        places.append(place)
        place += len(word.text)
    if not words or place < 0:
        return _spread(segment)
    places[0] = 0
    stops = [*places[1:], len(text)]
    parts = [text[start:stop] for start, stop in zip(places, stops, strict=True)]
    parts[-1] += "" if _width(parts[-1][-1:]) > 1 else " "
    return [Word(part, w.start_seconds, w.end_seconds) for part, w in zip(parts, words, strict=True)]


def _spread(segment: Segment) -> list[Word]:
    """The text cut behind spaces and wide characters; seconds for what is wide in print."""
    parts = [""]
    for character in segment.text:
        if (
            parts[-1]
            and character != " "
            and (parts[-1][-1] == " " or (_width(parts[-1][-1]) > 1 and character not in ENDS + STOPS))
        ):
            parts.append("")
        parts[-1] += character
    parts[-1] += "" if _width(parts[-1][-1:]) > 1 else " "
    seconds = (segment.end_seconds - segment.start_seconds) / max(sum(map(_width, parts)), 1.0)
    words, start = [], segment.start_seconds
    for part in parts:
        words.append(Word(part, start, start + _width(part) * seconds))
        start = words[-1].end_seconds
    return words


def _parts(unit: Word) -> list[Word]:
    """A word longer than a line, cut."""
    if _width(unit.text.strip()) <= LINE_WIDTH:
        return [unit]
    size = int(LINE_WIDTH / max(map(_width, unit.text)))
    parts = [unit.text[i : i + size] for i in range(0, len(unit.text), size)]
    step = (unit.end_seconds - unit.start_seconds) / len(parts)
    starts = [unit.start_seconds + i * step for i in range(len(parts))]
    return [Word(part, start, start + step) for part, start in zip(parts, starts, strict=True)]


def _may_follow(units: list[Word], start: int, end: int) -> bool:
    """Whether a cue that may go from the second of these units to the last may begin with the first."""
    pause = units[start + 1].start_seconds - units[start].end_seconds
    return pause < PAUSE_SECONDS and units[end - 1].end_seconds - units[start].start_seconds <= LONGEST_SECONDS


def _fits(widths: list[float], start: int, end: int) -> bool:
    """Whether units fit two lines; behind a line's last there may be one space more."""
    middle = bisect_right(widths, widths[start] + LINE_WIDTH + 1, start, end + 1) - 1
    return widths[end] - widths[middle] <= LINE_WIDTH + 1


def _cost(units: list[Word], widths: list[float], start: int, end: int) -> float:
    """What a cue costs: 1 to be there, more where it breaks in a stream of words, is short, or too fast to read."""
    last = units[end - 1].text.rstrip()[-1:]
    until = units[end].start_seconds if end < len(units) else units[-1].end_seconds + SHORTEST_SECONDS
    seconds = max(until - units[start].start_seconds, 0.01)
    pause = until - units[end - 1].end_seconds if end < len(units) else PAUSE_SECONDS
    breaks = 0.0 if last and last in ENDS else 0.7 if last and last in STOPS else 2.0 * max(0.0, 1.0 - pause / 0.5)
    hurry = max(0.0, (widths[end] - widths[start]) / seconds / WIDTH_PER_SECOND - 1.0)
    brevity = max(0.0, 1.0 - seconds / SHORTEST_SECONDS)
    return 1.0 + breaks + min(hurry, 3.0) + 3.0 * brevity


def _broken(text: str) -> tuple[str, ...]:
    """One line where it fits, else two as even as can be, broken behind punctuation rather, within a word at worst."""
    if _width(text) <= LINE_WIDTH:
        return (text,)
    options = []
    for place in range(1, len(text)):
        before, behind = text[place - 1], text[place]
        if before != " " and (_width(before) <= 1 or _width(behind) <= 1 or behind in ENDS + STOPS):
            continue
        above, below = text[:place].strip(), text[place:].strip()
        widths = _width(above), _width(below)
        if max(widths) <= LINE_WIDTH:
            mark = 0.0 if above[-1:] in ENDS else 4.0 if above[-1:] in STOPS else 12.0
            options.append((abs(widths[0] - widths[1]) + mark, above, below))
    if options:
        return min(options)[1:]
    fitting = sum(width <= LINE_WIDTH for width in accumulate(map(_width, text)))
    return text[:fitting], text[fitting:]


def _timed(shown: list[list[Word]], duration_seconds: float) -> list[Cue]:
    """From the first word to the last, and on for as long as reading takes, if nothing else comes.

    Two who speak at once share the time by how much they say, or the first one's cue would be over as it begins.
    """
    made: list[Cue] = []
    starts = [max(unit[0].start_seconds, 0.0) for unit in shown]
    for i, unit in enumerate(shown):
        text = "".join(word.text for word in unit).strip()
        start = max(starts[i], made[-1].end_seconds if made else 0.0)
        end = min(max(unit[-1].end_seconds, start), start + LONGEST_SECONDS)
        wanted = max(end, start + SHORTEST_SECONDS, start + min(_width(text) / WIDTH_PER_SECOND, LONGEST_SECONDS))
        limit = starts[i + 1] if i + 1 < len(shown) else max(duration_seconds, end)
        if limit < min(end, start + SHORTEST_SECONDS):
            other = shown[i + 1]
            widths = _width(text), _width("".join(word.text for word in other).strip())
            both = max(end, other[-1].end_seconds) - start
            limit = max(limit, start + min(both * widths[0] / sum(widths), LONGEST_SECONDS))
        made.append(Cue(_broken(text), start, max(min(wanted, limit), min(end, max(limit, start)))))
    return made


def _lines(cue: Cue) -> str:
    return "\n".join(cue.lines)


def _width(text: str) -> float:
    return sum(WIDE if unicodedata.east_asian_width(character) in "WF" else 1.0 for character in text)


def _ms(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1000)


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
        **({"speaker": segment.speaker} if segment.speaker else {}),
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
