"""Units of what was said and rules in, hits out: phrases found exactly, by their sound, or nearly."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process

from glmasr.serving.review.rules import MATCHES, Rule, Rules
from glmasr.serving.review.words import Unit, shown, units_in
from glmasr.text.characters import HAN
from glmasr.text.normalize import base_language
from glmasr.text.syllables import syllables
from glmasr.text.written import joined

TONE = re.compile(r"(?<=[^\W\d_])[1-9]$")
CHARACTERS = re.compile(f"[{HAN}]")
SLACK_UNITS = 1
"""A phrase is nearly said in as many words, one less, or one more."""

MANDARIN_ACCENTS = ((r"^([zcs])h", r"\1"), (r"^n(?=[aeiouv])", "l"), (r"^f", "h"), (r"(?<=[aei])ng$", "n"))
CANTONESE_ACCENTS = (
    *((r"^n(?=[aeiou])", "l"), (r"^ng(?=[aeiou])", ""), (r"^([gk])w(?=o)", r"\1")),
    *((r"(?<=[aeiou])ng$", "n"), (r"(?<=[aeiou])k$", "t")),
)
"""Sounds that many speakers do not tell apart, and recognizers hear as either."""


@dataclass(frozen=True)
class Hit:
    """A phrase of a rule that was said; `heard` is what stands in the transcript, `score` 1 for all but `fuzzy`."""

    rule: Rule
    phrase: str
    heard: str
    start_seconds: float
    end_seconds: float
    speaker: str
    match: str
    score: float
    context: str

    @property
    def is_late(self) -> bool:
        """Whether it was said behind its rule's deadline, if that has one."""
        return self.rule.by_seconds is not None and self.start_seconds > self.rule.by_seconds

    def as_json(self) -> dict[str, Any]:
        """All but its rule; times in seconds to the millisecond."""
        return {
            "phrase": self.phrase,
            "heard": self.heard,
            "match": self.match,
            "score": self.score,
            "start": round(self.start_seconds, 3),
            "end": round(self.end_seconds, 3),
            "speaker": self.speaker,
            "context": self.context,
        }


Place = tuple[int, int, Rule, str, str, float]
"""The first unit and the one behind the last; rule, phrase, how it was found, score."""


class Finder:
    """The phrases of rules as they are compared in one language."""

    def __init__(self, rules: Rules, language: str):
        self.language, self.context_words = language or rules.language, rules.context_words
        self.rules = (*rules.sensitive, *rules.required)
        phrases = [(rule, phrase, units_in(phrase, self.language)) for rule in self.rules for phrase in rule.phrases]
        self.phrases = [one for one in phrases if one[2]]
        self.longest = max((len(units) for _, _, units in self.phrases), default=0) + SLACK_UNITS

    def find(self, units: Sequence[Unit]) -> list[Hit]:
        """What one speaker's units (in their order) hold, in the order of time.

        Of hits of one rule that overlap, the surest is kept.
        """
        if not units:
            return []
        found: list[Place] = []
        views: dict[str, list[str]] = {}
        for rule, phrase, wanted in self.phrases:
            if not is_about(rule, units[0].speaker):
                continue
            for match in rule.match:
                if match == "fuzzy":
                    continue
                if match not in views:
                    views[match] = _as_heard([unit.text for unit in units], match, self.language)
                sought = _as_heard(wanted, match, self.language)
                places = _places(views[match], sought)
                found += [(start, start + len(sought), rule, phrase, match, 1.0) for start in places]
        found += self._nearly(units)
        return [self._hit(units, *one) for one in _surest(found)]

    def _nearly(self, units: Sequence[Unit]) -> list[Place]:
        """Windows whose letters are those of a phrase to at least its rule's `least_score`."""
        found: list[Place] = []
        fuzzy = [one for one in self.phrases if "fuzzy" in one[0].match and is_about(one[0], units[0].speaker)]
        texts = [unit.text for unit in units]
        for size in sorted({len(wanted) for _, _, wanted in fuzzy}):
            phrases = [one for one in fuzzy if len(one[2]) == size]
            for width in range(max(1, size - SLACK_UNITS), min(size + SLACK_UNITS, len(texts)) + 1):
                windows = [joined(texts[start : start + width]) for start in range(len(texts) - width + 1)]
                sought = [joined(wanted) for _, _, wanted in phrases]
                least = 100 * min(rule.least_score for rule, _, _ in phrases)
                scores = process.cdist(windows, sought, scorer=fuzz.ratio, score_cutoff=least, dtype=np.float32)
                for start, column in zip(*map(np.ndarray.tolist, np.nonzero(scores)), strict=True):
                    rule, phrase, _ = phrases[column]
                    score = float(scores[start, column]) / 100
                    if score >= rule.least_score:
                        found.append((start, start + width, rule, phrase, "fuzzy", round(score, 4)))
        return found

    def _hit(
        self, units: Sequence[Unit], start: int, end: int, rule: Rule, phrase: str, match: str, score: float
    ) -> Hit:
        heard, around = units[start:end], units[max(0, start - self.context_words) : end + self.context_words]
        begin, until = heard[0].start_seconds, heard[-1].end_seconds
        return Hit(rule, phrase, shown(heard), begin, until, heard[0].speaker, match, score, shown(around))


