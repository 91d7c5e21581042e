"""A clean waveform in, the same as a noisy place or a low volume would have it out: the conditions of a test set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from glmasr.augment.noise import list_recordings, mix
from glmasr.frontend.audio import read_audio
from glmasr.frontend.level import amplify, rms
from glmasr.speech import InputError

SILENT_SHARE = 0.1
"""A stretch 20 dB below its clip is the pause between two barks: raised to an SNR, it would be the codec one hears."""


@dataclass(frozen=True)
class Condition:
    """Recorded noise at `snr_db` below the speech, then a gain of `level_db`; None leaves that out.

    What a gain gives is kept in 16 bits, as a quiet recording is: what falls below the last bit is lost.
    """

    snr_db: float | None = None
    level_db: float | None = None
    recordings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """clean, snr=5, level=-30 or snr=5,level=-30."""
        parts = {"snr": self.snr_db, "level": self.level_db}
        return ",".join(f"{part}={db:g}" for part, db in parts.items() if db is not None) or "clean"

    @property
    def clips(self) -> list[str]:
        """The names of the noise recordings, the same on every machine."""
        return [Path(path).stem for path in self.recordings]

    def identity(self) -> list:
        """What the damage depends on, for a journal to tell it from another; nothing where it is clean."""
        return [] if self.name == "clean" else [self.name, self.clips if self.snr_db is not None else []]

    def apply(self, waveform: np.ndarray, key: str) -> np.ndarray:
        """(N) → (N); the noise depends on `key` (an utterance's id) alone, so that SNRs differ in nothing else."""
        if self.snr_db is not None and len(waveform):
            rng = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
            waveform = mix(waveform, self._noise(len(waveform), rng), self.snr_db)
        return waveform if self.level_db is None else in_16_bits(amplify(waveform, self.level_db))

    def _noise(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """A stretch of the first clip in a drawn order that is not silent where it is drawn."""
        for place in rng.permutation(len(self.recordings)):
            clip = read_audio(self.recordings[place])
            clip = np.resize(clip, max(len(clip), samples))
            start = rng.integers(len(clip) - samples + 1)
            stretch = clip[start : start + samples]
            if rms(stretch) > SILENT_SHARE * rms(clip):
                return stretch
        raise InputError(f"condition '{self.name}' needs noise that is heard: name recordings with noise.path=…")


CLEAN = Condition()


def read_conditions(
    rows: Sequence[dict[str, float]], noise_path: str | None = None, noise_clips: Sequence[str] = ("*",)
) -> list[Condition]:
    """One for each of {}, {snr_db: 10}, {level_db: -30}, …; noise from a folder or manifest, by patterns of names."""
    recordings: tuple[str, ...] = ()
    if any(row.get("snr_db") is not None for row in rows):
        if not noise_path:
            raise InputError(
                "a condition with snr_db needs recorded noise: name a folder or manifest with noise.path=…"
            )
        found = list_recordings(noise_path)
        recordings = tuple(p for p in found if any(fnmatch(Path(p).stem, pattern) for pattern in noise_clips))
        if not recordings:
            raise InputError(f"no recording in '{noise_path}' is called like {', '.join(noise_clips)}")
    try:
        conditions = [Condition(**row, recordings=recordings if "snr_db" in row else ()) for row in rows]
    except TypeError as error:
        raise InputError(f"a condition has snr_db, level_db, both or nothing ({error})") from error
    if len({condition.name for condition in conditions}) < len(conditions):
        raise InputError(f"two conditions are the same: {', '.join(condition.name for condition in conditions)}")
    return conditions


def in_16_bits(waveform: np.ndarray) -> np.ndarray:
    """The waveform (N) as a 16-bit file would give it back."""
    return (np.clip(np.round(waveform * 32768), -32768, 32767) / 32768).astype(np.float32)
