"""A waveform in, the same speech said faster or slower, and higher or deeper, out (Ko et al. 2015, section 3)."""

from dataclasses import dataclass

import numpy as np

from glmasr.augment.sometimes import Sometimes
from glmasr.frontend.audio import resample


@dataclass(frozen=True)
class Speed(Sometimes):
    """A factor drawn evenly, applied with `probability` by resampling: tempo and pitch move together."""

    factor_low: float
    factor_high: float
    probability: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N / factor)."""
        if not self.acts(rng):
            return waveform
        return resample(waveform, rng.uniform(self.factor_low, self.factor_high), 1.0)
