"""A waveform in, the same speech as a telephone line of 8 kHz and 8 bits carries it out."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from glmasr.augment.sometimes import Sometimes
from glmasr.frontend.audio import resample
from glmasr.frontend.level import rms, scale_to_level
from glmasr.speech import RATE_HZ

LINE_RATE_HZ = 8_000
LOW_HZ, HIGH_HZ = 300.0, 3_400.0
TAPS = 161
LAWS = ("mu", "a")


@dataclass(frozen=True)
class Telephone(Sometimes):
    """With `probability`, 300 to 3,400 Hz at 8 kHz, companded by G.711's µ-law or A-law, either as often.

    The line is driven at a level drawn evenly in dBFS, as quiet speech suffers more from 8 bits, and afterwards the
    level is what it was. Length and time stay as they are: the filter has no delay. Silence stays silence.
    """

    probability: float
    line_low_dbfs: float = -40.0
    line_high_dbfs: float = -16.0

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if not self.acts(rng):
            return waveform
        line_dbfs = rng.uniform(self.line_low_dbfs, self.line_high_dbfs)
        law = LAWS[rng.integers(len(LAWS))]
        narrow = limit_band(resample(waveform, RATE_HZ, LINE_RATE_HZ))
        if not rms(narrow):
            return waveform
        carried = resample(compand(scale_to_level(narrow, line_dbfs), law), LINE_RATE_HZ, RATE_HZ)
        carried = np.pad(carried, (0, max(0, len(waveform) - len(carried))))[: len(waveform)]
        level = rms(carried)
        return (carried * (rms(waveform) / level)).astype(np.float32) if level else waveform


def limit_band(narrow: np.ndarray) -> np.ndarray:
    """A waveform (N) at 8 kHz without what lies outside 300 to 3,400 Hz."""
    return np.convolve(narrow, band_filter())[TAPS // 2 :][: len(narrow)].astype(np.float32)


def compand(narrow: np.ndarray, law: str) -> np.ndarray:
    """A waveform (N) after G.711's 8 bits, `mu` or `a`, exactly; beyond ±1 it is clipped, A-law has no zero."""
    edges, levels = quantizer(law)
    return np.copysign(levels[np.searchsorted(edges, np.abs(narrow), "right")], narrow)


@lru_cache
def band_filter() -> np.ndarray:
    """The impulse response (161) of the band, symmetrical: a windowed sinc at 8 kHz."""
    time = np.arange(TAPS) - TAPS // 2

    def low_pass(hertz: float) -> np.ndarray:
        return 2 * hertz / LINE_RATE_HZ * np.sinc(2 * hertz / LINE_RATE_HZ * time)

    return ((low_pass(HIGH_HZ) - low_pass(LOW_HZ)) * np.hamming(TAPS)).astype(np.float32)


@lru_cache
def quantizer(law: str) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes at which G.711 changes to the next of 128 levels (127), and the levels (128); full scale is 1."""
    if law == "mu":
        edges = np.cumsum(np.repeat([1, *(2 << np.arange(8))], [1, 15] + [16] * 7))
        levels, top = np.concatenate([[0.0], (edges[1:] + edges[:-1]) / 2]), 8192
    else:
        edges = np.cumsum(np.repeat([2, *(2 << np.arange(7))], 16))
        levels, top = np.concatenate([[1.0], (edges[1:] + edges[:-1]) / 2]), 4096
    return edges[:-1] / top, (levels / top).astype(np.float32)
