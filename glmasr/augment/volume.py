"""A waveform in, the same waveform louder or quieter out."""

from dataclasses import dataclass

import numpy as np

from glmasr.frontend.level import amplify


@dataclass(frozen=True)
class Volume:
    """A gain drawn evenly in dB, applied with `probability`; nothing is clipped."""

    gain_low_db: float
    gain_high_db: float
    probability: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if rng.random() >= self.probability:
            return waveform
        return amplify(waveform, rng.uniform(self.gain_low_db, self.gain_high_db))
