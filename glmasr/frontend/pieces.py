"""A 16 kHz recording in, block by block; the pieces of it worth transcribing, ending where nobody speaks, out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from glmasr.frontend.vad import FRAME_SAMPLES, FRAME_SECONDS, VadState, speech_probabilities, speech_regions
from glmasr.speech import RATE_HZ

LEAD_FRAMES = 8
"""Silence (0.26 s) that the voice detector hears first: without it, it misses 2.4 % of fsdd's digits, with it none."""

LEAST_SECONDS, SHORT_SECONDS, SHORT_PROBABILITY = 0.1, 0.25, 0.9
"""Speech lasts so long; what is shorter than SHORT_SECONDS has to be so probable. Of 320 recordings of noise 85 % hold
no speech by this, of 1000 spoken digits 0.2 %; at Silero's own 0.25 s alone it is 86 % and 11 %."""

PAUSE_SECONDS = 2.0
"""A pause, and what comes before and after all speech, stays where it is up to this long: models know short ones."""

PADDING_SECONDS = 0.5
"""What is kept on either side of a longer pause, for breaths and whispered ends that the detector is not sure of."""

LEVEL_FRAMES = 3
"""Over so many frames (0.1 s) a place must be quiet to be cut at: a plosive's closure is shorter."""

Piece = tuple[int, int]
"""First sample, and the one behind the last."""


@dataclass(frozen=True)
class Course:
    """How a recording of `samples` goes, frame by frame of 512 samples: probability of speech (T) and power (T)."""

    samples: int
    speech: np.ndarray
    power: np.ndarray


def listen(blocks: Iterable[np.ndarray], vad: bool = True) -> Course:
    """The course of a recording that comes as consecutive waveforms (N) of any size, each forgotten once it is heard.

    Without `vad` all of it counts as speech.
    """
    speech, power = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    state, rest, samples = VadState(), np.zeros(0, np.float32), 0
    if vad:
        _, state = speech_probabilities(np.zeros(LEAD_FRAMES * FRAME_SAMPLES, np.float32))
    for block in chain(blocks, [None]):
        is_last = block is None
        if block is not None:
            samples += len(block)
            rest = np.concatenate([rest, block])
        whole = rest[: len(rest) if is_last else len(rest) // FRAME_SAMPLES * FRAME_SAMPLES]
        rest = rest[len(whole) :]
        frames = np.pad(whole, (0, -len(whole) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
        power.append(np.square(frames).mean(1))
        if vad:
            found, state = speech_probabilities(frames.reshape(-1), state)
            speech.append(found)
        else:
            speech.append(np.ones(len(frames), np.float32))
    return Course(samples, np.concatenate(speech), np.concatenate(power))


def pieces_of(course: Course, longest_seconds: float) -> list[Piece]:
    """Pieces in order, none overlapping, at most so long; together they hold all speech and every pause but long ones.

    A piece too long ends in the middle of the longest pause of its second half, or where that is quietest.
    """
    duration = course.samples / RATE_HZ
    regions = _regions(course)
    if not regions:
        return []
    pauses = [(stop, start) for (_, stop), (start, _) in pairwise([(0.0, 0.0), *regions, (duration, duration)])]
    (_, lead), *between, (tail, _) = pauses
    long = [(stop, start) for stop, start in between if start - stop > PAUSE_SECONDS]
    starts = [lead, *(start for _, start in long)]
    stops = [*(stop for stop, _ in long), tail]
    starts = [max(start - PADDING_SECONDS, 0.0) for start in starts]
    stops = [min(stop + PADDING_SECONDS, duration) for stop in stops]
    starts[0] = starts[0] if lead > PAUSE_SECONDS else 0.0
    stops[-1] = stops[-1] if duration - tail > PAUSE_SECONDS else duration
    power = np.convolve(course.power, np.ones(LEVEL_FRAMES), "same")
    stretches = zip(starts, stops, strict=True)
    found = [cut for stretch in stretches for cut in _cut(*stretch, pauses, power, longest_seconds)]
    places = [(round(start * RATE_HZ), min(round(stop * RATE_HZ), course.samples)) for start, stop in found]
    return [(start, stop) for start, stop in places if stop > start]


def take(blocks: Iterable[np.ndarray], pieces: list[Piece]) -> Iterator[np.ndarray]:
    """The waveform of each piece, in order; what is behind the last or between two is not kept."""
    held, begin = np.zeros(0, np.float32), 0
    waiting = iter(blocks)
    for start, stop in pieces:
        while begin + len(held) < stop:
            block = next(waiting, None)
            if block is None:
                break
            skipped = min(max(start - begin, 0), len(held))
            held, begin = np.concatenate([held[skipped:], block]), begin + skipped
        yield held[max(start - begin, 0) : stop - begin].copy()


def _regions(course: Course) -> list[tuple[float, float]]:
    duration = course.samples / RATE_HZ
    found = speech_regions(course.speech, duration, min_speech_seconds=LEAST_SECONDS, padding_seconds=0.0)
    return [(start, stop) for start, stop in found if stop - start >= SHORT_SECONDS or _peak(course, start, stop)]


def _peak(course: Course, start: float, stop: float) -> bool:
    frames = course.speech[int(start / FRAME_SECONDS) : int(np.ceil(stop / FRAME_SECONDS))]
    return bool(frames.max() >= SHORT_PROBABILITY)


def _cut(
    start: float, end: float, pauses: list[tuple[float, float]], power: np.ndarray, longest: float
) -> Iterator[tuple[float, float]]:
    while end - start > longest:
        low, high = start + longest / 2, start + longest
        inside = [pause for pause in pauses if low <= sum(pause) / 2 <= high]
        if inside:
            stop = sum(max(inside, key=lambda pause: pause[1] - pause[0])) / 2
        else:
            first = int(low / FRAME_SECONDS)
            quietest = first + int(power[first : int(high / FRAME_SECONDS)].argmin())
            stop = min((quietest + 0.5) * FRAME_SECONDS, high)
        yield start, stop
        start = stop
    yield start, end
