"""Segments in, the units out that phrases are compared with: normalized words and characters with their times."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from glmasr.speech import Segment, Word
from glmasr.text.characters import HAN
from glmasr.text.normalize import SYLLABLES, normalize
from glmasr.text.written import joined

PIECES = re.compile(f"[{HAN}]|[^\\s{HAN}]+")


@dataclass(frozen=True)
class Unit:
    """A word, or a Han character, as it is compared; where it was said; and as it stands in the transcript, the one of
    this `number` there."""

    text: str
    shown: str
    number: int
    start_seconds: float
    end_seconds: float
    speaker: str = ""


def units_of(segments: Sequence[Segment], language: str, speaker: str = "") -> list[Unit]:
    """What was said as it is compared: normalized piece by piece, a Han character or what stands between spaces."""
    found: list[Unit] = []
    pieces = [piece for segment in segments for word in words_of(segment) for piece in _pieces(word)]
    for number, piece in enumerate(pieces):
        texts = _compared(piece.text, language)
        seconds = (piece.end_seconds - piece.start_seconds) / max(len(texts), 1)
        for i, text in enumerate(texts):
            start = piece.start_seconds + i * seconds
            found.append(Unit(text, piece.text, number, start, start + seconds, speaker))
    return found


def words_of(segment: Segment) -> list[Word]:
    """The segment's words; where it has none, its text's, spread evenly over it by their letters."""
    return list(segment.words) or _pieces(Word(segment.text, segment.start_seconds, segment.end_seconds))


def _pieces(word: Word) -> list[Word]:
    texts = PIECES.findall(word.text)
    if len(texts) < 2:
        return [word]
    step = (word.end_seconds - word.start_seconds) / sum(map(len, texts))
    starts = list(accumulate((step * len(text) for text in texts), initial=word.start_seconds))
    return [Word(*piece) for piece in zip(texts, starts, starts[1:], strict=False)]


def units_in(phrase: str, language: str) -> list[str]:
    """A phrase as `units_of` has what was said, piece by piece too; [] for one that nobody could hear, as "uh"."""
    return [unit for piece in PIECES.findall(phrase) for unit in _compared(piece, language)]


def shown(units: Sequence[Unit]) -> str:
    """Units as they stand in the transcript; what became two of them stands there once."""
    numbers = [None, *(unit.number for unit in units)]
    return joined([unit.shown for unit, before in zip(units, numbers, strict=False) if unit.number != before])


@functools.lru_cache(maxsize=1 << 15)
def _compared(text: str, language: str) -> tuple[str, ...]:
    return tuple(unit for unit in SYLLABLES.findall(normalize(text, language)) if any(map(str.isalnum, unit)))
