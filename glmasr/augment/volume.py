"""A waveform in, the same waveform louder or quieter, by a gain or to a level, out."""

from dataclasses import dataclass

import numpy as np

from glmasr.augment.sometimes import Sometimes
from glmasr.frontend.level import amplify, scale_to_level

STEPS = np.float32(1 << 15)
"""Of 16 bits, to full scale."""


@dataclass(frozen=True)
class Volume(Sometimes):
    """A gain drawn evenly in dB, applied with `probability`; nothing is clipped."""

    gain_low_db: float
    gain_high_db: float
    probability: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if not self.acts(rng):
            return waveform
        return amplify(waveform, rng.uniform(self.gain_low_db, self.gain_high_db))


@dataclass(frozen=True)
class Level(Sometimes):
    """A level (root mean square of the whole) drawn evenly in dBFS, applied with `probability`; silence stays silence.

    Corpora differ in level, so that a whisper across the room is a level, not a gain: -60 dBFS, where speech is mostly
    at -30 to -20. `quantized` rounds to 16 bits and clips at full scale as a recorder does, which quiet speech never
    recovers from.
    """

    level_low_dbfs: float
    level_high_dbfs: float
    probability: float
    quantized: bool

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if not self.acts(rng):
            return waveform
        scaled = scale_to_level(waveform, rng.uniform(self.level_low_dbfs, self.level_high_dbfs))
        return quantize(scaled) if self.quantized else scaled


def quantize(waveform: np.ndarray) -> np.ndarray:
    """The waveform (N) in the 65,536 steps of 16 bits, clipped at full scale, as float32."""
    return np.clip(np.rint(waveform * STEPS), -STEPS, STEPS - 1) / STEPS
