"""A recording and how probably each 32 ms of it is speech in, the same with quiet speech lifted out; causal, bounded.

Two parts, as the voice detector itself misses quiet speech. `for_detector` gives it a copy in which the loudest of the
last seconds is near `DETECTOR_DBFS`; nothing else ever hears that copy. `step` then lifts what the detector calls
speech, by what the running distribution of its levels asks for, and lets go of it where nobody speaks.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from math import inf, isfinite
from typing import Any

import numpy as np

from glmasr.build import check_names
from glmasr.frontend.pieces import listen
from glmasr.frontend.vad import FRAME_SAMPLES, FRAME_SECONDS
from glmasr.speech import RATE_HZ, InputError

ONSET, OFFSET = 0.5, 0.35
"""Probabilities at which speech begins and ends, Silero's own."""

DETECTOR_DBFS, DETECTOR_MOST_DB, DETECTOR_FALL_DB_PER_SECOND = -20.0, 40.0, 10.0
"""Where the detector is at its best, how much it is helped to get there, and how fast what was loud is forgotten."""

QUIETEST_DBFS = -100
LOUD_SHARE, NOISE_SHARE = 0.75, 0.1
"""The level of speech is what so many of its frames stay below; that of noise what so many of all frames do."""

NOISE_MEMORY_SECONDS = 10.0
"""Pauses are rarer than speech, so that noise is remembered longer."""

PRIOR_FRAMES = 2.0
"""As if so many frames of loud speech had been heard before: a soft beginning of 0.2 s is no quiet speech yet."""

CEILING = 0.98
"""Nothing is lifted beyond this part of full scale."""

DUCK_SAMPLES = RATE_HZ // 200
"""In 5 ms the gain is down where somebody is suddenly loud; what would go through the ceiling meanwhile is clipped."""


def _expected() -> np.ndarray:
    return np.array([0.0] * -QUIETEST_DBFS + [PRIOR_FRAMES])


@dataclass(frozen=True)
class GainState:
    """What is carried from step to step: levels in dBFS and gains in dB as they were at the last sample heard.

    `speech` and `all` count frames by level, those long ago for less.
    """

    speech: np.ndarray = field(default_factory=_expected)
    all: np.ndarray = field(default_factory=lambda: np.zeros(1 - QUIETEST_DBFS))
    gain_db: float = 0.0
    is_speech: bool = False
    pause_seconds: float = inf
    detector_dbfs: float = QUIETEST_DBFS
    detector_gain_db: float = 0.0


