"""A waveform in, the same waveform with generated or recorded noise mixed in at a drawn SNR out."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import scipy.fft

from glmasr.augment.sometimes import Sometimes
from glmasr.frontend.audio import AUDIO_SUFFIXES, probe_audio, read_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError

LOWEST_HZ = 20.0
"""Below it the spectrum is flat, so that brown noise is heard and not just felt."""

ROUNDED_SECONDS = 0.01
"""A duration that comes so close to the end of its recording means the end."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a recording; without a duration it ends where the recording does."""

    path: str
    offset_seconds: float = 0.0
    duration_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """How long it is; only a stretch that may be the whole recording is looked up in the file."""
        given = self.duration_seconds
        if given is not None and self.offset_seconds:
            return given
        left = probe_audio(self.path).duration_seconds - self.offset_seconds
        return left if given is None or given > left - ROUNDED_SECONDS else given

    def draw(self, wanted_seconds: float, rng: np.random.Generator) -> np.ndarray:
        """So much of it (N) from a place drawn evenly, or all where it is shorter; nothing else is decoded."""
        seconds = self.seconds
        spare_seconds = max(seconds - wanted_seconds, 0.0)
        start = self.offset_seconds + (rng.uniform(0, spare_seconds) if spare_seconds else 0.0)
        return read_audio(self.path, start, min(wanted_seconds, seconds))


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
        size = cast(int, scipy.fft.next_fast_len(max(samples, 2), real=True))
        hertz = np.fft.rfftfreq(size, 1 / RATE_HZ).astype(np.float32)
        spectrum = rng.standard_normal(2 * len(hertz), dtype=np.float32).view(np.complex64)  # that of white noise
        exponent = rng.uniform(self.exponent_low, self.exponent_high)
        spectrum *= np.maximum(hertz, LOWEST_HZ) ** np.float32(-exponent / 2)
        spectrum[0] = 0
        noise = np.asarray(scipy.fft.irfft(spectrum, size))[:samples]
        if rng.random() < self.fluctuation_probability:
            noise = noise * envelope(samples, rng)
        return noise.astype(np.float32)


@dataclass(frozen=True)
class NoiseMixing(Sometimes):
    """With `probability`, noise at an SNR drawn evenly in dB: recorded if `noise_path` is given, else generated.

    `noise_path` is a folder of audio or a JSONL manifest (or a folder that holds manifest.jsonl, as a prepared corpus
    does), whose `train` rows are used, each from its `offset` on for its `duration`. The SNR compares the root mean
    squares of the whole waveforms. Silence stays silence.
    """

    snr_low_db: float
    snr_high_db: float
    probability: float
    noise_path: str | None

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        if not self.acts(rng):
            return waveform
        snr_db = rng.uniform(self.snr_low_db, self.snr_high_db)
        noise = self._recorded(len(waveform), rng) if self.noise_path else ColoredNoise()(len(waveform), rng)
        if not rms(noise):
            noise = ColoredNoise()(len(waveform), rng)
        return mix(waveform, noise, snr_db)

    @cached_property
    def stretches(self) -> list[Stretch]:
        """The noise to draw from, listed once in a process; InputError where there is none."""
        return list_stretches(self.noise_path or "")

    def _recorded(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        stretch = self.stretches[rng.integers(len(self.stretches))]
        return np.resize(stretch.draw(samples / RATE_HZ, rng), samples)


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


def list_recordings(path: str, purpose: str = "noise") -> list[str]:
    """The files that `list_stretches` finds something in, each once."""
    return list(dict.fromkeys(stretch.path for stretch in list_stretches(path, purpose)))


def list_stretches(path: str, purpose: str = "noise") -> list[Stretch]:
    """Audio under a folder, or stretches named by a manifest, in a fixed order; InputError where there are none."""
    place = Path(path)
    manifest = place / "manifest.jsonl" if place.is_dir() else place
    if manifest.is_file():
        found = _named_by(manifest, purpose)
    else:
        files = sorted(str(file) for file in place.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
        found = [Stretch(file) for file in files]
    if not found:
        remedy = "name a folder of audio or a manifest.jsonl with rows of the split train, or leave the path null"
        raise InputError(f"no {purpose} at '{path}': {remedy}")
    return found


def _named_by(manifest: Path, purpose: str) -> list[Stretch]:
    folder = os.fspath(manifest.parent)
    try:
        rows = (json.loads(line) for line in manifest.read_text("utf-8-sig").splitlines() if line.strip())
        return [_stretch_of(row, folder) for row in rows if (row.get("split") or "train") == "train"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        remedy = "give each line an audio_filepath, and offset and duration in seconds where they are known"
        raise InputError(f"'{manifest}' is not a manifest of {purpose} ({error!r}); {remedy}") from error


def _stretch_of(row: dict, folder: str) -> Stretch:
    duration = row.get("duration")
    return Stretch(
        path=os.path.join(folder, row["audio_filepath"]),
        offset_seconds=float(row.get("offset") or 0.0),
        duration_seconds=float(duration) if duration else None,
    )
