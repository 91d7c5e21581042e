"""Words of each speaker in, who spoke when out: turns, silences, overlaps, shares, rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from glmasr.serving.review.rules import Rules
from glmasr.serving.review.words import Unit

Stretch = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True)
class Talk:
    """How one speaker talked: for how long, its share of all speech (None where nobody speaks), words (Han characters)
    per minute of it, and his turns."""

    speaker: str
    seconds: float
    share: float | None
    units: int
    units_per_minute: float | None
    turns: tuple[Stretch, ...]


@dataclass(frozen=True)
class Course:
    """How a call went. `overlaps` are None where speakers cannot be told apart."""

    talk: tuple[Talk, ...]
    silences: tuple[Stretch, ...]
    overlaps: tuple[Stretch, ...] | None


def course_of(spoken: Sequence[tuple[str, Sequence[Unit]]], duration_seconds: float, rules: Rules) -> Course:
    """The course of a call from what each speaker said; a gap at its beginning or end is a silence too."""
    turns = [turns_of(units, rules.pause_seconds) for _, units in spoken]
    seconds = [sum(end - start for start, end in mine) for mine in turns]
    whole = sum(seconds)
    talk = [
        Talk(
            speaker,
            mine,
            mine / whole if whole else None,
            len(units),
            60 * len(units) / mine if mine else None,
            tuple(own),
        )
        for (speaker, units), own, mine in zip(spoken, turns, seconds, strict=True)
    ]
    overlaps = [both for one, other in combinations(turns, 2) for both in common(one, other)]
    overlaps = [both for both in merged(overlaps) if both[1] - both[0] >= rules.overlap_seconds]
    silences = [gap for gap in gaps([one for mine in turns for one in mine], duration_seconds)]
    silences = [gap for gap in silences if gap[1] - gap[0] >= rules.silence_seconds]
    return Course(tuple(talk), tuple(silences), tuple(overlaps) if len(spoken) > 1 else None)


def turns_of(units: Sequence[Unit], pause_seconds: float) -> list[Stretch]:
    """Stretches of words that are less than `pause_seconds` apart."""
    return merged([(unit.start_seconds, unit.end_seconds) for unit in units], pause_seconds)


def merged(stretches: Sequence[Stretch], gap_seconds: float = 0.0) -> list[Stretch]:
    """In the order of time, those that touch, or are less than `gap_seconds` apart, as one."""
    whole: list[Stretch] = []
    for start, end in sorted(stretches):
        if whole and (start <= whole[-1][1] or start - whole[-1][1] < gap_seconds):
            whole[-1] = (whole[-1][0], max(whole[-1][1], end))
        else:
            whole.append((start, end))
    return whole


def common(one: Sequence[Stretch], other: Sequence[Stretch]) -> list[Stretch]:
    """What two lists of stretches, each in order and none overlapping its next, share."""
    shared, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            shared.append((start, end))
        if one[i][1] <= other[j][1]:
            i += 1
        else:
            j += 1
    return shared


def gaps(stretches: Sequence[Stretch], duration_seconds: float) -> list[Stretch]:
    """What no stretch covers of 0 … `duration_seconds`."""
    found, reached = [], 0.0
    for start, end in merged(stretches):
        if start > reached:
            found.append((reached, start))
        reached = end
    return [*found, (reached, duration_seconds)] if duration_seconds > reached else found
