"""A waveform in, the same waveform with generated or recorded noise mixed in at a drawn SNR out."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from glmasr.frontend.audio import AUDIO_SUFFIXES, probe_audio, read_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError

LOWEST_HZ = 20.0
"""Below it the spectrum is flat, so that brown noise is heard and not just felt."""


@dataclass(frozen=True)
class ColoredNoise:
    """Gaussian noise, power 1 / frequency ** exponent, the exponent drawn evenly: 0 white, 1 pink, 2 brown.

    With `fluctuation_probability` its loudness wanders at the pace of syllables (2 to 8 Hz), as babble's does.
    """

    exponent_low: float = 0.0
    exponent_high: float = 2.0
    fluctuation_probability: float = 0.5

    def __call__(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """`samples` of noise (N) as float32, of no particular level."""
        size = 1 << max(samples - 1, 1).bit_length()
        spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
        hertz = np.fft.rfftfreq(size, 1 / RATE_HZ)
        exponent = rng.uniform(self.exponent_low, self.exponent_high)
        spectrum *= np.maximum(hertz, LOWEST_HZ) ** (-exponent / 2)
        spectrum[0] = 0
        noise = np.fft.irfft(spectrum, size)[:samples]
        if rng.random() < self.fluctuation_probability:
            noise = noise * envelope(samples, rng)
        return noise.astype(np.float32)


@dataclass(frozen=True)
class NoiseMixing:
    """With `probability`, noise at an SNR drawn evenly in dB: recorded if `noise_path` is given, else generated.

    `noise_path` is a folder of audio or a JSONL manifest (or a folder that holds manifest.jsonl, whose `train`
    rows are used). The SNR compares the root mean squares of the whole waveforms. Silence stays silence.
    """

    snr_low_db: float
    snr_high_db: float
    probability: float
    noise_path: str | None

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if rng.random() >= self.probability:
            return waveform
        snr_db = rng.uniform(self.snr_low_db, self.snr_high_db)
        noise = self._recorded(len(waveform), rng) if self.noise_path else ColoredNoise()(len(waveform), rng)
        if not rms(noise):
            noise = ColoredNoise()(len(waveform), rng)
        return mix(waveform, noise, snr_db)

    @cached_property
    def recordings(self) -> list[str]:
        """The noise files to draw from; InputError where there are none."""
        return list_recordings(self.noise_path or "")

    def _recorded(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        path = self.recordings[rng.integers(len(self.recordings))]
        wanted_seconds = samples / RATE_HZ
        spare_seconds = max(probe_audio(path).duration_seconds - wanted_seconds, 0.0)
        stretch = read_audio(path, rng.uniform(0, spare_seconds) if spare_seconds else 0.0, wanted_seconds)
        return np.resize(stretch, samples)


def mix(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech (N) plus noise (N) scaled to be exactly `snr_db` below it, as float32, not clipped."""
    level = rms(noise)
    if not level:
        return waveform
    return (waveform + noise * (rms(waveform) / level * 10 ** (-snr_db / 20))).astype(np.float32)


def envelope(samples: int, rng: np.random.Generator) -> np.ndarray:
    """A loudness curve (N) between 0.05 and 1 through random points 2 to 8 times a second."""
    points = 2 + int(samples / RATE_HZ * rng.uniform(2, 8))
    return np.interp(np.linspace(0, points - 1, samples), np.arange(points), rng.uniform(0.05, 1, points))


def list_recordings(path: str) -> list[str]:
    """Audio files under a folder or named by a manifest, in a fixed order; InputError where there are none."""
    place = Path(path)
    manifest = place / "manifest.jsonl" if place.is_dir() else place
    if manifest.is_file():
        found = _named_by(manifest)
    else:
        found = sorted(str(file) for file in place.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    if not found:
        raise InputError(f"no noise at '{path}': name a folder of audio or a manifest.jsonl, or leave noise_path null")
    return found


def _named_by(manifest: Path) -> list[str]:
    try:
        rows = [json.loads(line) for line in manifest.read_text("utf-8-sig").splitlines() if line.strip()]
        ours = [row["audio_filepath"] for row in rows if row.get("split", "train") == "train"]
        return [os.path.join(manifest.parent, path) for path in ours]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        message = f"'{manifest}' is not a manifest of noise ({error!r}); give each line an audio_filepath"
        raise InputError(message) from error