def is_about(rule: Rule, speaker: str) -> bool:
    """Whether a rule is about these words; about all, where nobody knows who says them."""
    return not speaker or rule.speaker in (None, speaker)


def _as_heard(texts: Sequence[str], match: str, language: str) -> list[str]:
    """One unit for each: itself, or how it sounds without its tone, or that as many speakers have it."""
    if match == "exact":
        return list(texts)
    is_cantonese = base_language(language) == "yue"
    sounds = [TONE.sub("", sound) for sound in _read(texts, "jyutping" if is_cantonese else "pinyin")]
    if match == "sound":
        return sounds
    return [_accented(sound, is_cantonese) for sound in sounds]


def _read(texts: Sequence[str], romanize: str) -> list[str]:
    """Neighboring characters read together, as what stands beside one may tell how it is read; others as they are."""
    read: list[str] = []
    for run in _runs(texts):
        if not CHARACTERS.fullmatch(run[0]):
            read += run
            continue
        together = syllables("".join(run), romanize)
        read += together if len(together) == len(run) else [" ".join(syllables(one, romanize)) for one in run]
    return read


def _runs(texts: Sequence[str]) -> list[list[str]]:
    """Han characters that follow each other together, anything else alone."""
    runs: list[list[str]] = []
    for text in texts:
        if runs and CHARACTERS.fullmatch(text) and CHARACTERS.fullmatch(runs[-1][-1]):
            runs[-1].append(text)
        else:
            runs.append([text])
    return runs


@functools.lru_cache(maxsize=1 << 12)
def _accented(sound: str, is_cantonese: bool) -> str:
    for pattern, instead in CANTONESE_ACCENTS if is_cantonese else MANDARIN_ACCENTS:
        sound = re.sub(pattern, instead, sound)
    return sound


def _places(texts: Sequence[str], wanted: Sequence[str]) -> list[int]:
    size = len(wanted)
    return [
        start
        for start in range(len(texts) - size + 1)
        if texts[start] == wanted[0] and list(texts[start : start + size]) == list(wanted)
    ]


def _surest(found: list[Place]) -> list[Place]:
    """Of those of one rule that share a unit, the one by the surest match, the higher score, the more words."""
    kept: list[Place] = []
    taken: dict[str, set[int]] = {}
    for one in sorted(found, key=lambda one: (MATCHES.index(one[4]), -one[5], one[0] - one[1], one[0])):
        places = set(range(one[0], one[1]))
        mine = taken.setdefault(one[2].name, set())
        if not places & mine:
            mine |= places
            kept.append(one)
    return sorted(kept, key=lambda one: (one[0], one[1], one[2].name))
