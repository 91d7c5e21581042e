"""A waveform in, the same waveform with its peaks cut off out."""

from dataclasses import dataclass

import numpy as np

from glmasr.augment.sometimes import Sometimes


@dataclass(frozen=True)
class Clipping(Sometimes):
    """With `probability`, an overdriven recorder: the loudest samples are cut off at one height.

    The share of samples that are cut is drawn evenly on a logarithmic scale, so that most speech is clipped lightly.
    Nothing becomes louder, and silence stays silence.
    """

    share_low: float
    share_high: float
    probability: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if not self.acts(rng):
            return waveform
        share = np.exp(rng.uniform(np.log(self.share_low), np.log(self.share_high)))
        height = clipping_height(waveform, share)
        return np.clip(waveform, -height, height)


def clipping_height(waveform: np.ndarray, share: float) -> np.float32:
    """The magnitude that about this share of the samples (N) exceeds."""
    place = min(int((1 - share) * len(waveform)), len(waveform) - 1)
    return np.partition(np.abs(waveform), place)[place]
