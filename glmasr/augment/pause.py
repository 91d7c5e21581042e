"""A waveform in, the same speech with a pause before and behind it out, as a stream or a long recording has it."""

from dataclasses import dataclass

import numpy as np

from glmasr.augment.sometimes import Sometimes
from glmasr.speech import RATE_HZ


@dataclass(frozen=True)
class Pause(Sometimes):
    """With `probability`, up to `seconds_high` of a room's faint noise on either side, each drawn evenly.

    The noise is white, its level drawn evenly in dB of full scale, and lies under the speech too. Clips that are cut
    closely, as corpora's are, otherwise teach a model that every recording begins and ends with a word.
    """

    seconds_high: float
    level_low_dbfs: float
    level_high_dbfs: float
    probability: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N and the pauses)."""
        if not self.acts(rng):
            return waveform
        before, behind = (round(rng.uniform(0, self.seconds_high) * RATE_HZ) for _ in range(2))
        level = 10 ** (rng.uniform(self.level_low_dbfs, self.level_high_dbfs) / 20)
        room = level * rng.standard_normal(before + len(waveform) + behind, dtype=np.float32)
        room[before : before + len(waveform)] += waveform
        return room.astype(np.float32)
