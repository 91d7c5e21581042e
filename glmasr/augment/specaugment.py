"""Features in, features with bands and stretches blanked out (Park et al. 2019, without time warping)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SpecAugment:
    """Zero (the mean of normalized features) in up to `bands` mel bands and `stretches` time stretches.

    A stretch covers at most `stretch_share` of the utterance, so short ones keep something to hear.
    """

    bands: int
    band_bins: int
    stretches: int
    stretch_frames: int
    stretch_share: float = 0.2

    def __call__(self, features: Float[Tensor, "B F M"], lengths: list[int], rng: np.random.Generator) -> Tensor:
        features = features.clone()
        for row, length in enumerate(lengths):
            for _ in range(self.bands):
                size = int(rng.integers(0, self.band_bins + 1))
                start = int(rng.integers(0, features.shape[2] - size + 1))
                features[row, :, start : start + size] = 0.0
            for _ in range(self.stretches):
                size = int(rng.integers(0, min(self.stretch_frames, int(self.stretch_share * length)) + 1))
                start = int(rng.integers(0, length - size + 1))
                features[row, start : start + size] = 0.0
        return features
