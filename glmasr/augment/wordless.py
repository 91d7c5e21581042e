"""An utterance's waveform in; now and then noise alone, as long and as loud, in which nobody says a word, out."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from glmasr.augment.noise import ColoredNoise, Stretch, list_stretches
from glmasr.augment.sometimes import Sometimes
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ


@dataclass(frozen=True)
class Wordless(Sometimes):
    """With `probability`, noise alone, recorded if `noise_path` is given, else generated; its transcript is empty.

    `noise_path` is as in `NoiseMixing`. The level is the utterance's, so that loudness tells nothing. A recording
    shorter than the utterance is followed by silence, and one that is silent there is left out for generated noise.
    """

    probability: float
    noise_path: str | None = None

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """(N) → (N) without a word, or None: the utterance stays what it is."""
        if not self.probability or not self.acts(rng):  # without it, no draw either
            return None
        noise = self._recorded(len(waveform), rng) if self.noise_path else ColoredNoise()(len(waveform), rng)
        if not rms(noise):
            noise = ColoredNoise()(len(waveform), rng)
        return (noise * (rms(waveform) / (rms(noise) or 1.0))).astype(np.float32)

    @cached_property
    def stretches(self) -> list[Stretch]:
        """The noise to draw from, listed once in a process; InputError where there is none."""
        return list_stretches(self.noise_path or "")

    def _recorded(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        stretch = self.stretches[rng.integers(len(self.stretches))]
        found = stretch.draw(samples / RATE_HZ, rng)[:samples]
        return np.pad(found, (0, samples - len(found)))
