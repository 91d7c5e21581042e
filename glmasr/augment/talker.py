"""Two waveforms in, the first with a stretch of the second talking over it out."""

from dataclasses import dataclass

import numpy as np

from glmasr.augment.sometimes import Sometimes
from glmasr.frontend.level import rms


@dataclass(frozen=True)
class TalkerMixing(Sometimes):
    """With `probability`, another utterance of the batch talks over at most `most_share` of this one.

    After WavLM (Chen et al. 2022, section III-B) and NEST: the first talker stays the main one, since the other has at
    most half of the time, at a ratio drawn evenly in dB.
    """

    ratio_low_db: float
    ratio_high_db: float
    probability: float
    most_share: float = 0.5

    def __call__(self, waveform: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N), (O) → (N)."""
        if not self.acts(rng):
            return waveform
        ratio_db = rng.uniform(self.ratio_low_db, self.ratio_high_db)
        size = max(1, int(min(len(other), rng.uniform(0, self.most_share) * len(waveform))))
        source = rng.integers(len(other) - size + 1)
        place = rng.integers(len(waveform) - size + 1)
        stretch = other[source : source + size]
        if not rms(stretch) or not rms(waveform):
            return waveform
        mixed = waveform.copy()
        level = rms(waveform) / rms(stretch) * 10 ** (-ratio_db / 20)
        mixed[place : place + size] += (stretch * level).astype(np.float32)
        return mixed