@dataclass(frozen=True)
class Gain:
    """Lifts speech whose level is under `threshold_dbfs` by `slope` of what it lacks, up to `max_gain_db`.

    Around the threshold, `knee_db` wide, the gain sets in smoothly; speech above it passes bit for bit. It never lifts
    by more than speech stands out of the noise, so that noise never gets as loud as speech was. Levels of speech are
    remembered for about `memory_seconds`. The gain rises by `rise_db_per_second` while somebody speaks, stays for
    `hold_seconds` of a pause, and falls by `fall_db_per_second`; where somebody is suddenly loud, it is down within
    5 ms.
    """

    threshold_dbfs: float = -40.0
    slope: float = 1.0
    max_gain_db: float = 40.0
    knee_db: float = 6.0
    memory_seconds: float = 1.0
    rise_db_per_second: float = 200.0
    fall_db_per_second: float = 100.0
    hold_seconds: float = 0.3

    def __post_init__(self):
        wrong = [one.name for one in fields(self) if not isfinite(getattr(self, one.name))]
        wrong += [name for name in ("knee_db", "memory_seconds", "rise_db_per_second") if not getattr(self, name) > 0]
        wrong += [name for name in ("max_gain_db", "hold_seconds") if not getattr(self, name) >= 0]
        wrong += [] if 0 <= self.slope <= 1 else ["slope"]
        wrong += [] if self.fall_db_per_second > 0 else ["fall_db_per_second"]
        if wrong:
            raise InputError(
                f"gain cannot work with {wrong[0]}={getattr(self, wrong[0])}: leave it out for its default"
            )

    def step(self, samples: np.ndarray, probabilities: np.ndarray, state: GainState) -> tuple[np.ndarray, GainState]:
        """Samples (N) lifted, and the state behind them; `probabilities` (T) are of each 512 samples, which only the
        last of a recording may have fewer of. Steps of any size give bit for bit what one step gives.
        """
        if len(probabilities) != -(-len(samples) // FRAME_SAMPLES):
            raise ValueError(
                f"{len(samples)} samples have {-(-len(samples) // FRAME_SAMPLES)} frames of speech, not these"
            )
        made = []
        for frame, probability in zip(_frames(samples), probabilities.tolist(), strict=True):
            level, peak = _level_dbfs(frame), float(np.abs(frame).max())
            state, before = self._heard(state, level, probability), state.gain_db
            room_db = _db(CEILING / max(peak, 1e-9))
            wanted = min(self.wanted_db(state, level), max(room_db, 0.0))
            now = self._toward(wanted, before, room_db, state)
            made.append(_amplified(frame, before, now, must_duck=before > room_db))
            state = replace(state, gain_db=now)
        return np.concatenate([*made, samples[:0]]), state

    def wanted_db(self, state: GainState, level_dbfs: float) -> float:
        """The gain that speech as it is heard, in a frame of such a level, asks for; 0 where nobody speaks."""
        if state.pause_seconds > self.hold_seconds:
            return 0.0
        level = max(_percentile(state.speech, LOUD_SHARE), level_dbfs)
        lacking, half = self.threshold_dbfs - level, self.knee_db / 2
        lacking = 0.0 if lacking <= -half else lacking if lacking >= half else (lacking + half) ** 2 / (4 * half)
        above_noise = max(level - _percentile(state.all, NOISE_SHARE), 0.0)
        return min(self.slope * lacking, self.max_gain_db, above_noise)

    def for_detector(self, samples: np.ndarray, state: GainState) -> tuple[np.ndarray, GainState]:
        """What the voice detector shall hear of samples (N), of which only the last step has no whole frames."""
        made = []
        for frame in _frames(samples):
            forgotten = state.detector_dbfs - DETECTOR_FALL_DB_PER_SECOND * FRAME_SECONDS
            level = max(_level_dbfs(frame), forgotten, QUIETEST_DBFS)
            room_db = _db(CEILING / max(float(np.abs(frame).max()), 1e-9))
            now = min(max(DETECTOR_DBFS - level, 0.0), DETECTOR_MOST_DB, max(room_db, 0.0))
            made.append(_amplified(frame, state.detector_gain_db, now, must_duck=state.detector_gain_db > room_db))
            state = replace(state, detector_dbfs=level, detector_gain_db=now)
        return np.concatenate([*made, samples[:0]]), state

    def _heard(self, state: GainState, level: float, probability: float) -> GainState:
        is_speech = probability >= (OFFSET if state.is_speech else ONSET)
        kept = float(np.exp(-FRAME_SECONDS / self.memory_seconds))
        column = min(max(round(level), QUIETEST_DBFS), 0) - QUIETEST_DBFS
        speech, all_ = state.speech, state.all * float(np.exp(-FRAME_SECONDS / NOISE_MEMORY_SECONDS))
        all_[column] += 1
        if is_speech:
            speech = speech * kept
            speech[column] += 1
        pause = 0.0 if is_speech else state.pause_seconds + FRAME_SECONDS
        return replace(state, speech=speech, all=all_, is_speech=is_speech, pause_seconds=pause)

    def _toward(self, wanted: float, before: float, room_db: float, state: GainState) -> float:
        if wanted >= before:
            # In a pause the gain may be held, but never grows.
            return min(wanted, before + self.rise_db_per_second * FRAME_SECONDS) if state.is_speech else before
        return min(max(wanted, before - self.fall_db_per_second * FRAME_SECONDS), max(room_db, 0.0))


def lifted_for_detector(gain: Gain, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Consecutive waveforms (N) of any size as the voice detector shall hear them."""
    state = GainState()
    for samples in _in_frames(blocks):
        heard, state = gain.for_detector(samples, state)
        yield heard


def lifted(gain: Gain, blocks: Iterable[np.ndarray], probabilities: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive waveforms (N) of any size lifted by the probabilities of speech in all of their frames (T)."""
    state, done = GainState(), 0
    for samples in _in_frames(blocks):
        count = -(-len(samples) // FRAME_SAMPLES)
        heard, state = gain.step(samples, probabilities[done : done + count], state)
        done += count
        yield heard


def lift(gain: Gain, waveform: np.ndarray) -> np.ndarray:
    """A whole recording (N) lifted where the voice detector, helped, hears speech."""
    speech = listen(lifted_for_detector(gain, [waveform])).speech
    return np.concatenate([*lifted(gain, [waveform], speech), waveform[:0]])


def _in_frames(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in blocks of whole frames; the rest comes last."""
    rest = np.zeros(0, np.float32)
    for block in chain(blocks, [None]):
        if block is None:
            whole, rest = rest, rest[:0]
        else:
            rest = np.concatenate([rest, block])
            whole, rest = np.split(rest, [len(rest) // FRAME_SAMPLES * FRAME_SAMPLES])
        if len(whole):
            yield whole


def _frames(samples: np.ndarray) -> Iterator[np.ndarray]:
    return (samples[start : start + FRAME_SAMPLES] for start in range(0, len(samples), FRAME_SAMPLES))


def _level_dbfs(frame: np.ndarray) -> float:
    return max(_db(float(np.mean(np.square(frame, dtype=np.float64)))) / 2, float(QUIETEST_DBFS))


def _db(ratio: float) -> float:
    return 20 * float(np.log10(max(ratio, 1e-30)))


def _percentile(counts: np.ndarray, share: float) -> float:
    sums = counts.cumsum()
    return float(np.searchsorted(sums, share * sums[-1])) + QUIETEST_DBFS


def _amplified(frame: np.ndarray, from_db: float, to_db: float, must_duck: bool) -> np.ndarray:
    """The frame (N) with a gain that goes from one to the other: within 5 ms, or else all along the frame."""
    if from_db == to_db == 0:
        return frame
    path = np.full(len(frame), 10 ** (to_db / 20))
    ramp = min(DUCK_SAMPLES, len(frame)) if must_duck else len(frame)
    path[:ramp] = np.linspace(10 ** (from_db / 20), path[-1], ramp)
    bound = np.maximum(np.abs(frame), np.float32(CEILING))
    return np.clip((frame * path).astype(np.float32), -bound, bound)


def gain_of(choice: bool | Mapping[str, Any], **otherwise: Any) -> Gain | None:
    """The gain that `True`, or a mapping of its parameters, asks for; `otherwise` has those that it does not name.

    InputError where there is no such parameter.
    """
    if not isinstance(choice, Mapping):
        return Gain(**otherwise) if choice else None
    check_names(Gain, choice, "gain")
    return Gain(**{**otherwise, **choice})
