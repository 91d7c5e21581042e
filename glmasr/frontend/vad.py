"""A 16 kHz waveform in; how probably each 32 ms of it is speech, and the regions of speech, out (Silero VAD 6)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports to its maker unless it is told not to
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

from glmasr.speech import RATE_HZ, InputError

VERSION = "silero-6"
"""Changes with the model, so that what another one heard is not believed."""

FRAME_SAMPLES, CONTEXT_SAMPLES, MEMORY_SHAPE = 512, 64, (2, 1, 1, 128)
FRAMES_AT_A_TIME = 2048
FRAME_SECONDS = FRAME_SAMPLES / RATE_HZ


@dataclass(frozen=True)
class VadState:
    """What is carried from block to block: the model's memory, and the samples (N) before the next whole frame.

    `samples` are the 64 of the frame before, which the model hears again, and those of the frame begun.
    """

    memory: np.ndarray = field(default_factory=lambda: np.zeros(MEMORY_SHAPE, np.float32))
    samples: np.ndarray = field(default_factory=lambda: np.zeros(CONTEXT_SAMPLES, np.float32))


def speech_probabilities(
    waveform: np.ndarray, state: VadState | None = None, last: bool = False
) -> tuple[np.ndarray, VadState]:
    """The probability of speech in each whole frame of 512 samples that `waveform` (N) completes, as float32 (T).

    Blocks of any size give what the whole gives when each is handed the state that the one before left; None starts a
    recording. `last` fills an unfinished frame with zeros and hears it too.
    """
    state = state or VadState()
    samples = np.concatenate([state.samples, np.asarray(waveform, np.float32)])
    if last:
        samples = np.pad(samples, (0, (CONTEXT_SAMPLES - len(samples)) % FRAME_SAMPLES))
    count = (len(samples) - CONTEXT_SAMPLES) // FRAME_SAMPLES
    probabilities, memory = np.empty(count, np.float32), state.memory
    for begin in range(0, count, FRAMES_AT_A_TIME):
        end = min(begin + FRAMES_AT_A_TIME, count)
        stretch = samples[begin * FRAME_SAMPLES : end * FRAME_SAMPLES + CONTEXT_SAMPLES]
        heard = sliding_window_view(stretch, CONTEXT_SAMPLES + FRAME_SAMPLES)[::FRAME_SAMPLES]
        inputs = {"input": np.ascontiguousarray(heard), "h": memory[0], "c": memory[1]}
        found, hidden, cell = map(np.asarray, _model().run(None, inputs))
        probabilities[begin:end], memory = found, np.stack([hidden, cell])
    return probabilities, VadState(memory, samples[count * FRAME_SAMPLES :].copy())


def speech_regions(
    probabilities: Sequence[float] | np.ndarray,
    duration_seconds: float | None = None,
    onset: float = 0.5,
    offset: float = 0.35,
    min_silence_seconds: float = 0.1,
    min_speech_seconds: float = 0.25,
    padding_seconds: float = 0.03,
) -> list[tuple[float, float]]:
    """Start and end of each region of speech in seconds, in order, none overlapping, from the frames' probabilities.

    Speech begins at `onset` and ends where the probability falls below `offset` for `min_silence_seconds`. Padding on
    both sides stops in the middle of a pause and at `duration_seconds` (None: the end of the last frame).
    """
    times = np.asarray(probabilities, np.float32).tolist()
    end_seconds = len(times) * FRAME_SECONDS if duration_seconds is None else duration_seconds
    found = [
        (start, stop)
        for start, stop in _spoken(times, onset, offset, min_silence_seconds, end_seconds)
        if stop - start > min_speech_seconds
    ]
    return _padded(found, padding_seconds, end_seconds)


def _spoken(
    probabilities: list[float], onset: float, offset: float, min_silence_seconds: float, end_seconds: float
) -> list[tuple[float, float]]:
    """Hysteresis: a pause counts from its first frame below `offset`, and is forgotten when speech is back."""
    found: list[tuple[float, float]] = []
    start: int | None = None
    pause: int | None = None
    for frame, probability in enumerate(probabilities):
        if probability >= onset:
            start, pause = frame if start is None else start, None
        elif start is not None and probability < offset:
            pause = frame if pause is None else pause
            if (frame - pause) * FRAME_SECONDS >= min_silence_seconds:
                found.append((start * FRAME_SECONDS, pause * FRAME_SECONDS))
                start = pause = None
    if start is not None:
        found.append((start * FRAME_SECONDS, end_seconds))
    return found


def _padded(
    regions: list[tuple[float, float]], padding_seconds: float, end_seconds: float
) -> list[tuple[float, float]]:
    stops = [0.0, *(stop for _, stop in regions)]
    starts = [*(start for start, _ in regions), end_seconds]
    # The recording's own ends are no neighbor to share a pause with.
    before = [starts[0], *((start - stop) / 2 for start, stop in zip(starts[1:-1], stops[1:], strict=False))]
    after = [*before[1:], max(0.0, end_seconds - stops[-1])]
    return [
        (start - min(padding_seconds, left), stop + min(padding_seconds, right))
        for (start, stop), left, right in zip(regions, before, after, strict=False)
    ]


@cache
def _model() -> onnxruntime.InferenceSession:
    """Silero's own file out of its wheel, whose package is not imported: that would ask for torchaudio."""
    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise InputError("the voice activity model is not installed; run pip install silero-vad")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = Path(package.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
