"""The nouns every room shares: an utterance on disk, a batch in memory, a transcript on screen."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # what only transcribes an exported bundle has no need of it, and it takes seconds to import
    from torch import Tensor

RATE_HZ = 16_000
"""Sampling rate of every waveform inside the house."""
FRAME_SECONDS = 0.04
"""What an encoder frame stands for: HOP_SAMPLES of frontend/logmel times STRIDE of model/subsampling."""


class InputError(Exception):
    """What the user gave cannot be used; the message is one sentence that names it and the remedy."""


class Interrupted(Exception):
    """Work was told to stop, and what it has done is saved; the message says how to go on."""


@dataclass(frozen=True)
class Utterance:
    """One row of a catalog: a stretch of a recording and what is known about it.

    `audio` is a path, or the bytes of a whole audio file. `duration_seconds` counts from `offset_seconds`.
    `text` is None where nobody has transcribed it.
    """

    id: str
    audio: str | bytes
    duration_seconds: float
    offset_seconds: float = 0.0
    text: str | None = None
    language: str = ""
    speaker: str = ""
    split: str = "train"


@dataclass(frozen=True)
class Batch:
    """What a loader hands to a training step.

    `waveform` (B, N) is what the model hears, `clean` (B, N) the same before noise was mixed in, both zero
    behind `lengths` (B). `tokens` (B, U) is padded with -1 behind `token_lengths`; both None without labels.
    `index` is the global batch index, the seed of every random choice of the step.
    """

    waveform: "Tensor"
    lengths: "Tensor"
    clean: "Tensor | None"
    tokens: "Tensor | None"
    token_lengths: "Tensor | None"
    ids: tuple[str, ...]
    texts: tuple[str | None, ...]
    index: int

    def to(self, device, non_blocking: bool = False) -> "Batch":
        """The same batch with every tensor on `device`."""
        from torch import Tensor

        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in tensors.items()}
        return replace(self, **moved)

    @property
    def seconds(self) -> float:
        """Seconds of real audio, padding not counted."""
        return float(self.lengths.sum()) / RATE_HZ


@dataclass(frozen=True)
class Word:
    """A word (a character in Chinese) and when it was said, in seconds from the start of the recording."""

    text: str
    start_seconds: float
    end_seconds: float
    confidence: float = 1.0


@dataclass(frozen=True)
class Segment:
    """A stretch of a transcript that belongs on one subtitle; `speaker` is "" where speakers are not told apart."""

    text: str
    start_seconds: float
    end_seconds: float
    words: tuple[Word, ...] = ()
    speaker: str = ""


@dataclass(frozen=True)
class Transcript:
    """What a system heard in one recording."""

    text: str
    duration_seconds: float
    segments: tuple[Segment, ...] = field(default_factory=tuple)
    language: str = ""


class System(Protocol):
    """Anything that transcribes: our own bundle, or a Whisper baseline."""

    name: str
    parameters: int
    size_bytes: int

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """Transcribe 16 kHz mono float32 waveforms, one transcript for each, in their order."""
        ...
